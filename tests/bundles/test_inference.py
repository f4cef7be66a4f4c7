"""The inference command on made-up scans: geometry, consistency, seeds."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from monai_diffens.transforms.thick_slices import measurement_for

CENTRE = np.array([12.0, -7.0, 30.0])  # of every scan, in mm
RADII = np.array([14.0, 16.0, 18.0])  # of the head
LANDMARK = CENTRE + (5.0, -4.0, 6.0)
LANDMARK_SIGMA, LANDMARK_PEAK = 4.0, 600.0
TARGET = 1.0

RIGHT, FRONT, HEAD = np.eye(3)
TILT = nib.eulerangles.euler2mat(z=0.2, x=0.35)

# name -> directions of the voxel axes (columns), shape, spacing in mm
GOOD = {
    "straight": (np.eye(3), (32, 36, 8), (1, 1, 5)),
    "oblique": (TILT, (32, 36, 8), (1, 1, 5)),
    "las": (np.stack([-RIGHT, FRONT, HEAD], 1), (32, 36, 8), (1, 1, 5)),
    "pir": (np.stack([-FRONT, -HEAD, RIGHT], 1), (36, 40, 7), (1, 1, 5)),
    "in_plane": (np.eye(3), (35, 33, 8), (0.9, 1.1, 5)),
    "odd": (TILT @ np.stack([RIGHT, -HEAD, FRONT], 1), (31, 39, 9), (1, 1, 4.4)),
    "thicker": (np.eye(3), (32, 36, 6), (1, 1, 7)),
}


def head(place: np.ndarray) -> np.ndarray:
    """Brightness of a smooth head at (..., 3) mm."""
    return 400 * np.clip(1 - np.square((place - CENTRE) / RADII).sum(-1), 0, None)


def landmark(place: np.ndarray) -> np.ndarray:
    """Brightness of a bright spot in it."""
    return LANDMARK_PEAK * np.exp(-np.square((place - LANDMARK) / LANDMARK_SIGMA).sum(-1) / 2)


def places(affine: np.ndarray, shape: tuple[int, ...], offset: float = 0.0) -> np.ndarray:
    """(X, Y, Z, 3) mm of voxel centres, moved by ``offset`` voxels along the last axis."""
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"), -1)
    index[..., 2] += offset
    return index @ affine[:3, :3].T + affine[:3, 3]


def scan(directions: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> nib.Nifti1Image:
    """A scan that averages over its last axis' voxels."""
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    offsets = (np.arange(11) - 5) / 11
    values = np.mean([(head(p) + landmark(p)) for p in (places(affine, shape, o) for o in offsets)], axis=0)
    image = nib.Nifti1Image(np.round(values).astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    return image


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A folder of scans."""
    folder = tmp_path_factory.mktemp("scans")
    for name, geometry in GOOD.items():
        scan(*geometry).to_filename(folder / f"{name}.nii.gz")
    scan(np.eye(3), (32, 36, 40), (1, 1, 1)).to_filename(folder / "fine.nii.gz")
    return folder


@pytest.fixture(scope="module")
def results(bundle, scans, run_inference, tmp_path_factory):
    """Output folder and process of one run over that folder, from a third folder."""
    out = tmp_path_factory.mktemp("results") / "out"
    done = run_inference(
        bundle, tmp_path_factory.mktemp("elsewhere"), input=scans, output_dir=out, num_steps=1
    )
    return out, done


@pytest.mark.slow
def test_a_folder(results):
    out, done = results
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (
        "7 done, 0 skipped (result already there), 0 rejected, 0 failed, "
        "1 with nothing to do (already at the target spacing)" in done.stdout
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["index.html", "index.json", "results.csv"]
        + [f"{name}_sr{e}" for name in GOOD for e in (".html", ".json", ".nii.gz")]
    )
    facts = json.loads((out / "index.json").read_text())
    assert [entry["Case"] for entry in facts["Cases"]] == sorted(GOOD) and facts["Rejected"] == []
    assert all(entry["Consistency"]["MeanAbsoluteDifference"] < 0.02 for entry in facts["Cases"])


@pytest.mark.slow
def test_what_is_logged(results):
    out, done = results
    warned = [line for line in done.stdout.splitlines() if " WARNING " in line]
    unlike = [line for line in warned if "the brain spans" in line or "unlike the training" in line]
    assert sum("the brain spans" in line for line in unlike) == len(GOOD)  # these heads are tiny
    warned = [line for line in warned if line not in unlike]
    assert len(warned) == 1 and "thicker: slices 7 mm apart are 7 target voxels" in warned[0]
    assert re.match(r"\d\d:\d\d:\d\d WARNING ", warned[0])
    assert [
        "nothing to do" in line for line in done.stdout.splitlines() if "INFO fine.nii.gz: nothing" in line
    ] == [True]
    facts = json.loads((out / "thicker_sr.json").read_text())
    assert facts["Synthetic"] and "beyond the trained" in facts["Warnings"][0]
    warnings = json.loads((out / "straight_sr.json").read_text())["Warnings"]
    assert sum(warning.startswith("the brain spans") for warning in warnings) == 1
    assert all("unlike the training" in warning for warning in warnings if "the brain spans" not in warning)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_geometry(results, scans, name):
    before, after = nib.load(scans / f"{name}.nii.gz"), nib.load(results[0] / f"{name}_sr.nii.gz")
    assert nib.aff2axcodes(after.affine) == nib.aff2axcodes(before.affine)
    spacing, given = (nib.affines.voxel_sizes(image.affine) for image in (after, before))
    np.testing.assert_allclose(spacing, np.minimum(given, TARGET), atol=1e-4)  # finer pixels are kept
    directions = [image.affine[:3, :3] / nib.affines.voxel_sizes(image.affine) for image in (before, after)]
    np.testing.assert_allclose(*directions, atol=1e-5)
    centres = [nib.affines.apply_affine(i.affine, (np.array(i.shape) - 1) / 2) for i in (before, after)]
    np.testing.assert_allclose(*centres, atol=1e-3)
    extents = [np.array(i.shape) * nib.affines.voxel_sizes(i.affine) for i in (before, after)]
    np.testing.assert_allclose(*extents, atol=TARGET / 2 + 1e-3)
    for code in ("sform_code", "qform_code"):
        assert after.header[code] == before.header[code]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GOOD if name != "thicker"])
def test_a_landmark_stays_where_it_is_in_millimetres(results, name):
    image = nib.load(results[0] / f"{name}_sr.nii.gz")
    place = places(image.affine, image.shape)
    spot = image.get_fdata() - head(place)
    spot = np.where(spot > spot.max() / 2, spot, 0)
    found = (place * spot[..., None]).sum((0, 1, 2)) / spot.sum()
    assert np.linalg.norm(found - LANDMARK) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("name", ["straight", "oblique", "las", "pir"])
def test_sliced_thick_again_it_is_the_input(results, scans, name):
    before = nib.load(scans / f"{name}.nii.gz").get_fdata()
    after = nib.load(results[0] / f"{name}_sr.nii.gz").get_fdata()
    again = after.reshape(*before.shape, 5).mean(-1)
    assert np.abs(again - before).mean() < 0.01 * np.ptp(before)


@pytest.mark.slow
def test_the_same_case_alone_elsewhere_gives_the_same_voxels(bundle, results, scans, run_inference, tmp_path):
    shutil.copy(scans / "oblique.nii.gz", tmp_path)
    done = run_inference(bundle, tmp_path, input="oblique.nii.gz", output_dir="2024", num_steps=1)
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = (nib.load(p / "oblique_sr.nii.gz") for p in (tmp_path / "2024", results[0]))
    np.testing.assert_array_equal(one.affine, other.affine)
    np.testing.assert_array_equal(one.get_fdata(), other.get_fdata())


@pytest.mark.slow
def test_the_shipped_weights_are_no_worse_than_cubic_interpolation(
    shipped, data_dir, run_inference, tmp_path
):
    whole = nib.load(data_dir / "sub-upenn05" / "anat" / "sub-upenn05_T1w.nii.gz")
    start = [(full - side) // 2 for full, side in zip(whole.shape, (64, 64, 40), strict=True)]
    crop = whole.slicer[tuple(slice(s, s + n) for s, n in zip(start, (64, 64, 40), strict=True))]
    truth = crop.get_fdata(dtype=np.float32)
    measurement = measurement_for(truth.shape, (1, 1, 5))
    thick = measurement(MetaTensor(truth[None]))
    affine = crop.affine @ np.diag([1, 1, 5, 1])
    affine[:3, 3] = nib.affines.apply_affine(crop.affine, (0, 0, 2))
    image = nib.Nifti1Image(np.asarray(thick[0]), affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "thick.nii")
    done = run_inference(shipped, tmp_path, input="thick.nii", output_dir="out")
    assert done.returncode == 0, done.stdout + done.stderr
    restored = nib.load(tmp_path / "out" / "thick_sr.nii.gz")
    np.testing.assert_allclose(restored.affine, crop.affine, atol=1e-4)
    cubic = np.asarray(measurement.interpolate(thick)[0]).clip(0)
    brain = truth > 0

    def error(volume: np.ndarray) -> float:
        return float(np.square(volume - truth)[brain].mean())

    assert error(restored.get_fdata()) <= error(cubic)
