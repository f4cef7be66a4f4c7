"""The diffusion target: the truth minus a base that sampling knows too, brought to about unit variance.

Super-resolution takes the residual to the condition, which shows the same contrast. A residual to another
contrast would leave that contrast's edges in (measured: sharpness above the truth's after one step), and
experts whose targets differ would see different x_t; so translation predicts the target itself, centred
on its brain's median, and all experts share it whatever their condition.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Standard deviation of (truth - restored scan) inside the brain, on volumes scaled by their foreground's
# 99.5th percentile: 0.05 to 0.10 over contrasts for x4 pooling and 4 to 5 mm slices of 1 mm scans.
RESIDUAL_SCALE = 0.07


def target_base(conditions: Tensor, base: str) -> Tensor:
    """What is subtracted from the target.

    Args:
        conditions: (B, M, ...), scaled; absent ones and what lies outside of the brain are 0.
        base: "condition" for the first condition; "brain" for 1, the median of a volume scaled by its
            median, where any condition is above 0.

    Returns:
        (B, 1, ...).

    Raises:
        ValueError: for another base.
    """
    if base == "condition":
        return conditions[:, :1]
    if base == "brain":
        return (conditions > 0).any(dim=1, keepdim=True).to(conditions.dtype)
    raise ValueError(f"unknown base '{base}': use one of condition, brain")


def to_residual(target: Tensor, base: Tensor, scale: float = RESIDUAL_SCALE) -> Tensor:
    """Residual of about unit variance, of the shape of both volumes."""
    return (target - base) / scale


def from_residual(residual: Tensor, base: Tensor, scale: float = RESIDUAL_SCALE) -> Tensor:
    """The inverse of :func:`to_residual`."""
    return torch.add(base, residual, alpha=scale)


def check_gain(gain: float, base: str) -> None:
    """Raise ValueError where a gain of the residual is no choice: not above 0, or not 1 with another base."""
    if gain <= 0:
        raise ValueError(f"residual_gain must be above 0, got {gain}")
    if gain != 1 and base != "condition":
        raise ValueError(f"residual_gain must be 1 with base '{base}', got {gain}")
