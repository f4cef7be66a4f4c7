"""Faults 04, 05, 06, 13 and their kinds: headers that contradict the format, unused parts, names, advice."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from nifti_files import edit, head, rejection, save

from monai_diffens.data.load_scan import LoadScan
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import check_volume


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"vox_offset": 0}, "byte 0, not at 352"),
        ({"vox_offset": 8}, "byte 8, not at 352"),
        ({"vox_offset": 348}, "byte 348, not at 352"),
        ({"vox_offset": 352.5}, "byte 352.5"),
        ({"vox_offset": np.nan}, "byte nan"),
        ({"sizeof_hdr": 1000}, "a header of 1000 bytes"),
        ({"dim_0": 9}, "9 axes"),
        ({"dim_0": 0}, "0 axes"),
        ({"dim_2": -28}, "an axis of -28 voxels"),
        ({"scl_slope": 2.0, "scl_inter": np.inf}, "an intercept of inf"),
    ],
)
def test_04_sizes_and_offsets_that_no_file_has(tmp_path, fields, why):
    line = rejection(edit(save(tmp_path / "a.nii"), **fields))
    assert line.startswith(say("header", name="a.nii", why="").split(")")[0]) and why in line


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"bitpix": 8}, say("mended", field="bitpix", was=8, now=16)),
        ({"sform_code": 77}, say("mended", field="sform_code", was=77, now=0)),
        ({"qform_code": -3}, say("mended", field="qform_code", was=-3, now=0)),
        ({"sform_code": 0, "pixdim_3": -5}, say("mended", field="pixdim[3]", was=-5, now=5)),
    ],
)
def test_04_what_nibabel_mends_is_read_as_nibabel_reads_it_and_told(tmp_path, fields, told):
    path = edit(save(tmp_path / "a.nii"), **fields)
    checked = check_volume(path)
    assert told in checked.warnings
    np.testing.assert_allclose(checked.affine, nib.load(path).affine)


@pytest.mark.parametrize("side", [0, 1, 2])
@pytest.mark.parametrize("spacing", [1e-4, 500])
def test_04_a_side_that_no_head_has_is_refused(tmp_path, side, spacing):
    """The other two sides are a head's."""
    affine = np.diag([1, 1, 5, 1.0])
    affine[side, side] = spacing
    extent = spacing * head().shape[side]
    assert rejection(save(tmp_path / "a.nii", affine=affine)) == say("extent", name="a.nii", extent=extent)


def test_04_slices_behind_those_of_the_header_are_told(tmp_path):
    path = save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + bytes(500))  # padding
    assert check_volume(path).warnings == ()
    assert check_volume(edit(path, dim_3=9)).warnings == (say("behind", count=24 * 28 * 2 + 500),)
    path = edit(save(tmp_path / "a.nii", np.tile(head(), 2)), dim_3=10)
    assert check_volume(path).warnings == (say("behind", count=24 * 28 * 10 * 2),)
    four = save(tmp_path / "b.nii", np.stack([head()] * 3, -1))
    assert [note for note in check_volume(four, volume=0).warnings if "behind" in note] == []


