"""Slices thinner or thicker than they are apart: read from headers and sidecars, and restored as such."""

import json

import mr_series
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from monai_diffens.acquisition.measurement import AxisSampling, Measurement
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.transforms.target_grid import RestoreToSpacingd
from monai_diffens.transforms.thick_slices import SLICE_THICKNESS, measurement_from_meta, sidecar_thickness

SAGITTAL = np.array([[0, 0, 5, -20], [-1.0, 0, 0, 9], [0, -1.0, 0, 8], [0, 0, 0, 1.0]])


def structure(size: int = 120) -> torch.Tensor:
    """A made-up fine volume (1, 4, 4, size) with detail at every scale along its last axis."""
    noise = np.random.default_rng(3).standard_normal((16, size))
    amplitude = 1 / (1 + np.abs(np.fft.fftfreq(size) * 40))  # about as a brain's
    values = np.real(np.fft.ifft(np.fft.fft(noise, axis=1) * amplitude, axis=1))
    return torch.from_numpy(3 + values.reshape(1, 4, 4, size) / values.std())


def scanned(thickness: float, noise: float = 0.0) -> MetaTensor:
    """What a scan of slices 5 mm apart shows of it."""
    low = Measurement([None, None, AxisSampling.from_factor(120, 5, thickness)])(structure())
    low = low + noise * torch.from_numpy(np.random.default_rng(4).standard_normal(low.shape))
    meta = {SLICE_THICKNESS: np.array([thickness, 0, 0, 1.0]), "filename_or_obj": "a.nii.gz"}
    return MetaTensor(low, affine=np.diag([1, 1, 5, 1.0]), meta=meta)


def error(volume: MetaTensor) -> float:
    return float((volume.as_tensor() - structure()).square().mean())


@pytest.mark.parametrize("thickness", [2, 3, 4, 6, 7.5, 10, 12.5])
def test_the_profile_of_the_header_restores_better_than_none(thickness):
    scan = scanned(thickness)
    told = RestoreToSpacingd("image")({"image": scan})["image"]
    assert measurement_from_meta(told.shape[1:], told.meta).axes[2].thickness == thickness
    assert error(told) < error(RestoreToSpacingd("image", slice_thickness=5)({"image": scan})["image"])


@pytest.mark.parametrize("thickness", [2, 3, 5, 6.5, 7.5])
def test_sliced_again_it_is_the_scan(thickness):
    scan = scanned(thickness)
    told = RestoreToSpacingd("image")({"image": scan})["image"]
    again = measurement_from_meta(told.shape[1:], told.meta)(told)
    torch.testing.assert_close(again.as_tensor(), scan.as_tensor(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("thickness", [9, 10, 12, 15, 20])
def test_noise_of_overlapping_slices_is_not_blown_up(thickness):
    """What alternates from slice to slice is hardly seen by them: dividing by it left noise alone."""
    noisy = RestoreToSpacingd("image")({"image": scanned(thickness, noise=0.02)})["image"]
    clean = RestoreToSpacingd("image")({"image": scanned(thickness)})["image"]
    assert error(noisy) < error(clean) + 0.05 and error(clean) < 0.7  # the volume's variance is 1


@pytest.mark.parametrize(
    ("thickness", "lines", "words"),
    [
        (5, 0, ""),
        (4.9, 0, ""),
        (3, 1, "a gap of 2 mm"),
        (10, 1, "an overlap of 5 mm"),
        (100, 1, "not believed"),
        (0.2, 1, "not believed"),
    ],
)
def test_it_is_told_in_one_line(thickness, lines, words):
    data = {"image": scanned(5)}
    data["image"].meta[SLICE_THICKNESS] = np.array([thickness, 0, 0, 1.0])
    out = RestoreToSpacingd("image")(data)
    told = list(out.get("warnings") or ())
    assert len(told) == lines and all(words in line for line in told)
    used = measurement_from_meta(out["image"].shape[1:], out["image"].meta).axes[2].thickness
    assert used == (5 if "believed" in words else thickness)


def test_the_option_overrides_the_header():
    out = RestoreToSpacingd("image", slice_thickness=4)({"image": scanned(3)})
    assert measurement_from_meta(out["image"].shape[1:], out["image"].meta).axes[2].thickness == 4
    assert not out.get("warnings")


def test_a_thickness_across_other_slices_is_not_taken():
    scan = scanned(3)
    scan.meta[SLICE_THICKNESS] = np.array([3, 1.0, 0, 0])  # stacked along the first axis, which is fine
    out = RestoreToSpacingd("image")({"image": scan})
    assert measurement_from_meta(out["image"].shape[1:], out["image"].meta).axes[2].thickness == 5
    assert not out.get("warnings")


@pytest.mark.parametrize("affine", [np.diag([1, 1, 5, 1.0]), SAGITTAL], ids=["axial", "sagittal"])
def test_from_dicom_whatever_way_the_slices_lie(tmp_path, affine):
    slices = mr_series.series(mr_series.thick_head(affine), SliceThickness="3.5", SpacingBetweenSlices="1.5")
    image = LoadScand()({"image": mr_series.write(slices, tmp_path)})
    image = Orientationd("image", axcodes="RAS", labels=None)(image)
    out = RestoreToSpacingd("image")(image)  # positions tell 5 mm, whatever SpacingBetweenSlices says
    axes = measurement_from_meta(out["image"].shape[1:], out["image"].meta).axes
    (thick,) = [axis for axis in axes if axis is not None]
    assert (thick.factor, thick.thickness) == (5, 3.5) and len(out["warnings"]) == 1


@pytest.mark.parametrize("values", [["3", "3.5"], [None, "3"], ["0", "0"], ["-3", "-3"]])
def test_headers_that_do_not_agree_on_it_tell_nothing(tmp_path, values):
    slices = mr_series.series(mr_series.thick_head())
    for number, one in enumerate(slices):
        one.SliceThickness = values[number % 2]
    image = LoadScand()({"image": mr_series.write(slices, tmp_path)})["image"]
    assert SLICE_THICKNESS not in image.meta


def test_from_a_sidecar_of_dcm2niix(tmp_path):
    nib.save(mr_series.thick_head(), tmp_path / "a.nii.gz")
    sidecar = {"Modality": "MR", "SliceThickness": 4, "SpacingBetweenSlices": 5}
    (tmp_path / "a.json").write_text(json.dumps(sidecar))
    out = RestoreToSpacingd("image")(LoadScand()({"image": tmp_path / "a.nii.gz"}))
    assert measurement_from_meta(out["image"].shape[1:], out["image"].meta).axes[2].thickness == 4
    assert "a gap of 1 mm" in out["warnings"][0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "null",
        '{"SliceThickness": "x"}',
        '{"SliceThickness": [1]}',
        '{"SliceThickness": 0}',
        '{"SliceThickness": NaN}',
        '{"SliceThickness": -1}',
        '{"SliceThickness": true}',
        '{"SliceThickness": 1e999}',
        "[" * 100_000,
        '{"RepetitionTime": 2}',
    ],
)
def test_what_a_sidecar_cannot_tell(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert sidecar_thickness(tmp_path / "a.nii.gz") is None
    assert sidecar_thickness(tmp_path / "b.nii") is None and sidecar_thickness(tmp_path / "a.mgz") is None
