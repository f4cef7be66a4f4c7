"""Inference of the regression baseline: windows, agreement with the scan, nothing outside of the brain."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_diffens.inferers.regression_inferer import RegressionInferer
from monai_diffens.transforms.conditions import StackConditionsd
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice

SHAPE = (24, 28, 32)
FACTORS = (4, 4, 4)


class Constant(nn.Module):
    """A residual that is the same everywhere, and how often it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, conditions: torch.Tensor) -> torch.Tensor:
        self.calls += len(conditions)
        return torch.full_like(conditions[:, :1], 0.5)


@pytest.fixture
def truth() -> torch.Tensor:
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    return ((sum(axis**2 for axis in grid) < 1) * (0.5 + torch.rand(SHAPE)))[None]


def stacked(truth: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    low = thick_slice(MetaTensor(truth), FACTORS)
    return StackConditionsd(("T1w", "FLAIR"))({"T1w": MetaTensor(truth), "FLAIR": low} | more)["image"][None]


def test_the_result_agrees_with_the_scan(truth):
    inputs = stacked(truth)
    seen = {}
    for consistency in (True, False):
        network = Constant()
        inferer = RegressionInferer(window=16, measured_channel=1, consistency=consistency)
        result = inferer(inputs, network)
        assert result.shape == (1, 1, *SHAPE) and network.calls > 1
        assert not result[0][truth == 0].any() and float(result.min()) >= 0
        measure = measurement_for(SHAPE, FACTORS)
        seen[consistency] = float((measure(torch.as_tensor(result[0])) - measure(truth)).abs().mean())
    assert seen[True] < 0.2 * seen[False]


def test_without_a_scan_it_is_the_networks_own(truth):
    inputs = StackConditionsd(("T1w", "FLAIR"))({"T1w": MetaTensor(truth)})["image"][None]
    result = RegressionInferer(window=16, measured_channel=1)(inputs, Constant())
    assert torch.allclose(torch.as_tensor(result)[0][truth > 0], torch.tensor(1.15), atol=1e-5)
