"""The sampling loops, driven by networks whose answer is known, under every scheduler that fits."""

from collections.abc import Callable

import pytest
import torch
from denoisers import constrained, sample, sample_with_prior
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler, RFlowScheduler

from monai_diffens.schedulers.arithmetic import from_clean, to_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for

MEAN, STD = 0.3, 0.6
KINDS = ("v_prediction", "epsilon", "sample")
COUNTS = (1, 2, 4, 10)
RESTARTS = (None, 0.5, 0.3)
SIZE = (12, 14, 16)


def ddim(kind: str = "v_prediction") -> DDIMScheduler:
    return DDIMScheduler(1000, schedule="scaled_linear_beta", prediction_type=kind, clip_sample=False)


def ddpm(kind: str = "v_prediction") -> DDPMScheduler:
    return DDPMScheduler(1000, schedule="scaled_linear_beta", prediction_type=kind, clip_sample=False)


def trailing(kind: str = "v_prediction") -> TrailingDDIMScheduler:
    return TrailingDDIMScheduler(schedule="scaled_linear_beta", prediction_type=kind)


def knows(clean: torch.Tensor, scheduler, seen: list | None = None) -> Callable:
    """A network that knows the clean sample; (t, step, x_t) of every pass go to ``seen``."""

    def denoise(x_t: torch.Tensor, t: int, step: int) -> torch.Tensor:
        if seen is not None:
            seen.append((t, step, x_t))
        return from_clean(clean, x_t, float(scheduler.alphas_cumprod[t]), scheduler.prediction_type)

    return denoise


def gaussian(scheduler) -> Callable:
    """The best network for x_0 ~ N(MEAN, STD^2): E[x_0 | x_t] in closed form."""

    def denoise(x_t: torch.Tensor, t: int, step: int) -> torch.Tensor:
        if isinstance(scheduler, RFlowScheduler):  # x_t = (1 - s) x_0 + s noise, its velocity x_0 - noise
            alpha, sigma = 1 - t / 1000, t / 1000
        else:
            level = float(scheduler.alphas_cumprod[t])
            alpha, sigma = level**0.5, (1 - level) ** 0.5
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        clean = MEAN + gain * (x_t - alpha * MEAN)
        if isinstance(scheduler, RFlowScheduler):
            return (clean - x_t) / sigma
        return from_clean(clean, x_t, level, scheduler.prediction_type)

    return denoise


GAUSSIAN = {
    "ddpm": (DDPMScheduler(1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False), 1000),
    "ddpm epsilon": (ddpm("epsilon"), 1000),
    "ddim": (ddim(), 100),
    "ddim epsilon": (ddim("epsilon"), 100),
    "trailing ddim": (TrailingDDIMScheduler(), 100),
    "pndm, multistep only": (
        PNDMScheduler(1000, schedule="scaled_linear_beta", skip_prk_steps=True, set_alpha_to_one=True),
        100,
    ),
    "rectified flow": (RFlowScheduler(1000), 100),
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_exact_score_samples_the_gaussian(name):
    scheduler, steps = GAUSSIAN[name]
    scheduler.set_timesteps(steps)
    quantiles = (torch.arange(20001, dtype=torch.float64) + 0.5) / 20001
    noise = torch.special.ndtri(quantiles).reshape(1, 1, 1, 1, -1)
    result = sample(gaussian(scheduler), noise, scheduler, torch.Generator().manual_seed(0))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(result.std()) == pytest.approx(STD, rel=0.03)


def test_ddpm_of_monai_is_clean_after_all_its_timesteps_only():
    scheduler, noise = ddpm(), torch.randn(1, 1, 20, 20, 20)
    scheduler.set_timesteps(50)
    assert sample(gaussian(scheduler), noise, scheduler).std() > 1.3 * STD


def test_the_generator_decides_ancestral_noise():
    scheduler, x = ddpm(), torch.randn(1, 1, 4, 4, 4)
    scheduler.set_timesteps(20)

    def walk(seed: int) -> torch.Tensor:
        torch.rand(1)  # the global generator plays no part
        return sample(gaussian(scheduler), x, scheduler, torch.Generator().manual_seed(seed))

    assert torch.equal(walk(1), walk(1))
    assert (walk(1) - walk(2)).abs().max() > 0.1
    with_prior = [
        sample_with_prior(gaussian(scheduler), x, scheduler, 4, restart, torch.Generator().manual_seed(3))
        for restart in (None, None, 0.5, 0.5)
    ]
    assert torch.equal(*with_prior[:2]) and torch.equal(*with_prior[2:])


@pytest.mark.parametrize("timesteps", [None, [700, 30], torch.tensor([5])], ids=str)
def test_timesteps_may_be_a_part(timesteps):
    scheduler, seen = trailing(), []
    scheduler.set_timesteps(4)
    sample(
        knows(torch.zeros(1, 1, 2, 2, 2), scheduler, seen),
        torch.randn(1, 1, 2, 2, 2),
        scheduler,
        None,
        timesteps,
    )
    expected = scheduler.timesteps if timesteps is None else timesteps
    assert [(t, step) for t, step, _ in seen] == [(int(t), i) for i, t in enumerate(expected)]
    assert all(type(t) is int for t, _, _ in seen)


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("build", [trailing, ddim, ddpm])
def test_prior_takes_as_many_passes_as_asked(build, count, restart):
    scheduler, seen = build(), []
    x = torch.randn(2, 1, 3, 3, 3)
    sample_with_prior(knows(torch.zeros_like(x), scheduler, seen), x, scheduler, count, restart)
    timesteps = [t for t, _, _ in seen]
    assert [step for _, step, _ in seen] == list(range(count))
    assert timesteps[0] == 999 and timesteps == sorted(timesteps, reverse=True)
    assert torch.equal(seen[0][2], x)
    if restart and count > 1 and build is trailing:  # MONAI's timesteps end at 0, however few they are
        assert timesteps[1] == pytest.approx(1000 * restart, abs=50)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("count", COUNTS)
def test_a_network_that_knows_the_truth_returns_it(kind, restart, count):
    scheduler = trailing(kind)
    clean = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64)
    result = sample_with_prior(knows(clean, scheduler), torch.randn_like(clean), scheduler, count, restart)
    torch.testing.assert_close(result, clean, rtol=0, atol=1e-4)


