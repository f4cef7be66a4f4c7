import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from monai_diffens.bundle.folder import WEIGHTS
from monai_diffens.cli import app
from monai_diffens.cli_options import NOT_USABLE
from monai_diffens.demo import FACTOR, format_table, load_truth, slice_affine
from monai_diffens.report.picture import foreground_box, foreground_centre, three_plane_picture
from monai_diffens.transforms.thick_slices import measurement_for

matplotlib = pytest.importorskip("matplotlib")


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *map(str, arguments)], catch_exceptions=False)


def ball(shape: tuple[int, int, int] = (30, 36, 24)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    return np.where((grid**2).sum(axis=0) < 0.6, 1 + grid[0] / 2, 0.0)


def test_picture_is_a_png_that_shows_something(tmp_path: Path) -> None:
    truth = ball()
    volumes = {"input": truth * 0.8, "cubic": truth * 0.9, "ours": truth * 0.95}
    path = three_plane_picture(volumes, truth, tmp_path / "a.png", (1, 1, 2), data_range=1.5, caption="a\nb")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(path)
    height, width = pixels.shape[:2]
    assert 4 * 300 < width < 3000 and width < height < 4000
    grey = pixels[..., :3].mean(axis=2)
    assert grey.std() > 0.1 and len(np.unique(grey)) > 50


def test_picture_shows_the_left_on_the_left(tmp_path: Path) -> None:
    truth = ball()  # brighter to the right
    path = three_plane_picture({"ours": truth}, truth, tmp_path / "a.png")
    grey = matplotlib.image.imread(path)[..., :3].mean(axis=2)
    panel = grey[150:250, 50:325]  # inside the first column's axial panel
    assert panel[:, 160:200].mean() > panel[:, 70:110].mean() + 0.1


def test_picture_of_equal_volumes(tmp_path: Path) -> None:
    truth = ball()
    assert three_plane_picture({"same": truth}, truth, tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize("volumes", [{}, {"ours": np.ones((4, 4, 4))}])
def test_picture_refuses_volumes_on_another_grid(tmp_path: Path, volumes: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="shape"):
        three_plane_picture(volumes, ball(), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_foreground() -> None:
    volume = np.zeros((9, 8, 7))
    volume[2:5, 3:8, 1] = 1
    low, high = foreground_box(volume)
    assert low.tolist() == [2, 3, 1] and high.tolist() == [4, 7, 1]
    assert foreground_centre(volume) == (3, 5, 1)
    with pytest.raises(ValueError, match="no voxel above zero"):
        foreground_box(np.zeros((3, 3, 3)))


def test_slices_lie_at_the_mean_of_the_voxels_they_cover() -> None:
    affine = nib.affines.from_matvec([[0, -1, 0], [0.9, 0, 0], [0, 0, 2]], [5, 6, 7])
    thick = slice_affine(affine, measurement_for((10, 12, 30), (1, 1, 5)))
    for k in range(6):
        covered = nib.affines.apply_affine(affine, [[3, 4, 5 * k + i] for i in range(5)])
        np.testing.assert_allclose(nib.affines.apply_affine(thick, [3, 4, k]), covered.mean(axis=0))


def test_table_is_aligned_and_tells_the_difference() -> None:
    keys = ("psnr", "psnr_brain", "ssim", "ssim_brain")
    text = format_table({"cubic": dict.fromkeys(keys, 20.0), "ours": dict.fromkeys(keys, 21.5)})
    lines = text.splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["ours", "-", "cubic", *["+1.500"] * 4]


def test_missing_weights_end_with_one_line_and_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text('{"num_steps": 1}')
    done = demo("-o", tmp_path / "out", "--bundle_root", tmp_path)
    assert done.exit_code == NOT_USABLE
    assert WEIGHTS in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_template_is_the_published_one() -> None:
    datasets = pytest.importorskip("nilearn.datasets")
    whole = nib.as_closest_canonical(datasets.load_mni152_template(resolution=1))
    truth, affine = load_truth()
    corner = np.linalg.solve(whole.affine, affine[:, 3])[:3].round().astype(int)
    box = tuple(slice(start, start + side) for start, side in zip(corner, truth.shape, strict=True))
    np.testing.assert_allclose(truth.numpy(), whole.get_fdata()[box], atol=1e-6)
    assert np.count_nonzero(truth) == np.count_nonzero(whole.get_fdata()) and truth.shape[2] % FACTOR == 0


@pytest.mark.slow
def test_demo_on_a_small_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    done = demo("-o", "out", "--crop", "64", "--num_steps", "1")
    assert done.exit_code == 0, done.output
    truth, thick, result = (
        nib.load(out / f"{name}.nii.gz") for name in ("truth", "thick_5mm", "thick_5mm_sr")
    )
    assert truth.shape == result.shape == (64, 64, 60) and thick.shape == (64, 64, 12)
    np.testing.assert_allclose(result.affine, truth.affine, atol=1e-4)
    np.testing.assert_allclose(thick.affine[:3, 3], truth.affine[:3, 3] + [0, 0, 2])
    means = truth.get_fdata().reshape(64, 64, 12, 5).mean(axis=-1)
    np.testing.assert_allclose(thick.get_fdata(), means, atol=1e-5)
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert set(figures["metrics"]) == {"cubic", "restored spline", "ours"}
    assert figures["num_steps"] == 1 and figures["consistency"] < 0.01
    assert f"{figures['metrics']['ours']['psnr']:.3f}" in done.stdout
    assert "Research use only; the result is synthetic." in done.stdout
    assert (out / "comparison.png").stat().st_size > 100_000
