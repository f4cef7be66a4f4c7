"""Intensity scaling with an exact inverse."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_diffens.transforms.below_zero import OFFSET_KEY, add_offset

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
