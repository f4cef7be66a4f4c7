"""A scan's values on their way to the network and back: repaired, without values below zero, scaled.

The networks know magnitude images, which have no values below zero; nothing is cut off for it. A normalised
scan (z-scores, minus one to one) is shifted for the network and its result shifted back. What interpolation
swung below zero is hidden from the network and put back into the result. Either way the scan is what the
network is shown plus an offset, and the result is what the network made plus the same offset, each voxel's
that of the slice it lies in: so the result agrees with the scan as it would without.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch
from torch import Tensor

from monai_diffens.contrasts import TARGET
from monai_diffens.messages import say, warn

SCALE_KEY = "intensity_scale"


def foreground_percentile(image: Tensor, percentile: float = 99.5) -> float:
    """Percentile of the voxels above zero; MR images are 0 where nothing was measured.

    Args:
        image: any shape, arbitrary units.
        percentile: 0 to 100.

    Raises:
        ValueError: when no voxel is above zero.
    """
    values = image[image > 0].flatten().float()
    if values.numel() == 0:
        raise ValueError("no voxel above zero: an MR magnitude image is expected")
    rank = max(1, round(values.numel() * percentile / 100))
    return float(torch.kthvalue(values, rank).values)


class ScaleForegroundPercentiled(MapTransform):
    """Divide each volume by a percentile of its own foreground, and remember the divisor.

    MR units are arbitrary, so every volume is brought to [0, about 1] by itself. The divisor is kept in
    ``meta["intensity_scale"]``; multiplying by it undoes the transform exactly
    (:class:`RestoreIntensityd`).

    Args:
        keys: volumes (C, X, Y, Z).
        percentile: of the foreground, 0 to 100.
        brain_key: mask (1, X, Y, Z) on the same voxels whose foreground alone counts, where a case has one:
            fat around the skull is brighter than any brain.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        percentile: float = 99.5,
        brain_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.percentile, self.brain_key = percentile, brain_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale every key."""
        d = dict(data)
        brain = None if self.brain_key is None else d.get(self.brain_key)
        for key in self.key_iterator(d):
            counted = d[key] if brain is None else d[key][torch.as_tensor(brain).as_subclass(Tensor) > 0]
            scale = foreground_percentile(counted, self.percentile)
            d[key] = d[key] / scale
            if isinstance(d[key], MetaTensor):
                d[key].meta[SCALE_KEY] = scale
        return d


class RestoreIntensityd(MapTransform):
    """Bring a prediction back to the units of its source; the inverse of :class:`ScaleForegroundPercentiled`.

    Where the scan has values below zero, the first key gets the offset back that the network was not shown.

    Args:
        keys: predictions (C, X, Y, Z).
        source_key: the volume whose ``meta`` holds the divisor.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self, keys: KeysCollection, source_key: str = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Multiply every key by the source's divisor."""
        d = dict(data)
        scale = float(d[self.source_key].meta[SCALE_KEY])
        for key in self.key_iterator(d):
            d[key] = d[key] * scale
            if OFFSET_KEY in d and key == self.keys[0]:
                d[key] = add_offset(d[key], d[OFFSET_KEY], d[self.source_key])
        return d


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


SAME_GRID_MM = 1e-2


class RepairScand(MapTransform):
    """Pick one volume of a 4D scan and fill voxels that are not finite, where the user asked for it.

    The input gate has looked at the file and told what is done here; nothing asked, nothing done. A scan with
    values below zero is shown to the network without them, see :mod:`~monai_diffens.transforms.intensity`,
    and it is told; the offset of the scan that gives the result its units is kept in the data.

    Args:
        keys: scans (C, X, Y, Z); C is 1 except in a 4D file.
        volume: channel to pick, counted from 0.
        fill_nan: take NaN and infinite voxels as 0, which is background.
        allow_missing_keys: skip absent keys.
        measured_key: of several, the scan that gives the result its units.
    """

    def __init__(
        self,
        keys: KeysCollection,
        volume: int | None = None,
        fill_nan: bool = False,
        allow_missing_keys: bool = False,
        measured_key: str = TARGET,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.volume, self.fill_nan = volume, fill_nan
        self.measured_key = measured_key if len(self.keys) > 1 else self.keys[0]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Repair every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if self.volume is not None and d[key].shape[0] > 1:
                d[key] = d[key][self.volume : self.volume + 1]
            if self.fill_nan:
                d[key] = torch.nan_to_num(d[key], nan=0.0, posinf=0.0, neginf=0.0)
            if (shown := shown_to_network(d[key])) is not None:
                told = "below_zero_shifted" if shown.shifted else "below_zero_hidden"
                percent = 100 * shown.below / d[key].numel()
                line = say(told, count=shown.below, percent=percent, lowest=shown.lowest)
                warn(d, line if len(self.keys) == 1 else f"{key}: {line}")
                d[key] = shown.volume
                if key == self.measured_key:
                    d[OFFSET_KEY] = shown.offset
        return d


def on_one_grid(one: MetaTensor, other: MetaTensor) -> bool:
    """Whether two volumes (C, X, Y, Z) have one shape and the same corners to 0.01 mm."""
    if one.shape[1:] != other.shape[1:]:
        return False
    apart = np.abs(np.asarray(one.affine, float) - np.asarray(other.affine, float))
    return bool((apart[:3] @ [*one.shape[1:], 1]).max() <= SAME_GRID_MM)
