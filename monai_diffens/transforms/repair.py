"""What a user may ask for a scan that is not ready: pick a volume, fill NaN."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_diffens.messages import say, warn
from monai_diffens.transforms.below_zero import OFFSET_KEY, shown_to_network

__all__ = ["RepairScand", "on_one_grid"]

SAME_GRID_MM = 1e-2


class RepairScand(MapTransform):
    """Pick one volume of a 4D scan and fill voxels that are not finite, where the user asked for it.

    The input gate has looked at the file and told what is done here; nothing asked, nothing done. A scan with
    values below zero is shown to the network without them, see :mod:`~monai_diffens.transforms.below_zero`,
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
        measured_key: str = "FLAIR",
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
