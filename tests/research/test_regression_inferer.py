"""Inference of the regression baseline: windows, agreement with the scan, nothing outside of the brain."""

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from monai_diffens.acquisition.measurement import ScanAgreement, cut_off
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.conditions import StackConditionsd
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.baselines.regression_inferer import RegressionInferer

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
        inferer = RegressionInferer(
            window=16, target=ResidualTarget("brain", 0.3, 1), consistency=consistency
        )
        result = inferer(inputs, network)
        assert result.shape == (1, 1, *SHAPE) and network.calls > 1
        assert not result[0][truth == 0].any() and float(result.min()) >= 0
        measure = measurement_for(SHAPE, FACTORS)
        seen[consistency] = float((measure(torch.as_tensor(result[0])) - measure(truth)).abs().mean())
    assert seen[True] < 0.2 * seen[False]


def test_without_a_scan_it_is_the_networks_own(truth):
    inputs = StackConditionsd(("T1w", "FLAIR"))({"T1w": MetaTensor(truth)})["image"][None]
    result = RegressionInferer(window=16, target=ResidualTarget("brain", 0.3, 1))(inputs, Constant())
    assert torch.allclose(torch.as_tensor(result)[0][truth > 0], torch.tensor(1.15), atol=1e-5)


class Detail(nn.Module):
    """A residual that depends on the conditions and on the place in the window."""

    def forward(self, conditions: torch.Tensor) -> torch.Tensor:
        return conditions.mean(dim=1, keepdim=True) + torch.linspace(0, 1, conditions.shape[-1])


def test_with_base_brain_nothing_has_changed(truth):
    inputs = stacked(truth)
    result = RegressionInferer(window=16, target=ResidualTarget("brain", 0.3, 1))(inputs, Detail())
    plain, measure = inputs.as_tensor(), measurement_for(SHAPE, FACTORS)
    brain = (plain > 0).any(dim=1, keepdim=True).float()
    residual = SlidingWindowInferer(16, overlap=0.5, mode="gaussian")(plain, Detail())
    residual = ScanAgreement(measure, plain[:, 1:], brain, ResidualTarget("brain", 0.3))(residual)
    expected = cut_off(brain + 0.3 * residual, brain > 0, measure, [slice(None)] * 3)
    torch.testing.assert_close(result.as_tensor(), expected)


def test_of_one_scan_a_gain_adds_no_passes(truth):
    low = thick_slice(MetaTensor(truth), FACTORS)[None]
    options = {"window": 16, "target": ResidualTarget()}
    drawn, plain = {}, low.as_tensor()
    for gain in (1.0, 2.0):
        inferer = RegressionInferer(residual_gain=gain, margin=40, consistency=False, **options)
        inferer.drawn = drawn
        result = inferer(low, Detail()).as_tensor()
        assert torch.allclose(result, (plain + gain * 0.07 * drawn[0]).clamp(min=0), atol=1e-6)
    assert list(drawn) == [0]
    agrees = RegressionInferer(residual_gain=2.0, **options)(low, Detail()).as_tensor()
    measure = measurement_for(SHAPE, FACTORS)
    assert torch.allclose(measure(agrees[0]), measure(truth), atol=2e-2)
    assert not torch.allclose(measure(result[0]), measure(truth), atol=2e-2)
    with pytest.raises(ValueError, match="residual_gain must be 1"):
        RegressionInferer(residual_gain=2.0)
