"""Fault 01 and its kind: intensities below zero are shown to the network otherwise, and never cut off."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd
from nifti_files import head, save
from scipy.ndimage import zoom

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.transforms.brain_mask import BrainMaskd
from monai_diffens.transforms.intensity import (
    OFFSET_KEY,
    RepairScand,
    RestoreIntensityd,
    ScaleForegroundPercentiled,
    shown_to_network,
)
from monai_diffens.transforms.target_grid import RestoreToSpacingd
from monai_diffens.transforms.thick_slices import measurement_from_meta
from tests.data.thick_scans import cases_with

BRAIN = head() > 0


def scores(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    inside = values[where].astype(np.float64)
    return ((values - inside.mean()) / inside.std()).astype(np.float32)


SCANS = {
    "z-scores of the brain, background 0": np.where(BRAIN, scores(head(), BRAIN), 0),
    "z-scores of everything": scores(head(), np.ones_like(BRAIN)),
    "minus one to one": head() / head().max() * 2.0 - 1,
    "centred on the median, no background": head()
    - np.float32(np.median(head()[BRAIN]))
    + 0.25 * np.sin(head()),
    "Hounsfield units": np.where(BRAIN, head() / 10.0 + 20, -90),
    "swings of a spline": zoom(head().astype(np.float32), 1.0) - 8.0 * (np.arange(10) % 3 == 0) * ~BRAIN,
    "noise around 0": head() + np.random.default_rng(0).normal(0, 3, head().shape),
    "one voxel": np.where(np.arange(10) == 0, -1.0, head() + 1.0),
}


def prepared(path, tmp_path, mask=None):
    (item,) = cases_with(CaseFolder, path, tmp_path / "out", force=True, mask=mask).items
    steps = [
        LoadScand("image"),
        RepairScand("image"),
        BrainMaskd("image", skull="strip"),
        Orientationd("image", axcodes="RAS", labels=None),
        ScaleForegroundPercentiled("image"),
        RestoreToSpacingd("image", spacing=1.0, scan_key="scan"),
    ]
    return Compose(steps)(item)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize(
    "affine", [np.diag([1, 1, 5, 1.0]), np.array([[0, 0, -5, 9], [1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1.0]])]
)
def test_01_what_goes_through_unchanged_comes_out_as_it_went_in(tmp_path, scan, affine):
    path = save(tmp_path / "a.nii.gz", scan.astype(np.float32), affine)
    data = prepared(path, tmp_path)
    assert float(data["scan"].min()) >= 0
    assert any("below zero" in line for line in data["warnings"])
    back = RestoreIntensityd("pred")(data | {"pred": data["image"].clone()})["pred"]
    seen = measurement_from_meta(back.shape[1:], data["image"].meta)(back.as_tensor().double())
    wanted = Orientationd("x", axcodes="RAS", labels=None)({"x": LoadScand("x")({"x": path})["x"]})["x"]
    np.testing.assert_allclose(seen, wanted, atol=2e-5 * np.ptp(scan))
    assert float((back < 0).float().mean()) > 0 or float(scan.min()) > -2


def test_01_a_normalised_brain_is_shown_as_a_magnitude_image_is():
    """Background stays 0, the brain lies above it, in order: as the network was trained."""
    shown = shown_to_network(MetaTensor(SCANS["z-scores of the brain, background 0"][None]))
    assert shown.shifted and bool((shown.volume[0].numpy()[BRAIN] > 0).all())
    assert bool((shown.volume[0].numpy()[~BRAIN] == 0).all())
    order = np.corrcoef(shown.volume[0].numpy()[BRAIN], head()[BRAIN])[0, 1]
    assert order > 0.99999
    whole = shown_to_network(MetaTensor(SCANS["z-scores of everything"][None]))
    np.testing.assert_allclose(whole.volume[0] / whole.volume.max(), head() / head().max(), atol=1e-5)


def test_01_swings_are_hidden_and_counted(tmp_path):
    shown = shown_to_network(MetaTensor(torch.tensor(SCANS["swings of a spline"][None])))
    assert not shown.shifted and shown.below == int((SCANS["swings of a spline"] < 0).sum())
    assert float(shown.volume.min()) == 0 and shown.lowest == -8


def test_01_a_scan_without_values_below_zero_is_left_alone(tmp_path):
    data = prepared(save(tmp_path / "a.nii.gz"), tmp_path)
    assert OFFSET_KEY not in data and data["warnings"] == []
    assert shown_to_network(MetaTensor(head()[None].astype(np.float32))) is None


def test_01_outside_of_a_mask_the_result_is_0(tmp_path):
    save(tmp_path / "mask.nii.gz", BRAIN.astype(np.uint8))
    path = save(tmp_path / "a.nii.gz", SCANS["z-scores of everything"])
    data = prepared(path, tmp_path, mask=tmp_path / "mask.nii.gz")
    back = RestoreIntensityd("pred")(data | {"pred": data["image"].clone()})["pred"][0].numpy()
    seen = back.reshape(*back.shape[:2], 10, 5).mean(-1)
    np.testing.assert_allclose(seen, np.where(BRAIN, SCANS["z-scores of everything"], 0), atol=1e-4)


def test_01_several_contrasts_are_shifted_and_only_the_measured_one_back(tmp_path):
    names = ("T1w", "FLAIR")
    for name in names:
        save(tmp_path / f"{name}.nii.gz", SCANS["z-scores of everything"])
    data = RepairScand(names)(LoadScand(names)({name: tmp_path / f"{name}.nii.gz" for name in names}))
    assert len(data["warnings"]) == 2 and all(float(data[name].min()) == 0 for name in names)
    brain = torch.as_tensor(BRAIN)[None]
    stack = MetaTensor(
        torch.cat([data[name].as_tensor() for name in names]) * brain, affine=data["FLAIR"].affine
    )
    stack.meta["intensity_scale"] = 1.0
    pred = MetaTensor((data["FLAIR"].as_tensor() * brain), affine=data["FLAIR"].affine)
    back = RestoreIntensityd("pred")({"image": stack, "pred": pred, OFFSET_KEY: data[OFFSET_KEY]})["pred"]
    np.testing.assert_allclose(back[0], np.where(BRAIN, SCANS["z-scores of everything"], 0), atol=1e-5)
