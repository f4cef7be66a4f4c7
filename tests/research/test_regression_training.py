"""Training of the regression baseline: what an iteration gets, and tiny runs of both overlays."""

import pytest
import torch

from monai_diffens.networks.weights import load_weights
from monai_diffens.target import ResidualTarget
from research.baselines.regression import RegressionPrepareBatch
from research.baselines.regression_unet import RegressionUNet


def test_of_one_condition_the_residual_is_to_it():
    image = torch.rand(3, 1, 4, 4, 4)
    batch = {"image": image.half(), "label": (image + 0.02).half()}
    conditions, (residual, variance), positional, named = RegressionPrepareBatch(ResidualTarget())(batch)
    assert conditions.dtype == torch.float32 and variance.tolist() == [1.0] * 3
    assert not positional and not named
    torch.testing.assert_close(0.07 * residual + conditions, image + 0.02, rtol=0, atol=1e-3)


def test_of_several_any_subset_is_given_and_the_own_scan_narrows_the_residual():
    image = 0.5 + torch.rand(6, 4, 4, 4, 4)
    has = torch.ones(6, 4, dtype=torch.bool)
    has[3:, 1] = False
    image[3:, 1] = 0
    batch = {"image": image, "label": image[:, :1] + 0.2, "has": has, "target": torch.tensor([3, 0] * 3)}
    target = ResidualTarget("brain", 0.35, 3)
    prepare = RegressionPrepareBatch(target, prior_std=0.4, kept=(0.6, 0.5))
    seen = set()
    for _ in range(80):
        conditions, (residual, variance), _, named = prepare(batch)
        assert named["targets"].tolist() == [3, 0] * 3
        given = conditions.flatten(2).any(dim=2)
        for case in range(6):
            seen.add((case > 2, *given[case].tolist()))
            assert given[case].any() and not (given[case] & ~has[case]).any()
            assert torch.equal(conditions[case, given[case]], image[case, given[case]])
            assert variance[case] == pytest.approx(0.16 if given[case, batch["target"][case]] else 1.0)
        torch.testing.assert_close(0.35 * residual + 1, batch["label"])
    assert len({subset for subset in seen if not subset[0]}) == 15
    assert len({subset for subset in seen if subset[0]}) == 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.filterwarnings("ignore:Not all config files")
@pytest.mark.parametrize(("bundle", "side"), [("diffensembler_sr", 64), ("diffensembler_translate", 32)])
def test_a_tiny_run_leaves_weights_that_were_validated(run_tiny, bundle, side, tmp_path):
    workflow = run_tiny("train_planes", overlays=("regression",), bundle=bundle, crop_size=side)
    assert workflow.parser.get_parsed_content("train#trainer").state.epoch == 3
    best = workflow.parser.get_parsed_content("validate#best")
    assert best.epoch in (1, 2, 3) and 5 < best.best < 60
    network = workflow.parser.get_parsed_content("model")
    assert isinstance(network, RegressionUNet) and network.unet.final_conv.weight.any()
    load_weights(network, tmp_path / "out" / "model.pt")
