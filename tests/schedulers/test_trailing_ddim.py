"""Few-step DDIM against networks whose answer is known."""

from itertools import pairwise

import pytest
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler

from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler

STEPS = range(1, 51)
PREDICTIONS = ("v_prediction", "epsilon", "sample")
MEAN, STD = 0.3, 0.6


def levels(scheduler: DDIMScheduler, t: int) -> tuple[float, float]:
    """Signal and noise level (alpha, sigma) of a timestep; below 0 lies the clean sample."""
    alpha_cumprod = float(scheduler.alphas_cumprod[t]) if t >= 0 else 1.0
    return alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5


def prediction(scheduler: DDIMScheduler, clean: torch.Tensor, x_t: torch.Tensor, t: int) -> torch.Tensor:
    """What a network that estimates ``clean`` from x_t returns, in the scheduler's prediction type."""
    alpha, sigma = levels(scheduler, t)
    noise = (x_t - alpha * clean) / sigma
    if scheduler.prediction_type == "v_prediction":
        return alpha * noise - sigma * clean
    return noise if scheduler.prediction_type == "epsilon" else clean


def walk(scheduler: DDIMScheduler, estimate, x: torch.Tensor, eta: float = 0.0, generator=None):
    """Yield (t, x_t) before every step and (-1, x_0) at the end; ``estimate(x_t, t)`` is E[x_0 | x_t]."""
    for t in scheduler.timesteps.tolist():
        yield t, x
        output = prediction(scheduler, estimate(x, t), x, t)
        x, _ = scheduler.step(output, t, x, eta=eta, generator=generator)
    yield -1, x


def sample(scheduler: DDIMScheduler, estimate, x: torch.Tensor, **options) -> torch.Tensor:
    """Return the end of the walk."""
    *_, (_, result) = walk(scheduler, estimate, x, **options)
    return result


def gaussian_estimate(scheduler: DDIMScheduler):
    """E[x_0 | x_t] in closed form for x_0 ~ N(MEAN, STD^2)."""

    def estimate(x_t: torch.Tensor, t: int) -> torch.Tensor:
        alpha, sigma = levels(scheduler, t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)

    return estimate


