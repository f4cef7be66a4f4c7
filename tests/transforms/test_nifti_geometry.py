"""Where a volume lies, one test per row of the list of bad inputs that it covers, on real files."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged

from monai_diffens.data.load_scan import LoadScand
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import check_volume
from monai_diffens.transforms.nifti_header import is_sheared

OBLIQUE = np.array([[0.9, -0.3, 0.2, -20], [0.35, 0.8, -0.9, -30], [0.1, 0.2, 4.9, -15], [0, 0, 0, 1.0]])
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * (1, 1, 5)
SHEARED = np.array([[1, 0.2, 0, -12], [0, 1, 0, -14], [0, 0, 5, -10], [0, 0, 0, 1.0]])


def head(shape=(24, 28, 10)) -> np.ndarray:
    """Return an ellipsoid on 0, int16."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return (1000 * np.clip(1 - sum(g**2 for g in grid), 0, 1)).astype(np.int16)


def save(path: Path, array=None, affine=None, sform=1, qform=1, unit="mm") -> Path:
    """Write a NIfTI file with given form codes and unit."""
    image = nib.Nifti1Image(
        head() if array is None else array, np.diag([1, 1, 5, 1.0]) if affine is None else affine
    )
    image.header.set_xyzt_units(unit)
    image.set_qform(image.affine, qform)
    image.set_sform(image.affine, sform)
    image.to_filename(path)
    return path


def write_header(path: Path, header: nib.Nifti1Header) -> None:
    """Put a header's bytes before the voxels of a file, as they are."""
    header["vox_offset"] = 352  # nibabel sets it to 0 as it reads
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])


def rejection(path: Path, **options) -> str:
    """Return the line with which a file is rejected."""
    with pytest.raises(InputRejected) as error:
        check_volume(path, **options)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and line.startswith(path.name) and ";" in line
    assert str(path.parent) not in line
    return line


def test_row_11_oblique_is_kept(tmp_path):
    checked = check_volume(save(tmp_path / "a.nii.gz", affine=OBLIQUE))
    np.testing.assert_allclose(checked.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(checked.zooms, (1, 1, 5), atol=1e-5)
    assert checked.warnings == ()


def test_row_12_sheared(tmp_path):
    checked = check_volume(save(tmp_path / "a.nii.gz", affine=SHEARED, qform=0))
    np.testing.assert_allclose(checked.affine, SHEARED, atol=1e-6)
    assert "sheared" in checked.warnings[0]
    assert is_sheared(SHEARED) and not is_sheared(OBLIQUE)


def test_row_13_zero_or_singular_affine(tmp_path):
    path = save(tmp_path / "a.nii")
    image = nib.load(path)
    for rows, why in (
        (np.zeros((4, 4)), "zero"),
        (np.ones((4, 4)), "singular"),
        (np.full((4, 4), np.nan), "finite"),
    ):
        for name, row in zip(("srow_x", "srow_y", "srow_z"), rows, strict=False):
            image.header[name] = row
        write_header(path, image.header)
        assert why in rejection(path)


@pytest.mark.parametrize("code", [0, 1])
def test_row_13_zero_spacing(tmp_path, code):
    path = save(tmp_path / "a.nii", sform=0, qform=code)
    header = nib.load(path).header
    header["pixdim"][3] = 0
    write_header(path, header)
    assert "spacing 1 x 1 x 0" in rejection(path)


def moved_sform(path: Path, sform: np.ndarray) -> Path:
    """Write a file whose sform is not its qform."""
    image = nib.Nifti1Image(head(), np.diag([1, 1, 5, 1.0]))
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, 1)
    image.header.set_sform(sform, 4)
    image.to_filename(path)
    # nibabel writes its affine into the sform: put the wanted one into the bytes
    header = nib.load(path).header
    header.set_sform(sform, 4)
    header.set_qform(np.diag([1, 1, 5, 1.0]), 1)
    write_header(path, header)
    return path


