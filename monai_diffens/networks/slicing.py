"""Volumes to slices of an anatomical plane and back: the only place that permutes axes.

Volumes are (B, C, X, Y, Z) in RAS order: X runs to the patient's right, Y to the front, Z to the head.
Slices of a plane are (B * N, C, H, W), N the number of slices, the slices of one volume side by side.
Patches of side s are (B, C * s^3, X / s, Y / s, Z / s): MONAI's pixelunshuffle, which does not script.
"""

from __future__ import annotations

import torch
from torch import Tensor

PLANES = ("axial", "coronal", "sagittal")


def plane_axis(plane: str) -> int:
    """Return the spatial axis (0, 1 or 2) along which the slices of ``plane`` are stacked.

    Raises:
        ValueError: when ``plane`` is not one of ``PLANES``.
    """
    if plane == "sagittal":
        return 0
    if plane == "coronal":
        return 1
    if plane == "axial":
        return 2
    raise ValueError(f"unknown plane '{plane}': use axial, coronal or sagittal")


def to_slices(volume: Tensor, plane: str) -> Tensor:
    """Cut (B, C, X, Y, Z) into the plane's slices (B * N, C, H, W)."""
    return volume.movedim(2 + plane_axis(plane), 1).flatten(0, 1)


def to_volume(slices: Tensor, plane: str, batch_size: int) -> Tensor:
    """Stack slices (B * N, C, H, W) back into (B, C, X, Y, Z); the inverse of :func:`to_slices`."""
    return slices.unflatten(0, (batch_size, -1)).movedim(1, 2 + plane_axis(plane))


def neighbour_slices(volume: Tensor, plane: str, reach: int) -> Tensor:
    """Cut a volume into slices that each carry their neighbours as channels (2.5D).

    Args:
        volume: (B, C, X, Y, Z).
        plane: one of ``PLANES``.
        reach: neighbours on each side; edge slices are replicated.

    Returns:
        (B * N, C * (2 * reach + 1), H, W); for each channel its slices from -reach to +reach.
    """
    stack = volume.movedim(2 + plane_axis(plane), 1)  # (B, N, C, H, W)
    count = stack.shape[1]
    centre = torch.arange(count, device=volume.device).unsqueeze(1)
    offset = torch.arange(-reach, reach + 1, device=volume.device).unsqueeze(0)
    index = (centre + offset).clamp(0, count - 1)  # (N, 2 * reach + 1)
    windows = stack[:, index]  # (B, N, 2 * reach + 1, C, H, W)
    return windows.transpose(2, 3).flatten(2, 3).flatten(0, 1)


def to_patches(volume: Tensor, side: int) -> Tensor:
    """Move the voxels of each cube into channels: (B, C, X, Y, Z) -> (B, C * side^3, X / side, ...)."""
    cubes = volume.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def from_patches(patches: Tensor, side: int) -> Tensor:
    """Put the voxels of each cube back in place; the inverse of :func:`to_patches`."""
    cubes = patches.unflatten(1, (-1, side, side, side)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return cubes.flatten(6, 7).flatten(4, 5).flatten(2, 3)
