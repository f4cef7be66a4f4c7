"""Picking a volume, filling what is not finite, and brain masks; on real files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_diffens.data.load_scan import LoadScand
from monai_diffens.messages import InputRejected
from monai_diffens.transforms.brain_mask import BrainMaskd
from monai_diffens.transforms.input_gate import check_volume
from monai_diffens.transforms.intensity import RepairScand

AFFINE = np.array([[0, -1.5, 0, 20], [1, 0, 0, -30], [0, 0, 5, 15], [0, 0, 0, 1.0]])
SHAPE = (12, 14, 6)


def save(path: Path, array: np.ndarray, affine=AFFINE) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 500, SHAPE).astype(np.float32)


def read(path: Path, *transforms, **item) -> dict:
    return Compose([LoadScand("image"), *transforms])({"image": path, "case": "a", **item})


@pytest.mark.parametrize("volume", [0, 1, 2])
def test_the_picked_volume_is_checked_and_taken(tmp_path, volume):
    array = np.stack([scan(0), scan(1), scan(2)], -1)
    array[..., [v for v in range(3) if v != volume]] *= np.nan  # the others may be anything
    path = save(tmp_path / "a.nii.gz", array)
    checked = check_volume(path, volume=volume)
    assert checked.shape == SHAPE
    assert checked.warnings == (f"volume {volume} of 3 (shape (12, 14, 6, 3)) was picked",)
    loaded = read(path, RepairScand("image", volume=volume))["image"]
    np.testing.assert_array_equal(loaded.numpy(), array[None, ..., volume])
    np.testing.assert_allclose(loaded.affine, AFFINE)
    with pytest.raises(InputRejected, match="NaN"):
        check_volume(path, volume=(volume + 1) % 3)


def test_no_such_volume(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.stack([scan(0), scan(1)], -1))
    with pytest.raises(InputRejected, match=r"has no volume 2 .* pick one of 0 to 1"):
        check_volume(path, volume=2)
    assert check_volume(save(tmp_path / "b.nii.gz", scan()), volume=0).warnings == ()


def test_nan_is_filled_where_asked(tmp_path):
    array = scan().astype(np.float64)
    array[2, 3:5, 4], array[5, 5, 5], array[0, 0, 0] = np.nan, -np.inf, np.inf
    path = save(tmp_path / "a.nii.gz", array)
    assert check_volume(path, fill_nan=True).warnings[0].startswith("4 voxels were NaN")
    loaded = read(path, RepairScand("image", fill_nan=True))["image"].numpy()[0]
    np.testing.assert_array_equal(loaded, np.where(np.isfinite(array), array, 0))
    untouched = read(path, RepairScand("image"))["image"]
    assert not torch.isfinite(untouched).all()


def test_nothing_but_nan_stays_rejected(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(InputRejected, match="every voxel has the value 0"):
        check_volume(path, fill_nan=True)


def test_a_mask_on_the_scans_grid(tmp_path):
    inside = np.zeros(SHAPE, np.uint8)
    inside[3:9, 4:10, 1:5] = 1
    mask = save(tmp_path / "mask.nii.gz", inside)
    item = read(
        save(tmp_path / "a.nii.gz", scan()), BrainMaskd("image", skull="strip"), mask=mask, warnings=[]
    )
    np.testing.assert_array_equal(item["image"].numpy()[0], scan() * inside)
    assert isinstance(item["image"], MetaTensor) and item["image"].meta["filename_or_obj"].endswith(
        "a.nii.gz"
    )
    assert item["warnings"] == [] and "mask" not in item


def test_row_10_a_mask_on_another_grid(tmp_path, caplog):
    inside = np.zeros(SHAPE, np.uint8)
    inside[3:9, 4:10, 1:5] = 1
    fine = np.repeat(np.repeat(inside, 2, 0), 3, 2)[
        ::-1
    ]  # the same box, finer and stored from the other side
    step = np.diag([-0.5, 1, 1 / 3, 1])
    step[:3, 3] = (SHAPE[0] - 0.75, 0, -1 / 3)
    mask = save(tmp_path / "mask.nii.gz", fine, AFFINE @ step)
    item = read(save(tmp_path / "a.nii.gz", scan()), BrainMaskd("image", skull="strip"), mask=mask)
    np.testing.assert_array_equal(item["image"].numpy()[0], scan() * inside)
    assert len(item["warnings"]) == 1 and "resampled" in item["warnings"][0]
    assert caplog.records[-1].message == f"a: {item['warnings'][0]}"


@pytest.mark.parametrize("where", ["empty", "elsewhere"])
def test_row_09_a_mask_that_holds_nothing(tmp_path, where):
    shift = np.eye(4)
    shift[0, 3] = 0 if where == "empty" else 900
    mask = save(tmp_path / "mask.nii.gz", np.full(SHAPE, where == "elsewhere", np.uint8), shift @ AFFINE)
    item = read(
        save(tmp_path / "a.nii.gz", scan()), BrainMaskd("image", skull="strip"), mask=mask, warnings=["one"]
    )
    np.testing.assert_array_equal(item["image"].numpy()[0], scan())
    assert item["warnings"][0] == "one" and "whole volume" in item["warnings"][-1]


def test_a_damaged_mask_is_rejected(tmp_path):
    mask = save(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    assert check_volume(mask, mask=True).shape == SHAPE
    mask.write_bytes(mask.read_bytes()[:-20])
    with pytest.raises(InputRejected, match="truncated"):
        check_volume(mask, mask=True)
