"""Patches of a volume on a fixed grid, where there is something to see."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_corners(inside: Tensor, size: int, stride: int, min_share: float = 0.5) -> Tensor:
    """First voxels of the patches of a grid that lie inside.

    Args:
        inside: (X, Y, Z) bool.
        size: side of a patch, in voxels.
        stride: from one patch to the next, in voxels.
        min_share: smallest share of a patch's voxels that are inside.

    Returns:
        (N, 3) integers, in the order of the grid; N is 0 where no patch fits.
    """
    if min(inside.shape) < size:
        return torch.zeros(0, 3, dtype=torch.long)
    shares = torch.nn.functional.avg_pool3d(inside[None, None].float(), size, stride)[0, 0]
    return torch.nonzero(shares >= min_share) * stride


def spread_evenly(corners: Tensor, count: int) -> Tensor:
    """At most ``count`` of the corners (N, 3), evenly along their order."""
    if len(corners) <= count:
        return corners
    return corners[torch.linspace(0, len(corners) - 1, count).round().long()]


def cut_patches(volume: Tensor, corners: Tensor, size: int) -> Tensor:
    """Patches (N, 1, size, size, size) of a volume (X, Y, Z)."""
    return torch.stack(
        [volume[x : x + size, y : y + size, z : z + size] for x, y, z in corners.tolist()]
    ).unsqueeze(1)