@pytest.mark.parametrize("restart", RESTARTS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_restart_noises_the_prior_with_the_same_noise(kind, restart):
    scheduler, seen = trailing(kind), []
    clean, noise = torch.randn(2, 1, 1, 4, 4, 4, dtype=torch.float64)
    sample_with_prior(knows(clean, scheduler, seen), noise, scheduler, 4, restart)
    t, _, x_t = seen[1]
    level = float(scheduler.alphas_cumprod[t])
    torch.testing.assert_close(x_t, level**0.5 * clean + (1 - level) ** 0.5 * noise, rtol=0, atol=1e-4)


@pytest.mark.parametrize("restart", [0, 1, -0.5, 1.5])
def test_restart_lies_between_0_and_1(restart):
    scheduler, x = trailing(), torch.zeros(1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match="restart must lie between 0 and 1"):
        sample_with_prior(knows(x, scheduler), x, scheduler, 4, restart)


def stubborn(scheduler) -> Callable:
    """A network that knows nothing of the constraint, but has an opinion on every voxel."""
    opinion = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(7))

    def denoise(x_t: torch.Tensor, t: int, step: int) -> torch.Tensor:
        level = float(scheduler.alphas_cumprod[t])
        return from_clean(torch.tanh(opinion + 0.5 * x_t), x_t, level, scheduler.prediction_type)

    return denoise


CONSTRAINED = [
    (trailing, 1),
    (trailing, 4),
    (trailing, 7),
    (ddim, 1),
    (ddim, 4),
    (ddim, 50),
    (ddpm, 4),
    (ddpm, 50),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("build", "count"), CONSTRAINED)
@pytest.mark.parametrize("restart", [None, 0.5])
@pytest.mark.parametrize("factors", [(1, 1, 4), (2.5, 2, 3)], ids=str)
def test_constrained_samples_show_the_scan_nothing(kind, build, count, restart, factors):
    scheduler, measurement = build(kind), measurement_for(SIZE, factors)
    x = torch.randn(1, 1, *SIZE)
    free = sample_with_prior(stubborn(scheduler), x, scheduler, count, restart)
    denoise = constrained(stubborn(scheduler), measurement.null_space(), scheduler)
    result = sample_with_prior(denoise, x, scheduler, count, restart)
    assert measurement(free).abs().max() > 0.1
    assert result.std() > 0.1
    torch.testing.assert_close(measurement(result), torch.zeros_like(measurement(x)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_constrained_truth_keeps_what_the_scan_cannot_see(kind):
    scheduler, measurement = trailing(kind), measurement_for(SIZE, (1, 1, 4), "gaussian")
    project = measurement.null_space()
    clean = torch.randn(1, 1, *SIZE)
    denoise = constrained(knows(clean, scheduler), project, scheduler)
    result = sample_with_prior(denoise, torch.randn_like(clean), scheduler, 4, 0.5)
    torch.testing.assert_close(result, project(clean), rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_constrained_predictions_imply_the_projected_clean_sample(kind):
    scheduler, x = ddim(kind), torch.randn(1, 1, *SIZE)
    seen = []

    def project(clean: torch.Tensor) -> torch.Tensor:
        seen.append(clean)
        return clean / 2

    for step, t in enumerate((900, 500, 20)):
        level = float(scheduler.alphas_cumprod[t])
        prediction = constrained(stubborn(scheduler), project, scheduler)(x, t, step)
        clean = to_clean(stubborn(scheduler)(x, t, step), x, level, kind)
        torch.testing.assert_close(seen[-1], clean, rtol=0, atol=1e-4)
        torch.testing.assert_close(to_clean(prediction, x, level, kind), clean / 2, rtol=0, atol=1e-4)
