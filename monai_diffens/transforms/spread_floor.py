"""A floor under the spread of samples, for the error that all samples share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_diffens.transforms.thick_slices import SAMPLING_KEY

SIDE = 5  # voxels, of the neighbourhood


def unseen_detail(result: Tensor, meta: Mapping[str, Any], unmeasured: int = 0) -> Tensor:
    """How much detail thick slices may have hidden at each voxel: local deviation times sqrt(thick axes).

    Samples of few passes agree with each other and err together, most where the image is busy, and more
    where more axes are thick: on the val subject the ratio of error to this is much the same in all settings.

    Args:
        result: (1, X, Y, Z), scaled.
        meta: of the scan on the same grid; records which axes are thick.
        unmeasured: number of thick axes where it records nothing: 0 for a scan that is fine along every axis,
            3 for a result whose contrast was not scanned.

    Returns:
        (1, X, Y, Z): standard deviation over 5 x 5 x 5 voxels, times the root of the number of thick axes.
    """
    thick_axes = unmeasured
    if SAMPLING_KEY in meta:
        sampling = np.asarray(meta[SAMPLING_KEY], dtype=float).reshape(3, -1)
        thick_axes = int((sampling[:, 0] > 0).sum())
    volume = result.as_subclass(Tensor).float().clamp(min=0)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool3d(values[None], SIDE, 1, SIDE // 2, count_include_pad=False)[0]

    variance = mean(volume.square()) - mean(volume).square()
    return variance.clamp(min=0).sqrt() * thick_axes**0.5


class FloorSpreadd(MapTransform):
    """Replace a spread s by sqrt(s^2 + (floor * :func:`unseen_detail`)^2).

    Args:
        keys: spreads (1, X, Y, Z), scaled as the result.
        result_key: the result (1, X, Y, Z).
        source_key: the scan on the same grid, whose ``meta`` tells which axes are thick.
        floor: factor, fitted by the bundle's command ``calibrate``; 0 leaves spreads as they are.
        unmeasured_floor: the same where the source's ``meta`` records no slices: nothing of the result was
            measured, along any axis.
        inside_only: no floor where no channel of the source is above 0, for models whose result is 0 there.
        allow_missing_keys: skip absent keys.

    Raises:
        ValueError: when a floor is negative.
    """

    def __init__(
        self,
        keys: KeysCollection,
        result_key: str = "pred",
        source_key: str = "image",
        floor: float = 0.0,
        unmeasured_floor: float = 0.0,
        inside_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if min(floor, unmeasured_floor) < 0:
            raise ValueError(f"spread_floor must be 0 or more, got {min(floor, unmeasured_floor)}")
        self.result_key, self.source_key = result_key, source_key
        self.floor, self.unmeasured_floor, self.inside_only = floor, unmeasured_floor, inside_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raise every key."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        meta = d[self.source_key].meta if keys else {}
        factor = self.floor if SAMPLING_KEY in meta else self.unmeasured_floor
        if keys and factor:
            floor = factor * unseen_detail(d[self.result_key], meta, unmeasured=3)
            if self.inside_only:
                floor = floor * (torch.as_tensor(d[self.source_key]).as_subclass(Tensor) > 0).any(dim=0)
            for key in keys:
                d[key] = torch.hypot(d[key], floor)
        return d
