"""The denoising loop: a pure function of network, noise, scheduler and generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from monai_diffens.schedulers.prediction import from_clean, to_clean

Denoise = Callable[[Tensor, int, int], Tensor]


class SamplingScheduler(Protocol):
    """What the loops need of a scheduler: MONAI's DDPM, DDIM and PNDM have it, their base class lacks it."""

    num_train_timesteps: int
    prediction_type: str
    alphas_cumprod: Tensor
    timesteps: Tensor

    @property
    def step(self) -> Callable[..., tuple[Tensor, Any]]:
        """Function of (prediction, t, x_t) to x_t' and anything."""

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Choose the timesteps."""

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of clean samples."""


def sample(
    denoise: Denoise,
    x: Tensor,
    scheduler: SamplingScheduler,
    generator: torch.Generator | None = None,
    timesteps: Iterable[int] | None = None,
) -> Tensor:
    """Walk from x at the first timestep to a clean sample.

    Steps are the scheduler's own: MONAI's DDIM strides over the timesteps it was set to, MONAI's DDPM goes
    back by one timestep a step and so ends clean only after all ``num_train_timesteps``.

    Args:
        denoise: ``denoise(x_t, t, step)``, the prediction in the scheduler's prediction type.
        x: (B, 1, X, Y, Z) at the noise level of the first timestep.
        scheduler: a MONAI scheduler whose timesteps are set.
        generator: source of the noise of ancestral schedulers.
        timesteps: the part of ``scheduler.timesteps`` to walk; all when None.

    Returns:
        The clean sample, of the shape of x.
    """
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in accepted else {}
    walk = scheduler.timesteps if timesteps is None else timesteps
    for step, t in enumerate(int(value) for value in walk):
        x = scheduler.step(denoise(x, t, step), t, x, **extra)[0]
    return x


def sample_with_prior(
    denoise: Denoise,
    x: Tensor,
    scheduler: SamplingScheduler,
    num_steps: int,
    restart: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample in ``num_steps`` network passes, optionally from a cheap prior.

    The single step from pure noise is the regression to the mean: low distortion, little detail. With
    ``restart`` its estimate is noised again, with the same noise, to the fraction ``restart`` of the
    schedule, and the other passes walk from there.

    Args:
        denoise: see :func:`sample`.
        x: (B, 1, X, Y, Z), pure noise.
        scheduler: a MONAI scheduler; its timesteps are set here.
        num_steps: network passes.
        restart: fraction of the schedule, 0 to 1 exclusive; None walks all of it.
        generator: see :func:`sample`.

    Raises:
        ValueError: when ``restart`` is outside (0, 1).
    """
    if restart is None or num_steps == 1:
        scheduler.set_timesteps(num_steps)
        return sample(denoise, x, scheduler, generator)
    if not 0 < restart < 1:
        raise ValueError(f"restart must lie between 0 and 1, got {restart}")
    start = scheduler.num_train_timesteps - 1
    prior = to_clean(
        denoise(x, start, 0), x, float(scheduler.alphas_cumprod[start]), scheduler.prediction_type
    )
    scheduler.set_timesteps(round((num_steps - 1) / restart))
    remaining = scheduler.timesteps[-(num_steps - 1) :]
    noised = scheduler.add_noise(prior, x, remaining[:1])
    return sample(lambda x_t, t, step: denoise(x_t, t, step + 1), noised, scheduler, generator, remaining)


def constrained(
    denoise: Denoise, project: Callable[[Tensor], Tensor], scheduler: SamplingScheduler
) -> Denoise:
    """Denoise with the predicted clean sample passed through ``project``, for every scheduler alike."""

    def projected(x_t: Tensor, t: int, step: int) -> Tensor:
        return project_prediction(denoise(x_t, t, step), x_t, t, project, scheduler)

    return projected


def project_prediction(
    prediction: Tensor,
    x_t: Tensor,
    t: int,
    project: Callable[[Tensor], Tensor],
    scheduler: SamplingScheduler,
) -> Tensor:
    """The prediction at timestep t whose clean sample is ``project`` of the given one's."""
    alpha_cumprod = float(scheduler.alphas_cumprod[t])
    kind = scheduler.prediction_type
    return from_clean(project(to_clean(prediction, x_t, alpha_cumprod, kind)), x_t, alpha_cumprod, kind)
