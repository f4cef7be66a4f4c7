"""Volumes to slices of an anatomical plane and back: the only place that permutes axes.

Volumes are (B, C, X, Y, Z) in RAS order: X runs to the patient's right, Y to the front, Z to the head.
Slices of a plane are (B * N, C, H, W), N the number of slices, the slices of one volume side by side.
Patches of side s are (B, C * s^3, X / s, Y / s, Z / s): MONAI's pixelunshuffle, which does not script.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PLANES = ("axial", "coronal", "sagittal")
PATCH_GRID = 8  # voxels; a multiple of the experts' patch and of pooling by 2, 4 or 8


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


def in_plane_axes(plane: str) -> list[int]:
    """The two other spatial axes: those of a slice's rows and of its columns."""
    axis = plane_axis(plane)
    return [1 if axis == 0 else 0, 1 if axis == 2 else 2]


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


def gather_slices(volume: Tensor, plane: str, begin: int, end: int, reach: int = 0) -> Tensor:
    """Cut neighbouring slices of one volume, with those around the first and the last.

    Args:
        volume: (B, C, X, Y, Z).
        plane: one of ``PLANES``.
        begin: first slice, counted over the batch as :func:`to_slices` lays them out.
        end: one past the last, of the same volume.
        reach: further slices on each side; the volume's first and last are replicated.

    Returns:
        (end - begin + 2 * reach, C, H, W).
    """
    stack = volume.movedim(2 + plane_axis(plane), 1)  # (B, N, C, H, W)
    count = stack.shape[1]
    first = begin % count
    near = torch.arange(first - reach, first + end - begin + reach, device=volume.device)
    return stack[begin // count, near.clamp(0, count - 1)]


def put_slices(volume: Tensor, slices: Tensor, plane: str, begin: int) -> None:
    """Write slices (n, C, H, W) into (B, C, X, Y, Z) where :func:`to_slices` has them, from ``begin`` on."""
    stack = volume.movedim(2 + plane_axis(plane), 1)
    index = torch.arange(begin, begin + slices.shape[0], device=volume.device)
    batch = torch.div(index, stack.shape[1], rounding_mode="floor")
    stack[batch, index % stack.shape[1]] = slices.to(volume.dtype)


def to_slice_patches(slices: Tensor, side: int, divisor: int) -> Tensor:
    """Cut slices (N, C, H, W) into patches (N, C, H / side, W / side, side^2), padded with 0 at their ends.

    Args:
        slices: of any size.
        side: of a patch.
        divisor: divides the padded sides, a multiple of ``side``.
    """
    padded = F.pad(slices, (0, -slices.shape[3] % divisor, 0, -slices.shape[2] % divisor))
    return padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4).flatten(4)


def from_slice_patches(patches: Tensor, side: int) -> Tensor:
    """Put patches (N, H / side, W / side, side^2) back in place: (N, 1, H, W)."""
    return patches.unflatten(3, (side, side)).transpose(2, 3).flatten(3).flatten(1, 2).unsqueeze(1)


def to_patches(volume: Tensor, side: int) -> Tensor:
    """Move the voxels of each cube into channels: (B, C, X, Y, Z) -> (B, C * side^3, X / side, ...)."""
    cubes = volume.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def from_patches(patches: Tensor, side: int) -> Tensor:
    """Put the voxels of each cube back in place; the inverse of :func:`to_patches`."""
    cubes = patches.unflatten(1, (-1, side, side, side)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return cubes.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def pad_end(volume: Tensor, divisor: int, shortest: int = 0) -> Tensor:
    """Pad (B, C, X, Y, Z) with 0 behind its last voxels, so that patches begin where they did.

    MONAI's DivisiblePad takes one item, and no shortest side.

    Args:
        volume: (B, C, X, Y, Z).
        divisor: divides the sides of the result.
        shortest: lowest side of the result, a multiple of ``divisor``.
    """
    short = [max(shortest - size, -size % divisor) for size in reversed(volume.shape[2:])]
    return F.pad(volume, [each for size in short for each in (0, size)])