def normal_quantiles(count: int = 2001) -> torch.Tensor:
    """A standard normal sample without sampling error."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


@pytest.mark.parametrize("total", [1000, 100])
def test_timesteps_start_at_noise_and_are_evenly_spaced(total):
    scheduler = TrailingDDIMScheduler(total)
    for steps in STEPS:
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps.tolist()
        assert len(timesteps) == scheduler.num_inference_steps == steps
        assert timesteps[0] == total - 1 and timesteps[-1] >= 0
        assert {a - b for a, b in pairwise(timesteps)} <= {total // steps}


@pytest.mark.parametrize(
    ("total", "steps"), [(1000, n) for n in (1, 2, 3, 4, 7, 10, 30, 48, 50)] + [(20, 15), (20, 20)]
)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_step_lands_at_the_noise_level_where_the_next_begins(total, steps, kind):
    scheduler = TrailingDDIMScheduler(total, "scaled_linear_beta", prediction_type=kind)
    scheduler.set_timesteps(steps)
    clean, noise = torch.randn(2, 50, dtype=torch.float64)
    start = levels(scheduler, total - 1)
    for t, x in walk(scheduler, lambda x_t, t: clean, start[0] * clean + start[1] * noise):
        alpha, sigma = levels(scheduler, t)
        torch.testing.assert_close(x, alpha * clean + sigma * noise, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_network_that_knows_the_truth_returns_it_in_any_number_of_steps(kind, eta):
    scheduler = TrailingDDIMScheduler(schedule="scaled_linear_beta", prediction_type=kind)
    clean = torch.randn(20, dtype=torch.float64)
    for steps in STEPS:
        scheduler.set_timesteps(steps)
        result = sample(scheduler, lambda x_t, t: clean, torch.randn(20, dtype=torch.float64), eta=eta)
        torch.testing.assert_close(result, clean, rtol=0, atol=1e-4, msg=lambda m, n=steps: f"{n} steps: {m}")


def test_default_schedule_is_exact_too():
    scheduler = TrailingDDIMScheduler()
    clean = torch.randn(20, dtype=torch.float64)
    for steps in STEPS:
        scheduler.set_timesteps(steps)
        result = sample(scheduler, lambda x_t, t: clean, torch.randn(20, dtype=torch.float64))
        torch.testing.assert_close(result, clean, rtol=0, atol=1e-6)


def test_gaussian_data_with_the_exact_score_is_sampled_in_50_steps():
    scheduler = TrailingDDIMScheduler()
    scheduler.set_timesteps(50)
    noise = normal_quantiles()
    result = sample(scheduler, gaussian_estimate(scheduler), noise)
    assert float(result.mean()) == pytest.approx(MEAN, abs=1e-3)
    assert float(result.std()) == pytest.approx(STD, rel=0.03)
    # the flow moves every quantile of the noise to the same quantile of the data
    assert (result - (MEAN + STD * noise)).abs().max() < 0.03 * STD * noise.max()


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_more_steps_come_nearer_to_the_gaussian(kind):
    scheduler = TrailingDDIMScheduler(schedule="scaled_linear_beta", prediction_type=kind)
    errors = []
    for steps in (1, 2, 5, 10, 20, 40):
        scheduler.set_timesteps(steps)
        result = sample(scheduler, gaussian_estimate(scheduler), normal_quantiles())
        errors.append(abs(float(result.std()) / STD - 1))
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[-1] < 0.1


def test_one_step_is_the_regression_to_the_mean():
    scheduler = TrailingDDIMScheduler()
    scheduler.set_timesteps(1)
    result = sample(scheduler, gaussian_estimate(scheduler), normal_quantiles())
    torch.testing.assert_close(result, torch.full_like(result, MEAN), rtol=0, atol=1e-3)


def test_ancestral_sampling_reaches_the_gaussian_and_repeats_with_its_generator():
    scheduler = TrailingDDIMScheduler()
    scheduler.set_timesteps(50)
    estimate, noise = gaussian_estimate(scheduler), normal_quantiles()
    results = [
        sample(scheduler, estimate, noise, eta=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    # 3 standard errors of 2001 values, and the few per cent that 50 steps leave
    assert float(results[0].mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(results[0].std()) == pytest.approx(STD, rel=0.1)


def test_steps_that_divide_the_schedule_are_monai_s_own():
    ours, monai = (
        TrailingDDIMScheduler(),
        DDIMScheduler(schedule="cosine", prediction_type="v_prediction", clip_sample=False),
    )
    x, output = torch.randn(2, 1, 1, 6, 6)
    for scheduler in (ours, monai):
        scheduler.set_timesteps(4)
    for t in (999, 749, 499, 249):
        for a, b in zip(ours.step(output, t, x), monai.step(output, t, x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_diffusion_inferer_of_monai_samples_with_it(steps):
    scheduler = TrailingDDIMScheduler()
    scheduler.set_timesteps(steps)
    clean, condition = torch.randn(2, 2, 1, 8, 8)
    told = []

    def network(x: torch.Tensor, timesteps: torch.Tensor, context=None) -> torch.Tensor:
        assert torch.equal(x[:, 1:], condition) and context is None
        told.append(int(timesteps))
        return prediction(scheduler, clean, x[:, :1], told[-1])

    result = DiffusionInferer(scheduler).sample(
        torch.randn(2, 1, 8, 8), network, conditioning=condition, mode="concat", verbose=False
    )
    assert told == scheduler.timesteps.tolist()
    torch.testing.assert_close(result, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_number_of_steps_is_an_error(steps):
    with pytest.raises(ValueError, match=f"num_steps must be 1 to 1000, got {steps}"):
        TrailingDDIMScheduler().set_timesteps(steps)
