"""Predictions and the clean sample that they imply, against MONAI's own training targets."""

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler

from monai_diffens.schedulers.arithmetic import from_clean, to_clean

KINDS = ("v_prediction", "epsilon", "sample")
LEVELS = (0.999, 0.7, 0.5, 0.05, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "level", [*LEVELS, torch.tensor(0.3), torch.tensor([0.2, 0.8]).reshape(2, 1, 1, 1, 1)], ids=str
)
def test_round_trip_both_ways(kind, level):
    clean, x_t, prediction = torch.randn(3, 2, 1, 3, 4, 5, dtype=torch.float64)
    implied = from_clean(clean, x_t, level, kind)
    torch.testing.assert_close(to_clean(implied, x_t, level, kind), clean)
    torch.testing.assert_close(
        from_clean(to_clean(prediction, x_t, level, kind), x_t, level, kind), prediction
    )


@pytest.mark.parametrize("level", LEVELS)
def test_each_kind_is_what_it_says(level):
    clean, noise = torch.randn(2, 50, dtype=torch.float64)
    alpha, sigma = level**0.5, (1 - level) ** 0.5
    x_t = alpha * clean + sigma * noise
    said = {"v_prediction": alpha * noise - sigma * clean, "epsilon": noise, "sample": clean}
    for kind in KINDS:
        torch.testing.assert_close(from_clean(clean, x_t, level, kind), said[kind])
        torch.testing.assert_close(to_clean(said[kind], x_t, level, kind), clean)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [1, 300, 800])
def test_agrees_with_monai(kind, timestep):
    scheduler = DDIMScheduler(1000, schedule="cosine", prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    clean, noise = torch.randn(2, 1, 1, 4, 4, 4, dtype=torch.float64)
    steps = torch.tensor([timestep])
    x_t = scheduler.add_noise(clean, noise, steps)
    level = float(scheduler.alphas_cumprod[timestep])
    prediction = from_clean(clean, x_t, level, kind)
    if kind == "v_prediction":
        torch.testing.assert_close(prediction, scheduler.get_velocity(clean, noise, steps), rtol=0, atol=1e-5)
    torch.testing.assert_close(scheduler.step(prediction, timestep, x_t)[1], clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("convert", [to_clean, from_clean])
@pytest.mark.parametrize("kind", ["velocity", "eps", ""])
def test_unknown_kind_is_named(convert, kind):
    with pytest.raises(ValueError, match=f"unknown prediction type '{kind}'"):
        convert(torch.zeros(1), torch.zeros(1), 0.5, kind)