def test_row_14_sform_is_not_qform(tmp_path):
    sform = np.array([[2, 0, 0, -20], [0, 2, 0, -20], [0, 0, 6, -30], [0, 0, 0, 1.0]])
    path = moved_sform(tmp_path / "a.nii", sform)
    checked = check_volume(path)
    np.testing.assert_array_equal(checked.affine, sform)
    assert checked.affine_from == "sform"
    assert re.search(r"differ by up to \d+\.\d\d mm: sform used", checked.warnings[0])
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": path})
    assert not np.allclose(loaded["image"].affine, sform), "MONAI now keeps the sform itself"
    fixed = LoadScand("image")({"image": path})["image"]
    np.testing.assert_array_equal(fixed.affine, sform)
    assert (fixed.meta["sform_code"], fixed.meta["qform_code"]) == (4, 0)


def test_row_14_qform_alone(tmp_path):
    checked = check_volume(save(tmp_path / "a.nii.gz", affine=OBLIQUE, sform=0))
    assert checked.affine_from == "qform" and checked.warnings == ()
    np.testing.assert_allclose(checked.affine, OBLIQUE, atol=1e-4)


def test_row_15_neither_form(tmp_path):
    path = save(tmp_path / "a.nii.gz", sform=0, qform=0)
    checked = check_volume(path)
    assert checked.affine_from == "spacing"
    assert "assumed" in checked.warnings[0]
    np.testing.assert_array_equal(np.diag(checked.affine)[:3], (-1, 1, 5))
    image = LoadScand("image")({"image": path})["image"]
    assert image.meta["sform_code"] == 2
    np.testing.assert_array_equal(image.affine, checked.affine)


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1000), ("meter", 0.001)])
def test_row_16_other_units_are_converted(tmp_path, unit, scale):
    affine = np.diag([scale, scale, 5 * scale, 1])
    path = save(tmp_path / "a.nii.gz", affine=affine, unit=unit)
    checked = check_volume(path)
    np.testing.assert_allclose(checked.zooms, (1, 1, 5), rtol=1e-6)
    assert "converted to millimetres" in checked.warnings[0]
    image = LoadScand("image")({"image": path})["image"]
    np.testing.assert_allclose(image.pixdim, (1, 1, 5), rtol=1e-6)
    np.testing.assert_allclose(image.meta["original_affine"], checked.affine)


def test_row_16_unknown_unit(tmp_path):
    checked = check_volume(save(tmp_path / "a.nii.gz", unit="unknown"))
    assert "taken as millimetres" in checked.warnings[0]
    code = nib.load(save(tmp_path / "b.nii")).header
    code["xyzt_units"] = 7
    write_header(tmp_path / "b.nii", code)
    assert "taken as millimetres" in check_volume(tmp_path / "b.nii").warnings[0]


def test_row_16_a_unit_that_cannot_be(tmp_path):
    assert "not a head" in rejection(save(tmp_path / "a.nii.gz", unit="micron"))
    assert "not a head" in rejection(save(tmp_path / "b.nii.gz", affine=np.diag([1000, 1000, 5000, 1.0])))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_row_19_slice_axis(tmp_path, axis):
    spacing = np.insert([0.9, 0.95], axis, 4.0)
    assert check_volume(save(tmp_path / "a.nii.gz", affine=np.diag([*spacing, 1]))).slice_axis == axis


def test_row_19_no_slice_axis(tmp_path):
    assert check_volume(save(tmp_path / "a.nii.gz", affine=np.eye(4))).slice_axis is None
    assert check_volume(save(tmp_path / "b.nii.gz", affine=np.diag([1, 5, 5, 1.0]))).slice_axis is None


def test_an_impossible_quaternion_decides_only_where_it_is_used(tmp_path):
    for sform in (1, 0):
        path = save(tmp_path / "a.nii", sform=sform)
        data = bytearray(path.read_bytes())
        data[256:268] = np.array([2, 0, 0], "<f4").tobytes()
        path.write_bytes(data)
        if sform:
            checked = check_volume(path)
            np.testing.assert_array_equal(checked.affine, np.diag([1, 1, 5, 1]))
            assert checked.warnings == (say("qform_unusable"),)
        else:
            assert "the qform's quaternion is impossible" in rejection(path)
