"""The part of a volume that is sampled: empty space costs nothing."""

from __future__ import annotations

from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

PATCH_GRID = 8  # voxels; a multiple of the experts' patch and of pooling by 2, 4 or 8
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
