"""Draws of the frozen experts: where x_t of a walked draw comes from, and that the truth stays the target."""

import pytest
import torch
from torch import nn

from monai_diffens.data.expert_draws import STEPS_WALKED, ExpertDraws
from monai_diffens.schedulers.arithmetic import from_clean, to_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget

SIZE = (8, 10, 12)
SCHEDULER = TrailingDDIMScheduler()


class KnownExperts(nn.Module):
    """Three experts that know the residual, each off by a constant; keeps the timesteps it is asked at."""

    conditions = ("image",)

    def __init__(self, residual: torch.Tensor, off: tuple[float, float, float]) -> None:
        super().__init__()
        self.residual = nn.Parameter(residual)
        self.off, self.asked = off, []

    def present(self, conditions):
        return torch.ones(1, 3, dtype=torch.bool)

    def forward(self, x_t, conditions, timesteps, present=None, target=-1):
        self.asked.append(int(timesteps))
        level = float(SCHEDULER.alphas_cumprod[self.asked[-1]])
        cleans = [self.residual + off for off in self.off]
        return torch.cat([from_clean(clean, x_t, level, "v_prediction") for clean in cleans], dim=1)


def draws(off=(0.0, 0.0, 0.0), **options) -> ExpertDraws:
    image = torch.rand(1, *SIZE)
    item = {"image": image, "label": image + 0.07 * torch.randn(1, *SIZE)}
    residual = ResidualTarget().to_residual(item["label"], image)[None]
    return ExpertDraws([item], KnownExperts(residual, off), SCHEDULER, amp=False, **options)


def test_experts_that_are_right_lead_to_the_noised_truth():
    made = draws(strata=10)
    for number in range(10):
        made.walked = 0.0
        noised = made(number)
        made.walked = 1.0
        walked = made(number)
        assert walked["timestep"] == noised["timestep"]
        torch.testing.assert_close(walked["volumes"][0], noised["volumes"][0], rtol=0, atol=4e-3)


@pytest.mark.parametrize("number", range(6))
def test_a_walk_takes_over_what_the_average_does_wrong(number):
    made = draws(off=(0.0, 0.6, 0.3), strata=6, walked=1.0)  # on average 0.3 too high
    walked = made(number)
    made.walked = 0.0
    noised = made(number)
    t, level = walked["timestep"], float(SCHEDULER.alphas_cumprod[walked["timestep"]])
    start = made.bank.asked[0]
    before = float(SCHEDULER.alphas_cumprod[start])
    # a clean sample that is d too high takes alpha d into x_t, less what the noise left in it is then too low
    shift = 0.3 * (level**0.5 - (before / (1 - before)) ** 0.5 * (1 - level) ** 0.5)
    moved = (walked["volumes"][0] - noised["volumes"][0]).float()
    torch.testing.assert_close(moved, torch.full(SIZE, shift), rtol=0, atol=8e-3)
    few, many = STEPS_WALKED
    assert min(999, t + 999 // many) <= start <= t + 999 / few + 1
    # the target is the truth still
    clean = to_clean(walked["volumes"][1].float(), walked["volumes"][0].float(), level, "v_prediction")
    torch.testing.assert_close(clean, made.bank.residual[0, 0].detach(), rtol=0, atol=2e-2)


@pytest.mark.parametrize(("walked", "least", "most"), [(0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)])
def test_the_share_of_walked_draws(walked, least, most):
    made = draws(strata=40, walked=walked)
    for number in range(40):
        made(number)
    assert least <= len(made.bank.asked) - 40 <= most