@pytest.mark.parametrize("ending", [".Nii.gz", ".nIi.Gz", ".niI", ".NII.gz", ".nii.GZ"])
def test_05_the_named_file_is_read_whatever_the_case_of_its_ending(tmp_path, ending):
    plain = ".nii.gz" if ending.lower().endswith("gz") else ".nii"
    other, named = save(tmp_path / f"scan{plain}", head() // 3), save(tmp_path / f"x{plain}")
    target = shutil.move(named, tmp_path / f"scan{ending}")
    for sibling in (True, False):
        if not sibling:
            other.unlink()
        assert check_volume(target).sha256 == LoadScan()(target).meta["sha256"]
        np.testing.assert_array_equal(LoadScan()(target)[0], head())


def rounded(path, length: float) -> None:
    """Put a quaternion of a squared length into the file, of a turn by half a circle."""
    edit(path, quatern_b=0.0, quatern_c=0.0, quatern_d=np.float32(length**0.5))


@pytest.mark.parametrize("excess", [-1e-7, 3.8e-07, 4.8e-07, 9e-07])
def test_06_a_quaternion_off_by_rounding_is_read(tmp_path, excess):
    half_turn = np.diag([-1.0, -1, 5, 1])
    for sform, code in ((0, 1), (1, 0), (1, 1)):
        path = save(tmp_path / "a.nii", affine=half_turn, sform=sform, qform=code)
        rounded(path, 1 + excess)
        checked = check_volume(path)
        np.testing.assert_allclose(checked.affine, half_turn, atol=3e-3)
        assert checked.warnings == () and checked.affine_from == ("sform" if sform else "qform")
        np.testing.assert_array_equal(LoadScan()(path).affine, checked.affine)


@pytest.mark.parametrize("garbage", [7.0, 1e30, np.nan, np.inf])
def test_06_a_quaternion_that_is_not_used_decides_nothing(tmp_path, garbage):
    path = edit(save(tmp_path / "a.nii", qform=0), quatern_b=garbage, quatern_c=garbage)
    assert check_volume(path).warnings == ()
    path = edit(save(tmp_path / "a.nii"), quatern_b=garbage, quatern_c=garbage)
    assert check_volume(path).warnings == (say("qform_unusable"),)
    assert "qform" in rejection(edit(path, sform_code=0))


@pytest.mark.parametrize(
    "fields",
    [
        {"xyzt_units": 2 + 7 * 8},  # no unit of time
        {"pixdim_3": 0.0, "pixdim_1": -4.0},
        {"pixdim_0": 3.0},
        {"cal_max": np.nan, "slice_end": -9},
        {"dim_7": -4},  # of a file of three axes
    ],
)
def test_06_other_parts_that_are_not_used_decide_nothing(tmp_path, fields):
    checked = check_volume(edit(save(tmp_path / "a.nii", qform=0), **fields))
    np.testing.assert_array_equal(checked.affine, np.diag([1, 1, 5, 1]))
    assert checked.warnings == ()


def test_06_a_damaged_extension_is_not_used(tmp_path):
    path = save(tmp_path / "a.nii")
    data = path.read_bytes()
    path.write_bytes(data[:348] + b"\1\0\0\0" + data[352:])  # says that one follows, and none does
    assert check_volume(path).warnings == ()
    np.testing.assert_array_equal(LoadScan()(path)[0], head())


def test_06_a_qfac_that_cannot_tell_left_from_right_is_refused_where_it_is_used(tmp_path):
    assert "qfac -3" in rejection(edit(save(tmp_path / "a.nii", sform=0), pixdim_0=-3.0))


@pytest.mark.parametrize("name", ["pair.hdr", "pair.nii", "pair.img", "PAIR.HDR"])
@pytest.mark.parametrize("magic", [b"ni1", b"ni1\0"])
def test_13_a_pair_s_header_is_called_so(tmp_path, name, magic):
    path = edit(save(tmp_path / "a.nii"), magic=magic, vox_offset=0).rename(tmp_path / name)
    path.write_bytes(path.read_bytes()[:352])
    assert rejection(path) == say("pair", name=name)


def test_13_an_analyze_header_is_called_so(tmp_path):
    path = edit(save(tmp_path / "a.nii"), magic=b"").rename(tmp_path / "scan.hdr")
    assert "ANALYZE" in rejection(path)


@pytest.mark.parametrize("volume", [None, 0, 2])
@pytest.mark.parametrize("fields", [{"dim_0": 4, "dim_4": n} for n in (0, -1, -300)])
def test_13_no_volume_is_a_damaged_header(tmp_path, fields, volume):
    assert "damaged NIfTI header" in rejection(edit(save(tmp_path / "a.nii"), **fields), volume=volume)
