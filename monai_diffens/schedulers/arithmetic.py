"""The arithmetic of diffusion: what a prediction implies at a noise level, and which levels to train on.

Notation: x_t = alpha x_0 + sigma eps, v = alpha eps - sigma x_0, alpha^2 + sigma^2 = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor


class SamplingScheduler(Protocol):
    """What the loop needs of a scheduler: MONAI's DDPM, DDIM and PNDM have it, their base class lacks it."""

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


def to_clean(prediction: Tensor, x_t: Tensor, alpha_cumprod: Tensor | float, prediction_type: str) -> Tensor:
    """Clean sample x_0 implied by a prediction at one noise level; all volumes of one shape.

    Raises:
        ValueError: for a prediction type that is not MONAI's v_prediction, epsilon or sample.
    """
    alpha, sigma = alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction
    if prediction_type == "epsilon":
        return (x_t - sigma * prediction) / alpha
    if prediction_type == "sample":
        return prediction
    raise ValueError(f"unknown prediction type '{prediction_type}'")


def from_clean(clean: Tensor, x_t: Tensor, alpha_cumprod: Tensor | float, prediction_type: str) -> Tensor:
    """Prediction that implies the clean sample; the inverse of :func:`to_clean` (sigma above 0)."""
    alpha, sigma = alpha_cumprod**0.5, (1 - alpha_cumprod) ** 0.5
    if prediction_type == "v_prediction":
        return (alpha * x_t - clean) / sigma
    if prediction_type == "epsilon":
        return (x_t - alpha * clean) / sigma
    if prediction_type == "sample":
        return clean
    raise ValueError(f"unknown prediction type '{prediction_type}'")


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


def stratum_timesteps(strata: Tensor, num_train_timesteps: int, noise_emphasis: float = 1.0) -> Tensor:
    """Timesteps of places in the unit interval.

    Few-step samplers work where noise dominates; at small t the sample shows the answer, and v-prediction
    only learns to copy the noise.

    Args:
        strata: (N,) in [0, 1).
        num_train_timesteps: length of the schedule.
        noise_emphasis: 1 spreads the timesteps evenly, above 1 more of them are noisy.

    Returns:
        (N,) whole timesteps.
    """
    steps = ((1 - (1 - strata) ** noise_emphasis) * num_train_timesteps).long()
    return steps.clamp(max=num_train_timesteps - 1)
