"""What is diffused, and its inverse."""

import pytest
import torch

from monai_diffens.target import RESIDUAL_SCALE, ResidualTarget


@pytest.mark.parametrize("scale", [RESIDUAL_SCALE, 0.01, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(2, 1, 4, 5, 6), (3, 1, 8, 8)], ids=str)
def test_round_trip(scale, shape):
    truth, base = torch.rand(2, *shape, dtype=torch.float64)
    target = ResidualTarget(scale=scale)
    residual = target.to_residual(truth, base)
    torch.testing.assert_close(target.from_residual(residual, base), truth)
    torch.testing.assert_close(residual * scale, truth - base)
    torch.testing.assert_close(target.from_residual(residual, base, gain=2.0), 2 * truth - base)


def test_a_gain_needs_a_condition_as_the_base():
    nothing = torch.zeros(1)
    with pytest.raises(ValueError, match="residual_gain must be 1"):
        ResidualTarget("brain").from_residual(nothing, nothing, gain=1.2)


@pytest.mark.parametrize("wrong", [{"base": "mean"}, {"scale": 0.0}, {"scale": -1.0}], ids=str)
def test_a_target_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=r"base|scale"):
        ResidualTarget(**wrong)
