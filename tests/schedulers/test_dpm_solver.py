"""DPM-Solver++ against diffusers' own and against networks whose answer is known."""

import pytest
import torch
from denoisers import sample, sample_with_prior
from monai.networks.schedulers import NoiseSchedules

from monai_diffens.schedulers.arithmetic import from_clean
from monai_diffens.schedulers.few_steps import DPMSolverPlusPlusScheduler, TrailingDDIMScheduler

KINDS = ("v_prediction", "epsilon", "sample")
MEAN, STD = 0.3, 0.6
# not noise prediction on the cosine schedule: at its end x_0 is the noise's error divided by alpha = 5e-5
TRAJECTORIES = [("cosine", "v_prediction"), ("cosine", "sample")] + [
    ("scaled_linear_beta", kind) for kind in KINDS
]


def opinion(scheduler, x_t: torch.Tensor, t: int) -> torch.Tensor:
    """What a network says that depends on sample and timestep, smoothly but not linearly."""
    clean = torch.tanh(0.7 * x_t + 0.002 * t) + 0.1 * torch.sin(3 * x_t)
    return from_clean(clean, x_t, float(scheduler.alphas_cumprod[t]), scheduler.prediction_type)


def gaussian(scheduler, x_t: torch.Tensor, t: int) -> torch.Tensor:
    """The best network for x_0 ~ N(MEAN, STD^2)."""
    level = float(scheduler.alphas_cumprod[t])
    alpha, sigma = level**0.5, (1 - level) ** 0.5
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    return from_clean(MEAN + gain * (x_t - alpha * MEAN), x_t, level, scheduler.prediction_type)


def run(scheduler, network, steps: int, x: torch.Tensor, restart: float | None = None) -> torch.Tensor:
    return sample_with_prior(lambda x_t, t, step: network(scheduler, x_t, t), x, scheduler, steps, restart)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
@pytest.mark.parametrize(("schedule", "kind"), TRAJECTORIES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 20])
def test_trajectories_are_those_of_diffusers(schedule, kind, steps, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from diffusers import DPMSolverMultistepScheduler

    ours = DPMSolverPlusPlusScheduler(1000, schedule, kind)
    theirs = DPMSolverMultistepScheduler(
        1000,
        trained_betas=ours.betas.numpy(),
        prediction_type=kind,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        lower_order_final=False,
    )
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    x = y = torch.randn(4, 5, 6, dtype=torch.float64)
    for t in ours.timesteps.tolist():
        # the network sees our sample in both, so that a difference is the solvers' alone
        output = opinion(ours, x, t)
        y = theirs.step(output, torch.tensor(t), y).prev_sample
        x, _ = ours.step(output, t, x)
        torch.testing.assert_close(x, y.double(), rtol=0, atol=1e-5)
    assert 0.1 < x.std() < 3


@pytest.mark.parametrize("kind", KINDS)
def test_converges_to_the_gaussian_faster_than_ddim(kind):
    schedule = "cosine" if kind == "v_prediction" else "scaled_linear_beta"  # the cosine's end is all noise
    noise = torch.special.ndtri((torch.arange(2001, dtype=torch.float64) + 0.5) / 2001)

    def error(build, steps: int) -> float:
        scheduler = build(1000, schedule, kind)
        result = run(scheduler, gaussian, steps, noise)
        # the flow moves every quantile of the noise to the same quantile of the data
        return float((result - (MEAN + STD * noise)).abs().max())

    for steps in (10, 20, 40):
        assert error(DPMSolverPlusPlusScheduler, steps) < 0.5 * error(TrailingDDIMScheduler, steps)
    assert error(DPMSolverPlusPlusScheduler, 50) < 0.03


def test_one_and_two_steps_equal_ddim():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    for steps in (1, 2):
        ours, ddim = (
            run(build(), opinion, steps, x) for build in (DPMSolverPlusPlusScheduler, TrailingDDIMScheduler)
        )
        torch.testing.assert_close(ours, ddim, rtol=0, atol=1e-5)


def test_a_walk_owes_nothing_to_the_one_before():
    scheduler, x = DPMSolverPlusPlusScheduler(), torch.randn(2, 3, 4)
    expected = run(scheduler, opinion, 6, x)
    scheduler.set_timesteps(6)
    for broken_off in (1, 3, 6):
        part = scheduler.timesteps[:broken_off]
        sample(lambda x_t, t, step: opinion(scheduler, x_t, t), 5 * x, scheduler, timesteps=part)
        again = sample(lambda x_t, t, step: opinion(scheduler, x_t, t), x, scheduler)
        assert torch.equal(again, expected)


def test_takes_a_restart():
    scheduler = DPMSolverPlusPlusScheduler()
    clean = torch.randn(2, 3, 4, dtype=torch.float64)

    def knows(scheduler, x_t: torch.Tensor, t: int) -> torch.Tensor:
        return from_clean(clean, x_t, float(scheduler.alphas_cumprod[t]), scheduler.prediction_type)

    torch.testing.assert_close(
        run(scheduler, knows, 4, torch.randn_like(clean), 0.5), clean, rtol=0, atol=1e-5
    )


def test_starts_at_pure_noise_where_the_schedule_does():
    name = "ends_in_pure_noise"
    if name not in NoiseSchedules:
        NoiseSchedules.add(
            name, "test", lambda num_train_timesteps: torch.linspace(1e-4, 1, num_train_timesteps)
        )
    scheduler = DPMSolverPlusPlusScheduler(20, name)
    assert float(scheduler.alphas_cumprod[-1]) == 0
    result = run(scheduler, opinion, 5, torch.randn(3, 4))
    assert result.isfinite().all()


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="unknown prediction type 'noise'"):
        DPMSolverPlusPlusScheduler(prediction_type="noise")
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"num_steps must be 1 to 1000, got {steps}"):
            DPMSolverPlusPlusScheduler().set_timesteps(steps)
    scheduler = DPMSolverPlusPlusScheduler()
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="timestep 998 is none of the 4 that were set"):
        scheduler.step(torch.zeros(1), 998, torch.zeros(1))
