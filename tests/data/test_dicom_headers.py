"""Headers of limited precision, and headers that contradict themselves or the pixels."""

import mr_series
import nibabel as nib
import numpy as np
import pytest
from pydicom.valuerep import DSfloat

from monai_diffens.data.dicom.gate import check_series, load_series
from monai_diffens.data.dicom.series import find_series
from monai_diffens.messages import InputRejected

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = nib.eulerangles.euler2mat(z=0.3, x=-0.4) @ np.diag([0.9, 1.1, 1])
OBLIQUE[:3, 3] = (12.34, -34.56, 5.67)


def stack(step: float, oblique: bool = False, count: int = 12):
    """A series of slices this far apart, with its affine."""
    affine = (OBLIQUE if oblique else nib.affines.from_matvec(np.eye(3), [-20.3, 11.7, 4.4])) @ np.diag(
        [1, 1, step, 1]
    )
    return mr_series.series(mr_series.thick_head(affine, (24, 28, count))), affine


def rounded(slices, attribute: str, decimals: int) -> None:
    """Write an attribute's numbers with so many decimals."""
    for one in slices:
        one[attribute].value = [DSfloat(f"{float(value):.{decimals}f}") for value in one[attribute].value]


def found(slices, folder):
    (series,), *_ = find_series(mr_series.write(slices, folder))
    return series


def refused(slices, folder) -> str:
    with pytest.raises(InputRejected) as stop:
        check_series(found(slices, folder))
    return str(stop.value)


# 10: tolerances follow the header's precision


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("decimals", [0, 1, 2, 3])
@pytest.mark.parametrize("step", [1.2, 3.3333, 4.4, 5.55, 7.125])
def test_rounded_positions_are_an_even_stack(tmp_path, step, decimals, oblique):
    slices, affine = stack(step, oblique)
    rounded(slices, "ImagePositionPatient", decimals)
    _, checked = check_series(found(slices, tmp_path))
    error = 10.0**-decimals / 2 * (np.sqrt(3) + 1e-6)
    assert checked.zooms[2] == pytest.approx(step, abs=2 * error / 11 + 1e-6)
    for index in np.array([[0, 0, 0], [23, 27, 11]]):
        np.testing.assert_allclose(
            nib.affines.apply_affine(checked.affine, index),
            nib.affines.apply_affine(affine, index),
            atol=2 * error + 1e-6,
        )


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("decimals", [1, 2])
@pytest.mark.parametrize("gone", [1, 5, 10])
def test_a_gap_is_seen_however_positions_are_rounded(tmp_path, decimals, oblique, gone):
    slices, _ = stack(1.2, oblique)
    rounded(slices, "ImagePositionPatient", decimals)
    assert "slices are missing or unevenly spaced" in refused(slices[:gone] + slices[gone + 1 :], tmp_path)


@pytest.mark.parametrize("off", [0.2, -0.3])
def test_a_slice_off_its_place_is_seen_beyond_rounding(tmp_path, off):
    slices, _ = stack(4.4)
    slices[5].ImagePositionPatient[2] = float(slices[5].ImagePositionPatient[2]) + off
    rounded(slices, "ImagePositionPatient", 1)
    assert "unevenly spaced" in refused(slices, tmp_path)


@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_rounded_directions_give_orthogonal_axes(tmp_path, decimals):
    slices, affine = stack(5, oblique=True)
    rounded(slices, "ImageOrientationPatient", decimals)
    _, checked = check_series(found(slices, tmp_path))
    axes = checked.affine[:3, :3] / checked.zooms
    np.testing.assert_allclose(axes[:, :2].T @ axes[:, :2], np.eye(2), atol=1e-9)
    np.testing.assert_allclose(checked.affine, affine, atol=12 * 10.0**-decimals)


def test_spacings_written_in_different_precision_are_one(tmp_path):
    slices, _ = stack(5)
    for number, one in enumerate(slices):
        one.PixelSpacing = ["0.71880", "0.7188"] if number % 2 else ["0.7187999", "0.7188001"]
        one.EchoTime = "8.7" if number % 2 else "8.7004"
    assert check_series(found(slices, tmp_path))[1].zooms[0] == pytest.approx(0.7188, abs=1e-4)


# 16: headers that contradict the pixels


@pytest.mark.parametrize("which", [slice(None), slice(0, 1), slice(7, 8)], ids=["all", "first", "last"])
@pytest.mark.parametrize(
    "changes",
    [
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
        {"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11},
        {"BitsStored": 24},
        {"BitsStored": 4, "HighBit": 3},
        {"HighBit": 7},
        {"PixelRepresentation": 7},
        {"Rows": 14},
        {"Rows": 56},
        {"Columns": 23},
        {"Rows": 0},
        {"Columns": None},
        {"SamplesPerPixel": 3},
        {"RescaleSlope": 0},
        {"RescaleSlope": [1, 2]},
        {"RescaleIntercept": "1e38"},
        {"PixelData": b""},
        {"PixelData": bytes(2 * 24 * 28 + 2)},
    ],
    ids=str,
)
def test_pixels_that_contradict_their_header_are_refused(tmp_path, changes, which):
    head = mr_series.thick_head()
    slices = mr_series.series(nib.Nifti1Image(head.get_fdata(dtype=np.float32) + 100, head.affine))
    for one in slices[which]:
        for attribute, value in changes.items():
            setattr(one, attribute, value)
    line = refused(slices, tmp_path)
    assert line.startswith("4-t1_tse_tra-") and "\n" not in line


@pytest.mark.parametrize("attribute", ["BitsStored", "PixelRepresentation", "PixelData", "Rows"])
def test_what_pixels_cannot_be_read_without_is_missed(tmp_path, attribute):
    slices = mr_series.series(mr_series.thick_head())
    delattr(slices[7], attribute)
    assert "4-t1_tse_tra-" in refused(slices, tmp_path)


@pytest.mark.parametrize("attribute", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_factor_that_some_slices_lost_is_missed(tmp_path, attribute):
    slices = mr_series.series(mr_series.thick_head(), slope=0.5)
    delattr(slices[3], attribute)
    assert attribute in refused(slices, tmp_path)


def test_signed_and_packed_values_are_read_as_pydicom_reads_them(tmp_path):
    slices = mr_series.series(mr_series.thick_head())
    for one in slices:
        one.PixelRepresentation, one.BitsStored, one.HighBit = 1, 12, 11
        one.RescaleSlope, one.RescaleIntercept = "0.5", "-3"
    voxels = load_series(found(slices, tmp_path)).voxels
    np.testing.assert_array_equal(voxels, mr_series.thick_head().get_fdata() * 0.5 - 3)


def test_a_missing_end_is_told_where_the_header_tells_it(tmp_path):
    slices = mr_series.series(mr_series.thick_head(), ImagesInAcquisition=8)
    _, checked = check_series(found(slices[2:], tmp_path / "first"))
    assert "number 3" in checked.warnings[0]
    _, checked = check_series(found(slices[:6], tmp_path / "last"))
    assert "6 of 8 images" in checked.warnings[0]
