"""How a 3D network behind a patch stem sees its condition: amplified detail, beside the patch mean."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_diffens.acquisition.slicing import to_patches


def detail_patches(condition: Tensor, side: int, gain: float) -> Tensor:
    """Patches of a condition as the 2D experts see those of a slice, see :class:`PlaneDenoiser`.

    The residual depends on detail of a few per cent of the condition's range; amplified against the mean of
    its patch it is learned many times sooner.

    Args:
        condition: (B, 1, X, Y, Z), sizes that ``side`` divides.
        side: of a patch, in voxels.
        gain: amplification of the detail.

    Returns:
        (B, side^3 + 1, X / side, Y / side, Z / side), the mean last.
    """
    patches = to_patches(condition, side)
    mean = patches.mean(dim=1, keepdim=True)
    return torch.cat([(patches - mean) * gain, 2 * mean - 1], dim=1)
