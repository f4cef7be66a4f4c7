"""Timesteps to train on: one from each stratum, denser towards pure noise."""

from __future__ import annotations

from torch import Tensor


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
