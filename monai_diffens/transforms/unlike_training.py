"""Is this scan like those that the model was trained on? Warnings, never rejections."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_diffens.messages import warn
from monai_diffens.transforms.scan_traits import BRIGHT_PERCENTILE
from monai_diffens.transforms.training_range import CONTRAST_REFERENCE, load_ranges


class FlagUnlikeTrainingd(MapTransform):
    """Add warnings on what is unlike the training volumes to ``data["warnings"]``, and log them.

    Of several keys each is named in its warnings, and what is said of the first about size, orientation or
    voxels is not said again of the others: they lie on it.

    Args:
        keys: scans (1, X, Y, Z) on the grid that the network sees, in RAS order, MetaTensors with an affine
            in mm; they pass unchanged.
        percentile: that the model's scaling makes 1: 99.5, compared with all contrasts together, or 50,
            compared with the volumes of the key's own contrast.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        percentile: float = BRIGHT_PERCENTILE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if percentile == BRIGHT_PERCENTILE:
            self.ranges = dict.fromkeys(self.keys, load_ranges()["any"])
        else:
            ranges = load_ranges(CONTRAST_REFERENCE)
            self.ranges = {key: ranges[str(key)] for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look at every key."""
        d, told = dict(data), set[str]()
        for key in self.key_iterator(d):
            reference = self.ranges[key]
            for kind, line in reference.complaints(reference.measure(d[key])).items():
                if kind in told and kind != "unlike_intensities":
                    continue
                told.add(kind)
                warn(d, line if len(self.keys) == 1 else f"{key}: {line}")
        return d
