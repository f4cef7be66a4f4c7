"""Kinds 03, 08 and 25 from Python: an image is used as it is or refused in a line; nothing is dropped."""

import sys
import threading

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Flip
from nifti_files import head, save

from monai_diffens import api, super_resolve, translate
from monai_diffens.inference import find_cases
from monai_diffens.messages import InputRejected, say
from monai_diffens.options import OptionError

AFFINE = np.diag([1, 1, 5, 1.0])
SCAN = head().astype(np.float32)


@pytest.fixture
def given(monkeypatch):
    """Function (call) to what its run would read: the item of its one case, and the voxels of each scan."""

    def look(call):
        seen = {}

        def stop(workflow):
            (item,) = find_cases(workflow).items
            seen.update({key: nib.load(path).get_fdata() for key, path in item.items() if key in KEYS})
            raise InputRejected("seen")

        monkeypatch.setattr(api, "restore_cases", stop)
        with pytest.raises(InputRejected, match="seen"):
            call()
        return seen

    return look


KEYS = ("image", "T1w", "FLAIR")


def tensor(voxels, name="scan.nii.gz") -> MetaTensor:
    return MetaTensor(
        torch.as_tensor(voxels)[None], affine=torch.as_tensor(AFFINE), meta={"filename_or_obj": name}
    )


def test_two_contrasts_whose_files_have_one_name_stay_two(given):
    other = SCAN.max() - SCAN
    for scans in (
        {"T1w": tensor(SCAN, "T1w/scan.nii.gz"), "FLAIR": tensor(other, "FLAIR/scan.nii.gz")},
        {"T1w": nib.Nifti1Image(SCAN, AFFINE), "FLAIR": nib.Nifti1Image(other, AFFINE)},
    ):
        seen = given(lambda scans=scans: translate(scans, force=True))
        np.testing.assert_array_equal(seen["T1w"], SCAN)
        np.testing.assert_array_equal(seen["FLAIR"], other)


@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.float32, np.float64])
def test_an_image_is_not_rounded_to_its_header_s_type(given, stored):
    header = nib.Nifti1Header()
    header.set_data_dtype(stored)
    voxels = SCAN + np.float32(0.25)
    seen = given(lambda: super_resolve(nib.Nifti1Image(voxels, AFFINE, header), force=True))
    np.testing.assert_array_equal(seen["image"], voxels)


@pytest.mark.parametrize(
    "scan",
    [
        torch.as_tensor(SCAN).requires_grad_(),
        torch.as_tensor(SCAN).to_sparse(),
        SCAN.astype(">f4"),
        SCAN.tolist(),
        np.ma.masked_array(SCAN, mask=False),
    ],
    ids=["with a gradient", "sparse", "big-endian", "a list", "masked nowhere"],
)
def test_arrays_of_any_kind(given, scan):
    np.testing.assert_array_equal(
        given(lambda: super_resolve(scan, AFFINE, force=True))["image"], np.asarray(SCAN)
    )


def test_half_precision_of_both_kinds(given):
    for kind in (torch.bfloat16, torch.float16):
        half = torch.as_tensor(SCAN).to(kind)
        seen = given(lambda half=half: super_resolve(half, AFFINE, force=True))
        np.testing.assert_array_equal(seen["image"], half.float())


LAST_ROW = np.vstack([AFFINE[:3], [0, 0, 1, 1]])
REFUSED = {
    "no affine": (SCAN, None),
    "an affine that is text": (SCAN, "abc"),
    "an affine of nan": (SCAN, AFFINE * np.nan),
    "an affine of zeros": (SCAN, AFFINE * [[1], [1], [0], [1]]),
    "an affine of nothing": (SCAN, np.zeros((4, 4))),
    "an affine that is no affine": (SCAN, LAST_ROW),
    "two affines": (tensor(SCAN), AFFINE),
    "two affines of an image": (nib.Nifti1Image(SCAN, AFFINE), AFFINE * 2),
    "masked values": (np.ma.masked_array(SCAN, mask=SCAN > 500), AFFINE),
    "complex values": (SCAN.astype(complex), AFFINE),
    "objects": (SCAN.astype(object), AFFINE),
    "ragged": ([[[1], [1, 2]]], AFFINE),
    "two channels": (tensor(np.stack([SCAN, SCAN])).as_tensor()[0], AFFINE),
    "an axis that no header holds": (np.ones((2, 2, 40000), np.float32), AFFINE),
    "no voxels": (SCAN[:0], AFFINE),
    "a lazy transform not yet applied": (Flip(0, lazy=True)(tensor(SCAN)), None),
    "no image at all": (None, AFFINE),
    "an affine of complex numbers": (SCAN, AFFINE + 1j),
    "no path": ("", None),
    "a path with a null": ("a\0b.nii", None),
}


@pytest.mark.parametrize("scan", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_in_a_line(scan):
    with pytest.raises(InputRejected) as error:
        super_resolve(*scan)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("left", [0, 900, None])
def test_a_file_that_was_cut_or_removed_after_it_was_opened(tmp_path, ending, left):
    path = save(tmp_path / f"a{ending}")
    image = nib.load(path)
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputRejected) as error:
        super_resolve(image)
    assert str(tmp_path) not in str(error.value)


def test_a_tensor_of_lps_comes_back_in_ras():
    """What MONAI's ITKReader gives where it is asked not to convert."""
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    scan = MetaTensor(torch.as_tensor(SCAN), affine=torch.as_tensor(lps), meta={"space": "LPS"})
    turned = super_resolve(scan, force=True)
    plain = super_resolve(tensor(SCAN), force=True)
    np.testing.assert_allclose(turned.affine, plain.affine)
    assert turned.meta["space"] == "RAS"


def test_what_a_call_would_not_heed_is_refused(tmp_path):
    with pytest.raises(InputRejected) as error:
        super_resolve(SCAN, AFFINE, output_dir=tmp_path / "out")
    assert str(error.value) == say("given_back")
    with pytest.raises(InputRejected) as error:
        super_resolve(save(tmp_path / "a.nii.gz"), AFFINE)
    assert str(error.value) == say("two_affines", name="image")
    with pytest.raises(OptionError):
        super_resolve(tmp_path / "a.nii.gz", output_dir=5)


def test_a_name_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(api.tempfile, "tempdir", str(tmp_path / "a"))
    (tmp_path / "a").mkdir()
    for name in ("../../evil", "/evil", "T1"):
        with pytest.raises(InputRejected):
            translate({name: SCAN}, AFFINE)
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize("number", [np.int64(2), np.float32(2), torch.tensor(2), np.array(2)])
def test_numbers_of_numpy_and_torch_are_numbers(number):
    assert api.load_model("sr").checked({"num_steps": number}) == {"num_steps": 2}
    assert api.load_model("sr").checked({"consistency": np.bool_(False)}) == {"consistency": False}
    assert api.load_model("sr").checked({"target_spacing": np.array([1, 1, 2])}) == {
        "target_spacing": [1, 1, 2]
    }


def test_threads_leave_stderr_as_it_was(tmp_path):
    before = sys.stderr

    def call():
        for _ in range(5):
            with pytest.raises(InputRejected):
                super_resolve(tmp_path / "none.nii.gz")

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stderr is before


def test_the_caller_s_precision_decides_nothing(tiny_ensembler):
    from test_result_not_finite import infer, scan

    network, case = tiny_ensembler(), scan()
    wanted = infer(case, network)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_allclose(infer(case, network), wanted, atol=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)
