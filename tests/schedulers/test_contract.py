"""What every scheduler that the bundles' `scheduler` id may name has to keep, ours and MONAI's alike."""

from collections.abc import Callable

import pytest
import torch
from denoisers import sample, sample_with_prior
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler, RFlowScheduler, Scheduler

from monai_diffens.acquisition.measurement import ScanAgreement
from monai_diffens.inferers.case_denoiser import CaseDenoiser, foreground_box
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.arithmetic import from_clean
from monai_diffens.schedulers.few_steps import DPMSolverPlusPlusScheduler, TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for

COSINE = {"num_train_timesteps": 1000, "schedule": "cosine", "prediction_type": "v_prediction"}
# name -> how to build it, and the steps after which it is clean
SCHEDULERS: dict[str, tuple[Callable, int]] = {
    "trailing ddim": (TrailingDDIMScheduler, 4),
    "dpm-solver++": (DPMSolverPlusPlusScheduler, 4),
    "ddim": (lambda: DDIMScheduler(**COSINE, clip_sample=False), 4),
    "ddpm": (lambda: DDPMScheduler(**COSINE | {"num_train_timesteps": 50}, clip_sample=False), 50),
    "pndm": (lambda: PNDMScheduler(**COSINE, skip_prk_steps=True, set_alpha_to_one=True), 50),
    "rectified flow": (lambda: RFlowScheduler(1000), 4),
}
# Rectified flow has no alphas_cumprod: it drives the plain loop with a network trained for it, and takes
# neither consistency nor a restart.
VARIANCE_PRESERVING = [name for name in SCHEDULERS if name != "rectified flow"]
SIZE = (6, 5, 8)


def knows(clean: torch.Tensor, scheduler) -> Callable:
    """A network that knows the clean sample."""

    def denoise(x_t: torch.Tensor, t: int, step: int) -> torch.Tensor:
        if isinstance(scheduler, RFlowScheduler):  # x_t = (1 - s) x_0 + s noise, its velocity x_0 - noise
            return (clean - x_t) * 1000 / t
        return from_clean(clean, x_t, float(scheduler.alphas_cumprod[t]), scheduler.prediction_type)

    return denoise


@pytest.fixture(params=SCHEDULERS)
def case(request):
    """A scheduler with its timesteps set, and their number."""
    build, steps = SCHEDULERS[request.param]
    scheduler = build()
    scheduler.set_timesteps(steps)
    return scheduler, steps


def test_is_monai_s_kind(case):
    scheduler, steps = case
    assert isinstance(scheduler, Scheduler)
    times = scheduler.timesteps.tolist()
    assert len(times) >= steps  # PNDM takes its second step twice
    assert all(isinstance(t, int) and 0 <= t <= 1000 for t in times)
    assert times == sorted(times, reverse=True)


def test_a_network_that_knows_the_truth_returns_it(case):
    scheduler, _ = case
    clean, noise = torch.randn(2, 2, 1, *SIZE, dtype=torch.float64)
    result = sample(knows(clean, scheduler), noise, scheduler, torch.Generator().manual_seed(0))
    assert result.shape == clean.shape
    torch.testing.assert_close(result, clean, rtol=0, atol=5e-3)


def test_repeats_with_its_generator_whatever_ran_before(case):
    scheduler, steps = case
    clean, noise = torch.randn(2, 1, 1, *SIZE)

    def walk(seed: int, x: torch.Tensor) -> torch.Tensor:
        torch.rand(1)  # the global generator plays no part
        scheduler.set_timesteps(steps)
        return sample(knows(x.tanh(), scheduler), x, scheduler, torch.Generator().manual_seed(seed))

    first = walk(1, noise)
    walk(2, clean)
    assert torch.equal(walk(1, noise), first)


def test_leaves_the_global_generator_alone(case):
    scheduler, _ = case
    state = torch.get_rng_state()
    sample(knows(torch.zeros(1), scheduler), torch.ones(1, 1, *SIZE), scheduler, torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_keeps_the_sample_it_was_given(case):
    scheduler, _ = case
    x = torch.randn(1, 1, *SIZE)
    before = x.clone()
    sample(knows(torch.zeros(1), scheduler), x, scheduler, torch.Generator().manual_seed(0))
    assert torch.equal(x, before)


def test_a_case_is_sampled_alike_alone_and_in_a_batch(case):
    scheduler, steps = case
    if isinstance(scheduler, DDPMScheduler):
        return  # ancestral: each case has a generator of its own, which the inferer sees to
    clean, noise = torch.randn(2, 2, 1, *SIZE)
    together = sample(knows(clean, scheduler), noise, scheduler)
    for index in range(2):
        scheduler.set_timesteps(steps)
        one = slice(index, index + 1)
        alone = sample(knows(clean[one], scheduler), noise[one], scheduler)
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
@pytest.mark.parametrize("restart", [None, 0.5])
def test_takes_a_prior(name, restart):
    build, _ = SCHEDULERS[name]
    scheduler, seen = build(), []
    answer = knows(torch.zeros(1), scheduler)

    def denoise(x_t: torch.Tensor, t: int, step: int) -> torch.Tensor:
        seen.append(t)
        return answer(x_t, t, step)

    generator = torch.Generator().manual_seed(0)
    result = sample_with_prior(denoise, torch.randn(1, 1, *SIZE), scheduler, 5, restart, generator)
    assert result.isfinite().all()
    assert len(seen) in (5, 6)  # PNDM's extra pass
    assert seen[1] < (0.6 if restart else 1) * scheduler.num_train_timesteps


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
@pytest.mark.parametrize("restart", [None, 0.5])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_the_inferer_s_result_shows_the_scan_nothing_new(tiny_ensembler, name, restart, num_steps):
    build, _ = SCHEDULERS[name]
    measurement = measurement_for((12, 12, 12), (1, 1, 4))
    condition = torch.rand(1, 1, 12, 12, 12) + 0.1
    inferer = DiffEnsemblerInferer.of(
        build(), num_steps=num_steps, restart=restart, progress=False, amp=False
    )
    region = foreground_box(condition, inferer.run_time.margin)
    target = inferer.target
    agreement = ScanAgreement(measurement, condition, target.base_of(condition), target, region)
    model = CaseDenoiser(
        tiny_ensembler(), condition, inferer.scheduler, inferer.sampling, inferer.run_time, agreement
    )
    with torch.no_grad():
        residual = inferer.sample_residual(3, model)
    assert residual.std() > 0.05
    torch.testing.assert_close(measurement(residual), torch.zeros(1, 1, 12, 12, 3), rtol=0, atol=1e-4)
