"""Contrasts of one case, looked at for swapped names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_diffens.messages import say, warn
from monai_diffens.transforms.intensity import foreground_percentile

TAILS = (1.0, 99.9)  # percentiles of the brain


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
