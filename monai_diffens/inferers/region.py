"""The part of a volume that is sampled: empty space costs nothing. And windows of it, on the patch grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.inferers import sliding_window_inference
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

from monai_diffens.acquisition.slicing import PATCH_GRID, pad_end
from monai_diffens.networks.slice_passes import slice_boxes

FOREGROUND = 1e-3  # scaled intensity above which a voxel is no background


def foreground_box(conditions: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Box of the voxels above zero.

    It begins at a multiple of ``PATCH_GRID``: pooled slices then lie in the experts' patches as they did in
    training, where every crop begins with a whole slice. Two voxels off, x4 pooling loses two thirds of what
    the experts explain of the residual (measured on the val subject).

    Args:
        conditions: (1, M, X, Y, Z), scaled.
        margin: voxels to keep around them.
    """
    start, stop = generate_spatial_bounding_box(
        conditions[0], select_fn=lambda x: x > FOREGROUND, margin=margin, allow_smaller=False
    )
    x, y, z = (
        slice(max(0, int(low)) // PATCH_GRID * PATCH_GRID, min(size, int(high)))
        for low, high, size in zip(start, stop, conditions.shape[2:], strict=True)
    )
    return x, y, z


def shown_boxes(conditions: Tensor, planes: Sequence[str]) -> list[list[list[int]]]:
    """For each plane, the boxes of what its slices show of any condition (B, M, X, Y, Z)."""
    seen = (conditions > FOREGROUND).any(dim=1, keepdim=True)
    return [slice_boxes(seen, plane) for plane in planes]


def on_patch_grid(
    volume: Tensor, network: Callable[[Tensor], Tensor], window: int, overlap: float = 0.5
) -> Tensor:
    """Run a 3D network in MONAI's sliding windows, each of which begins on the patch grid.

    MONAI pads a small volume on both sides and moves the last window back by any number of voxels, so the
    volume is padded at its end beforehand.

    Args:
        volume: (B, C, X, Y, Z), its first voxel on the grid.
        network: function of windows (B, C, w, w, w) to (B, n, w, w, w).
        window: their side in voxels, a multiple of ``PATCH_GRID``.
        overlap: of neighbouring windows; ``window`` times it is a multiple of ``PATCH_GRID`` too.

    Returns:
        (B, n, X, Y, Z).

    Raises:
        ValueError: when windows would leave the grid.
    """
    if window % PATCH_GRID or int(window * overlap) % PATCH_GRID:
        raise ValueError(f"window {window} with overlap {overlap} leaves the grid of {PATCH_GRID} voxels")
    shape = volume.shape[2:]
    padded = pad_end(volume, PATCH_GRID, window)
    result = sliding_window_inference(padded, window, 1, network, overlap, mode="gaussian")
    return torch.as_tensor(result)[..., : shape[0], : shape[1], : shape[2]]
