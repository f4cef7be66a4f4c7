"""The input gate, one test per row of the list of bad inputs that it covers, on real files."""

import gzip
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged
from scipy.ndimage import gaussian_filter

from monai_diffens.messages import InputRejected
from monai_diffens.transforms.input_gate import check_volume


def head(shape=(24, 28, 10)) -> np.ndarray:
    """Return a smooth ellipsoid with texture, 0 outside, int16."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    texture = gaussian_filter(np.random.default_rng(0).random(shape), 1.5)
    return (1000 * texture * (sum(g**2 for g in grid) < 1)).astype(np.int16)


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


def rejection(path: Path, **options) -> str:
    """Return the line with which a file is rejected."""
    with pytest.raises(InputRejected) as error:
        check_volume(path, **options)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and line.startswith(path.name) and ";" in line
    assert str(path.parent) not in line
    return line


def test_accepts_a_plain_volume_without_warnings(tmp_path):
    checked = check_volume(save(tmp_path / "a.nii.gz"))
    assert checked.shape == (24, 28, 10)
    assert checked.zooms == (1, 1, 5)
    assert checked.slice_axis == 2
    assert checked.affine_from == "sform"
    assert checked.warnings == ()
    with pytest.raises(ValueError, match="read-only"):
        checked.affine[0, 0] = 2


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"]
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_accepts_every_real_voxel_type(tmp_path, dtype, name):
    array = (head() % 200).astype(dtype)
    image = nib.Nifti1Image(
        array,
        np.eye(4),
        nib.Nifti1Header(endianness=">" if dtype[:1] == ">" else "<") if isinstance(dtype, str) else None,
    )
    image.set_data_dtype(array.dtype)
    image.to_filename(tmp_path / name)
    assert check_volume(tmp_path / name).shape == array.shape


def test_accepts_nifti_2(tmp_path):
    nib.Nifti2Image(head(), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    assert check_volume(tmp_path / "a.nii.gz").zooms == (1, 1, 1)


def test_missing_file(tmp_path):
    assert "no such file" in rejection(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("shape", [(24, 28), (24, 28, 1), (24, 28, 1, 3)])
def test_row_01_two_dimensions(tmp_path, shape):
    line = rejection(save(tmp_path / "a.nii.gz", np.resize(head(), shape)))
    assert "2D" in line and "3D volume is needed" in line


@pytest.mark.parametrize("tail", [(1,), (1, 1)])
def test_row_02_trailing_axis_of_one(tmp_path, tail):
    path = save(tmp_path / "a.nii.gz", head().reshape(24, 28, 10, *tail))
    checked = check_volume(path)
    assert checked.shape == (24, 28, 10)
    assert "taken as 3D" in checked.warnings[0]
    loaded = LoadImaged("image", ensure_channel_first=True, squeeze_non_spatial_dims=True)({"image": path})
    assert loaded["image"].shape == (1, 24, 28, 10)


def test_row_03_several_volumes(tmp_path):
    line = rejection(save(tmp_path / "a.nii.gz", np.stack([head()] * 3, -1)))
    assert "holds 3 volumes" in line and "--volume N" in line


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_row_04_not_finite(tmp_path, value):
    array = head().astype(np.float64)
    array[3, 4:6, 5] = value
    assert "2 voxels are NaN" in rejection(save(tmp_path / "a.nii.gz", array))


@pytest.mark.parametrize("value", [0, 7])
def test_row_05_constant(tmp_path, value):
    assert f"value {value}" in rejection(save(tmp_path / "a.nii.gz", np.full((8, 8, 8), value, np.int16)))


def test_row_06_empty_file(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    assert "empty file" in rejection(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_row_07_truncated(tmp_path, name, part):
    data = save(tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    assert "truncated or corrupt" in rejection(tmp_path / name)


def test_row_07_wrong_checksum(tmp_path):
    data = bytearray(save(tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 255
    (tmp_path / "a.nii.gz").write_bytes(data)
    assert "truncated or corrupt" in rejection(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(999), "a PNG image"),
        ("a.nii", b"\x89PNG\r\n\x1a\n" + bytes(999), "a PNG image"),
        ("a.nii.gz", b"PK\x03\x04" + bytes(999), "a zip archive"),
        ("a.nii.gz", gzip.compress(b"subject,age\n" * 99, mtime=0), "a text file"),
        ("a.dcm", bytes(128) + b"DICM" + bytes(999), "a DICOM file"),
        ("a.tar.gz", gzip.compress(bytes(999), mtime=0), "a gzip archive"),
        ("a.nii", bytes(999), "a file of unknown type"),
    ],
)
def test_row_08_not_an_image(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    line = rejection(tmp_path / name)
    assert kind in line and "not a NIfTI" in line


@pytest.mark.parametrize(
    ("saved", "named", "ending"),
    [("a.nii", "b.nii.gz", ".nii"), ("a.nii.gz", "b.nii", ".nii.gz"), ("a.nii", "b.img", ".nii")],
)
def test_row_08_wrong_extension(tmp_path, saved, named, ending):
    save(tmp_path / saved).rename(tmp_path / named)
    assert f"rename it to end with {ending}" in rejection(tmp_path / named)


def test_row_08_voxels_that_are_no_grey_values(tmp_path):
    colour = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "one real number per voxel" in rejection(save(tmp_path / "a.nii", colour))
    assert "one real number per voxel" in rejection(save(tmp_path / "b.nii", head().astype(np.complex64)))


def ct(path: Path) -> Path:
    """Write a volume in Hounsfield units, stored with an intercept."""
    image = nib.Nifti1Image(np.where(head() > 0, 1064, 24).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(1, -1024)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    data = bytearray(path.read_bytes())
    data[352:] = np.where(head() > 0, 1064, 24).astype("<i2").tobytes("F")
    path.write_bytes(data)
    return path


def test_row_21_ct(tmp_path):
    path = ct(tmp_path / "a.nii")
    assert np.asanyarray(nib.load(path).dataobj).min() == -1000
    line = rejection(path)
    assert "CT" in line and "minimum -1000" in line and "force" in line
    assert "force" in check_volume(path, force=True).warnings[0]


def test_row_21_interpolated_mr_is_accepted(tmp_path):
    array = head().astype(np.float32) * 30
    array[:4] -= 50
    array[5, 5, 5] = -400
    assert check_volume(save(tmp_path / "a.nii.gz", array)).warnings == ()


def test_row_21_force_overrides_nothing_else(tmp_path):
    assert "every voxel" in rejection(
        save(tmp_path / "a.nii.gz", np.full((8, 8, 8), -1000, np.int16)), force=True
    )


def test_nothing_above_zero(tmp_path):
    path = save(tmp_path / "a.nii.gz", (head() // 20 - 90).astype(np.int16))
    assert "no voxel is above zero (maximum -" in rejection(path)
    assert "no voxel is above zero" in rejection(path, force=True)


def test_row_25_scaled_values_are_judged(tmp_path):
    array = head().astype(np.float32) / 7
    image = nib.Nifti1Image(array, np.eye(4))
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.nii.gz")
    assert check_volume(tmp_path / "a.nii.gz").shape == array.shape


def test_damaged_headers_never_raise_anything_else(tmp_path, capsys):
    path = save(tmp_path / "a.nii")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        for place in rng.integers(0, 348, rng.integers(1, 12)):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            check_volume(path)
        except InputRejected as error:
            assert len(str(error).splitlines()) == 1
    assert capsys.readouterr().err == ""


def test_identifiers_in_the_header_are_not_repeated(tmp_path):
    image = nib.Nifti1Image(head(), np.diag([1, 2, 5, 1.0]))
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"DOE^JANE"
    image.to_filename(tmp_path / "a.nii.gz")
    assert "DOE" not in repr(check_volume(tmp_path / "a.nii.gz"))


def test_line_breaks_in_a_name_stay_out_of_the_line(tmp_path):
    (tmp_path / "a\nb.nii").touch()
    with pytest.raises(InputRejected, match=r"^a\?b\.nii: empty"):
        check_volume(tmp_path / "a\nb.nii")


def test_a_large_volume_is_checked_in_seconds(tmp_path):
    array = np.zeros((256, 256, 256), np.int16)
    array[40:200, 40:200, 40:200] = np.random.default_rng(0).integers(0, 1000, (160, 160, 160))
    path = save(tmp_path / "a.nii.gz", array)
    start = time.perf_counter()
    check_volume(path)
    assert time.perf_counter() - start < 20, "usually about one second"
