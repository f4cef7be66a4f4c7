"""Is this scan like those that the model was trained on? Warnings; what is no head is rejected."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_diffens.messages import InputRejected, say, warn
from monai_diffens.transforms.brain_mask import BRAIN_KEY, HEAD_KEY, on_voxels_of
from monai_diffens.transforms.scan_traits import BRIGHT_PERCENTILE, ScanTraits
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
        brain_key: mask (1, x, y, z), inside of which a head that is kept is measured; a case may lack it.
        force: warn of what is not a head, too.
        allow_missing_keys: skip absent keys.

    Raises:
        InputRejected: a scan shows no head, by its size and shape.
    """

    def __init__(
        self,
        keys: KeysCollection,
        percentile: float = BRIGHT_PERCENTILE,
        brain_key: str = BRAIN_KEY,
        force: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.brain_key, self.force = brain_key, force
        if percentile == BRIGHT_PERCENTILE:
            self.ranges = dict.fromkeys(self.keys, load_ranges()["any"])
        else:
            ranges = load_ranges(CONTRAST_REFERENCE)
            self.ranges = {key: ranges[str(key)] for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look at every key."""
        d, told = dict(data), set[str]()
        head = bool(d.pop(HEAD_KEY, False))
        for key in self.key_iterator(d):
            reference = self.ranges[key]
            mask = d.get(self.brain_key)
            brain = None if mask is None else on_voxels_of(mask, d[key]) > 0
            traits = ScanTraits.of(d[key], reference.scaled_by, brain)
            if reference.kind(traits, head) == "not_a_head":
                extent = " x ".join(f"{side:.0f}" for side in traits.extent)
                if not self.force:
                    case = str(d.get("case", "case"))
                    name = case if len(self.keys) == 1 else f"{case} ({key})"
                    raise InputRejected(say("not_a_head", name=name, extent=extent))
                warn(d, say("forced_no_head", extent=extent))
            for kind, line in reference.complaints(traits, head).items():
                if kind in told and kind != "unlike_intensities":
                    continue
                told.add(kind)
                warn(d, line if len(self.keys) == 1 else f"{key}: {line}")
        return d
