"""The picture of weight maps: drawn from the files of a result, refused where they cannot be right."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from monai_diffens.report.picture import main

SHAPE = (12, 14, 10)
EXPERTS = [f"{plane}-{contrast}" for plane in ("axial", "coronal") for contrast in ("T1w", "T2w")]


@pytest.fixture
def result(tmp_path):
    """A result with weights that lean to the first expert on the left and to the last on the right."""
    volume = np.zeros(SHAPE, np.float32)
    volume[2:-2, 2:-2, 2:-2] = 100
    lean = np.linspace(-0.2, 0.2, SHAPE[0], dtype=np.float32)[:, None, None] * np.ones(SHAPE, np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a_sr.nii.gz")
    for index, name in enumerate(EXPERTS):
        weight = 0.25 + (lean if index == 0 else -lean if index == 3 else 0 * lean)
        nib.save(nib.Nifti1Image(weight, np.eye(4)), tmp_path / f"a_sr_weight-{name}.nii.gz")
    return tmp_path / "a_sr.nii.gz"


def test_a_picture_shows_that_experts_differ(result, tmp_path, capsys):
    picture = tmp_path / "weights.png"
    assert main([str(result), str(picture)]) == 0
    assert capsys.readouterr().out.strip() == str(picture)
    pixels = imread(picture)[..., :3]
    red, blue = pixels[..., 0] - pixels[..., 2] > 0.4, pixels[..., 2] - pixels[..., 0] > 0.4
    assert red.mean() > 0.005 and blue.mean() > 0.005


def test_without_maps(result, tmp_path, capsys):
    for path in tmp_path.glob("*_weight-*"):
        path.unlink()
    assert main([str(result), str(tmp_path / "weights.png")]) == 1
    assert "run with --save_weights True" in capsys.readouterr().err
    assert not (tmp_path / "weights.png").exists()


def test_weights_that_do_not_sum_to_one_are_refused(result, tmp_path, capsys):
    (tmp_path / "a_sr_weight-axial-T1w.nii.gz").unlink()
    assert main([str(result), str(tmp_path / "weights.png")]) == 1
    assert "do not sum to 1" in capsys.readouterr().err
