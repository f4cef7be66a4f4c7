"""The diffusion target: the residual of the truth to its condition."""

from __future__ import annotations

from torch import Tensor

# Standard deviation of (truth - restored scan) inside the brain, on volumes scaled by their foreground's
# 99.5th percentile: 0.05 to 0.10 over contrasts for x4 pooling and 4 to 5 mm slices of 1 mm scans.
RESIDUAL_SCALE = 0.07


def to_residual(target: Tensor, condition: Tensor, scale: float = RESIDUAL_SCALE) -> Tensor:
    """Residual of about unit variance, of the shape of both volumes."""
    return (target - condition) / scale


def from_residual(residual: Tensor, condition: Tensor, scale: float = RESIDUAL_SCALE) -> Tensor:
    """The inverse of :func:`to_residual`."""
    return condition + scale * residual
