"""Facts of a result: measured on it, the same on every machine at every time."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.describe import DescribeResultd, consistency, spread_summary
from monai_diffens.transforms.target_grid import RestoreToSpacingd


@pytest.fixture
def case() -> dict:
    """A scan of 4 mm slices over a block, brought to 1 mm, and a result that agrees with it."""
    slices = torch.zeros(1, 12, 14, 6)
    slices[:, 2:10, 2:12, 1:5] = 0.2 + 0.6 * torch.rand(8, 10, 4)
    scan = MetaTensor(slices, affine=np.diag([1, 1, 4, 1.0]), meta={"filename_or_obj": "a.nii.gz"})
    data = RestoreToSpacingd("image", scan_key="scan")({"image": scan})
    return data | {"pred": data["image"].clone()}


def test_scan_is_kept_on_its_own_slices(case):
    assert case["scan"].shape == (1, 12, 14, 6) and case["image"].shape == (1, 12, 14, 24)
    np.testing.assert_allclose(case["scan"].affine, np.diag([1, 1, 4, 1.0]))


def test_scan_is_averaged_along_axes_finer_than_the_target():
    scan = MetaTensor(torch.rand(1, 24, 12, 6), affine=np.diag([0.5, 1, 4, 1.0]))
    kept = RestoreToSpacingd("image", scan_key="scan")({"image": scan})["scan"]
    assert kept.shape == (1, 12, 12, 6)
    pairs = scan.as_tensor().unflatten(1, (12, 2)).mean(dim=2)
    torch.testing.assert_close(kept.as_tensor(), pairs)
    np.testing.assert_allclose(kept.affine[:, 3], [0.25, 0, 0, 1])
    np.testing.assert_allclose(np.diag(kept.affine), [1, 1, 4, 1])
    with pytest.raises(ValueError, match="scan_key keeps one scan, got 2 keys"):
        RestoreToSpacingd(["a", "b"], scan_key="scan")


def test_consistency_of_a_result_that_agrees_and_of_one_that_does_not(case):
    agrees = DescribeResultd()(case)["facts"]["Consistency"]
    assert agrees["MeanAbsoluteDifference"] < 1e-4
    case["pred"] = case["pred"] + 0.05 * (case["pred"] > 0)
    off = DescribeResultd()(case)["facts"]["Consistency"]
    inside = case["scan"].as_tensor() > 0
    assert off["MeanAbsoluteDifference"] == pytest.approx(0.05, rel=0.3)
    assert off["MaximumAbsoluteDifference"] >= 0.0499
    assert inside.float().mean() < 0.5  # the mean over the box would be below 0.025


def test_empty_space_does_not_dilute_and_invented_signal_counts():
    scan = torch.zeros(1, 10, 10, 10)
    scan[:, :2] = 1
    again = scan.clone()
    again[:, 0] = 0.5
    again[:, 9] = 0.5  # where the scan saw nothing
    assert consistency(again, scan) == {"MeanAbsoluteDifference": 0.3333333, "MaximumAbsoluteDifference": 0.5}
    with pytest.raises(ValueError, match="shape"):
        consistency(again[:, :5], scan)


def test_spread_and_weights_are_taken_inside_the_result(case, tmp_path):
    inside = case["pred"] > 0
    case["pred_std"] = 0.02 * inside
    case["pred_std"][inside.logical_not()] = 9.0
    case["pred_weight-axial"], case["pred_weight-coronal"] = 0.75 * inside, 0.25 * inside
    (tmp_path / "model.pt.sha256").write_text("abc123  model.pt\n")
    describe = DescribeResultd(
        maps=["std", "weight-axial", "weight-coronal"],
        parameters={"num_steps": 4, "restart": None},
        weights_file=tmp_path / "model.pt",
    )
    facts = describe(case)["facts"]
    assert facts["Spread"] == {"Mean": pytest.approx(0.02), "Percentile95": pytest.approx(0.02)}
    assert facts["PlaneWeights"] == {"axial": 0.75, "coronal": 0.25}
    assert facts["Sampling"] == {"num_steps": 4, "restart": None} and facts["WeightsSHA256"] == "abc123"
    assert facts["Versions"]["torch"] == torch.__version__.split("+")[0] or "+" in facts["Versions"]["torch"]
    assert json.loads(json.dumps(facts)) == facts == describe(case)["facts"]


def test_without_a_measurement_there_is_no_consistency(case):
    del case["image"].meta["slice_sampling"]
    assert "Consistency" not in DescribeResultd()(case)["facts"]
    assert spread_summary(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool))["Mean"] == 0
