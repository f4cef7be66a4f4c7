"""The denoising loop: what happens at every step, as four calls."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from monai_diffens.schedulers.arithmetic import SamplingScheduler, to_clean


class Denoiser(Protocol):
    """What the loop asks at every step; predictions are of the scheduler's prediction type."""

    def experts(self, x_t: Tensor, t: int, step: int) -> Any:
        """What every 2D expert predicts of x_t (B, 1, X, Y, Z) at timestep t, step number ``step``."""

    def fuse(self, predictions: Any, x_t: Tensor, t: int) -> Tensor:
        """The one prediction (B, 1, X, Y, Z) that the fusion makes of the experts'."""

    def agree(self, prediction: Tensor, x_t: Tensor, t: int) -> Tensor:
        """The prediction whose clean sample agrees with the scan (data consistency)."""


def sample(
    model: Denoiser,
    x: Tensor,
    scheduler: SamplingScheduler,
    generator: torch.Generator | None = None,
    timesteps: Iterable[int] | None = None,
    first_step: int = 0,
) -> Tensor:
    """Walk from x at the first timestep to a clean sample. Source: arXiv 2501.07430.

    Steps are the scheduler's own: MONAI's DDIM strides over the timesteps it was set to, MONAI's DDPM goes
    back by one timestep a step and so ends clean only after all ``num_train_timesteps``.

    Args:
        model: experts, fusion and data consistency.
        x: (B, 1, X, Y, Z) at the noise level of the first timestep.
        scheduler: a MONAI scheduler whose timesteps are set.
        generator: source of the noise of ancestral schedulers.
        timesteps: the part of ``scheduler.timesteps`` to walk; all when None.
        first_step: number of the first step.

    Returns:
        The clean sample, of the shape of x.
    """
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in accepted else {}
    walk = scheduler.timesteps if timesteps is None else timesteps
    for step, t in enumerate((int(value) for value in walk), start=first_step):
        predictions = model.experts(x, t, step)
        prediction = model.fuse(predictions, x, t)
        prediction = model.agree(prediction, x, t)
        x = scheduler.step(prediction, t, x, **extra)[0]
    return x


def sample_with_prior(
    model: Denoiser,
    x: Tensor,
    scheduler: SamplingScheduler,
    num_steps: int,
    restart: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample in ``num_steps`` steps, optionally from a cheap prior.

    The single step from pure noise is the regression to the mean: low distortion, little detail. With
    ``restart`` its estimate is noised again, with the same noise, to the fraction ``restart`` of the
    schedule, and the other steps walk from there.

    Args:
        model: see :func:`sample`.
        x: (B, 1, X, Y, Z), pure noise.
        scheduler: a MONAI scheduler; its timesteps are set here.
        num_steps: denoising steps, each of which runs every expert once.
        restart: fraction of the schedule, 0 to 1 exclusive; None walks all of it.
        generator: see :func:`sample`.

    Raises:
        ValueError: when ``restart`` is outside (0, 1).
    """
    if restart is None or num_steps == 1:
        scheduler.set_timesteps(num_steps)
        return sample(model, x, scheduler, generator)
    if not 0 < restart < 1:
        raise ValueError(f"restart must lie between 0 and 1, got {restart}")
    start = scheduler.num_train_timesteps - 1
    prediction = model.agree(model.fuse(model.experts(x, start, 0), x, start), x, start)
    prior = to_clean(prediction, x, float(scheduler.alphas_cumprod[start]), scheduler.prediction_type)
    scheduler.set_timesteps(round((num_steps - 1) / restart))
    remaining = scheduler.timesteps[-(num_steps - 1) :]
    noised = scheduler.add_noise(prior, x, remaining[:1])
    return sample(model, noised, scheduler, generator, remaining, first_step=1)
