"""Intensities below zero: the networks know magnitude images, which have none; nothing is cut off for it.

A normalised scan (z-scores, minus one to one) is shifted for the network and its result shifted back. What
interpolation swung below zero is hidden from the network and put back into the result. Either way the scan
is what the network is shown plus an offset, and the result is what the network made plus the same offset,
each voxel's that of the slice it lies in: so the result agrees with the scan as it would without.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from torch import Tensor

__all__ = ["OFFSET_KEY", "Shown", "add_offset", "shown_to_network"]

OFFSET_KEY = "intensity_offset"  # in a case's data: what its scan is beside what the network is shown
SWING_SHARE = 0.02  # of the intensity above zero: what interpolation and noise leave below it
SWING_DEPTH = 0.25  # of the greatest value
FEWEST_ZEROS = 0.01  # of the voxels: with as many exact zeros a scan has a background of 0
LIFT = 1e-3  # of the range: the least brain voxel is shown so far above background


class Shown(NamedTuple):
    """A scan as the network is shown it.

    Attributes:
        volume: (1, X, Y, Z), nothing below 0.
        offset: (1, X, Y, Z); the scan is ``volume + offset``.
        below: number of voxels below zero.
        lowest: the least of them.
        shifted: whether the scan was shifted; else its swings below zero were hidden.
    """

    volume: MetaTensor
    offset: MetaTensor
    below: int
    lowest: float
    shifted: bool


def shown_to_network(scan: MetaTensor) -> Shown | None:
    """Take apart a scan with voxels below zero; None for one without.

    Where background is 0 and the brain's values lie around it, background stays 0 and the brain is lifted
    above it. Where background is the least value, or there is none, everything is lifted to it.

    Args:
        scan: (1, X, Y, Z).
    """
    values = scan.as_tensor()
    negative = values < 0
    below = int(negative.sum())
    if not below:
        return None
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):  # refused elsewhere
        return None
    depth = float(-values[negative].double().sum())
    swings = depth <= SWING_SHARE * float(values.double().clamp(min=0).sum()) and -low <= SWING_DEPTH * high
    zeros, lowest = int((values == 0).sum()), int((values == low).sum())
    if swings:
        volume = values.clamp(min=0)
    elif zeros >= FEWEST_ZEROS * values.numel() and zeros >= lowest:
        volume = torch.where(values == 0, values, values - low + LIFT * (high - low))
    else:
        volume = values - low
    return Shown(_like(scan, volume), _like(scan, values - volume), below, low, not swings)


def add_offset(result: MetaTensor, offset: MetaTensor, source: Tensor) -> MetaTensor:
    """The result in the scan's own values.

    Args:
        result: (1, X, Y, Z), in the units of what the network was shown, on any grid.
        offset: of :func:`shown_to_network`, on the scan's.
        source: (M, X, Y, Z), what the network was shown on its grid. Several contrasts are 0 outside of the
            brain, and so is their result, whatever the scan is there.
    """
    nearest = ResampleToMatch(mode="nearest", padding_mode="border")
    added = cast(MetaTensor, nearest(offset, result)).as_tensor()
    if source.shape[0] > 1:
        brain = (torch.as_tensor(source).as_subclass(Tensor) > 0).any(dim=0, keepdim=True).float()
        inside = cast(MetaTensor, nearest(_like(source, brain), result)).as_tensor()
        added = added * (inside > 0.5)
    return _like(result, result.as_tensor() + added.to(result.device))


def _like(source: Tensor, values: Tensor) -> MetaTensor:
    """Values with the place of another volume."""
    affine = source.affine if isinstance(source, MetaTensor) else None
    made = MetaTensor(values, affine=affine)
    if isinstance(source, MetaTensor):
        made.meta |= {key: value for key, value in source.meta.items() if key != "affine"}
    return made
