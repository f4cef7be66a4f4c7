"""Contrasts of one case brought onto each other, and looked at for swapped names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch
from torch import Tensor

from monai_diffens.messages import say, warn
from monai_diffens.transforms.input_gate import InputRejected
from monai_diffens.transforms.intensity import SCALE_KEY, foreground_percentile
from monai_diffens.transforms.repair import on_one_grid
from monai_diffens.transforms.thick_slices import SAMPLING_KEY

SMALLEST_OVERLAP = 0.5  # of the brains, over the smaller one
TAILS = (1.0, 99.9)  # percentiles of the brain


class MatchContrastsd(MapTransform):
    """Resample the contrasts of a case to one grid (trilinear), and tell so.

    The grid is that of the scan which the result has to agree with, if the case has it in thick slices:
    resampled, its slices would no longer be whole rows of the grid. Else it is that of the first contrast.

    Args:
        keys: contrasts (1, X, Y, Z), MetaTensors in RAS order; a case may lack some.
        measured_key: the contrast that the result agrees with where it is thick-sliced.

    Raises:
        InputRejected: where the brains share less than half of the smaller one.
    """

    def __init__(self, keys: KeysCollection, measured_key: str = "FLAIR") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.measured_key = measured_key
        self.resample = ResampleToMatch(mode="bilinear", padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Match every key to the one that gives the grid."""
        d = dict(data)
        names = [str(key) for key in self.key_iterator(d)]
        thick = self.measured_key in names and SAMPLING_KEY in d[self.measured_key].meta
        giver = self.measured_key if thick else names[0]
        first = d[giver]
        for name in names:
            if name == giver:
                continue
            if not on_one_grid(first, d[name]):
                moved = cast(MetaTensor, self.resample(d[name], first))
                # MONAI gives the moved volume the first one's facts
                moved.meta.pop(SAMPLING_KEY, None)
                moved.meta |= {key: d[name].meta[key] for key in (SCALE_KEY,) if key in d[name].meta}
                warn(d, say("resampled", contrast=name, first=giver))
                d[name] = moved
            overlap = brain_overlap(first, d[name])
            if overlap < SMALLEST_OVERLAP:
                seen = {"one": giver, "other": name, "percent": 100 * overlap}
                raise InputRejected(say("no_overlap", name=str(d.get("case", "case")), **seen))
        return d


def brain_overlap(one: Tensor, other: Tensor) -> float:
    """Voxels above zero that two volumes share, over those of the smaller: 0 to 1."""
    inside = [
        (volume.as_tensor() if isinstance(volume, MetaTensor) else volume) > 0 for volume in (one, other)
    ]
    smaller = min(int(each.sum()) for each in inside)
    return float((inside[0] & inside[1]).sum()) / max(smaller, 1)


class WarnSwappedd(MapTransform):
    """Warn where two contrasts look as if their names were swapped.

    Fluid is what is brightest in T2w and darkest elsewhere: of a case's contrasts, T2w has the longest upper
    tail beside its lower one. Contrast agent adds bright vessels to a T1w and takes nothing away. Neither is
    sure, so this is a warning. Measured on the 13 subjects of ``train`` and ``val``: under their right names
    2 are warned of all the same (one FLAIR, one T1w without much agent in the other); of T1w and T2w, FLAIR
    and T2w, T1w and contrast-enhanced T1w, swapped in each subject, 37 of 39 are told. Other swaps, such as
    T1w and FLAIR, are not looked for.

    Args:
        keys: contrasts (1, X, Y, Z), 1 at the brain's median; a case may lack some.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look at the keys; they are not changed."""
        d = dict(data)
        tails = {
            str(key): tuple(foreground_percentile(torch.as_tensor(d[key]), level) for level in TAILS)
            for key in self.key_iterator(d)
        }
        upper_to_lower = {name: (high - 1) / max(1 - low, 1e-3) for name, (low, high) in tails.items()}
        for name in ("T1w", "FLAIR"):
            if {name, "T2w"} <= set(tails) and upper_to_lower[name] > upper_to_lower["T2w"]:
                seen = f"{upper_to_lower[name]:.2f} and {upper_to_lower['T2w']:.2f}"
                warn(d, say("swapped_fluid", one=name, other="T2w", seen=seen))
        enhanced = "ce-gadolinium_T1w"
        if {"T1w", enhanced} <= set(tails) and tails["T1w"][1] > tails[enhanced][1]:
            seen = f"{tails['T1w'][1]:.2f} and {tails[enhanced][1]:.2f}"
            warn(d, say("swapped_agent", one="T1w", other=enhanced, seen=seen))
        return d
