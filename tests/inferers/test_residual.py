"""The diffusion target and its inverse."""

import pytest
import torch

from monai_diffens.target import RESIDUAL_SCALE, from_residual, to_residual


@pytest.mark.parametrize("scale", [RESIDUAL_SCALE, 0.01, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(2, 1, 4, 5, 6), (3, 1, 8, 8)], ids=str)
def test_round_trip(scale, shape):
    target, condition = torch.rand(2, *shape, dtype=torch.float64)
    residual = to_residual(target, condition, scale)
    torch.testing.assert_close(from_residual(residual, condition, scale), target)
    torch.testing.assert_close(residual * scale, target - condition)


def test_no_residual_is_the_condition_and_the_default_scale_is_shared():
    condition = torch.rand(1, 1, 3, 3, 3)
    assert torch.equal(from_residual(torch.zeros(1, 1, 3, 3, 3), condition), condition)
    one_scale_up = to_residual(condition + RESIDUAL_SCALE, condition)
    torch.testing.assert_close(one_scale_up, torch.ones_like(condition), rtol=0, atol=1e-5)
