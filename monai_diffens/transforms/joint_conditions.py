"""All contrasts of a head at once: any of them the target, any subset of them given."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_diffens.transforms.conditions import inside_brain
from monai_diffens.transforms.plane_slices import GROUP_KEY, PLANE_KEY, SHARP_PLANE_KEY
from monai_diffens.transforms.thick_slices import SAMPLING_KEY

TARGET_KEY = "target"  # number of the contrast to synthesise
HAS_KEY = "has"  # (M,) bool: the contrasts of a case
THICK_KEY = "thick"  # contrasts acquired in thick slices, see thick_planes
LOW_KEY = "low"  # the target as a thick-sliced scan of it shows it


class RandTargetd(Randomizable, MapTransform):
    """Choose the contrast to synthesise among those of a case: it becomes ``label``, and a condition ``low``.

    Every scan is a target, so a case of four contrasts teaches four translations.

    Args:
        keys: contrasts in the order of the network's conditions; a case may lack some.
        odds: how often each is chosen, relative to the others.
        thin_odds: factor on the odds of contrasts that were acquired in thin slices.
    """

    def __init__(self, keys: KeysCollection, odds: Sequence[float], thin_odds: float = 2.0) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if len(odds) != len(self.keys):
            raise ValueError(f"{len(self.keys)} odds are needed, got {len(odds)}")
        self.odds = tuple(odds)
        self.thin_odds = thin_odds

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Choose; a target acquired in thick slices names the plane it is sharp in."""
        d = dict(data)
        thick = thick_planes(d.get(THICK_KEY, ""))
        odds = [
            0.0 if key not in d else odd * (1.0 if key in thick else self.thin_odds)
            for key, odd in zip(self.keys, self.odds, strict=True)
        ]
        number = int(self.R.choice(len(odds), p=np.asarray(odds) / sum(odds)))
        target = d.pop(self.keys[number])
        d["label"], d[LOW_KEY], d[TARGET_KEY] = target, target, number
        if self.keys[number] in thick:
            d[SHARP_PLANE_KEY] = thick[str(self.keys[number])]
        return d


class StackContrastsd(MapTransform):
    """Stack the contrasts of a case, the target's thick-sliced scan in its place, masked to the brain.

    Args:
        keys: contrasts in the order of the network's conditions; absent ones are 0.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give ``image`` (M, X, Y, Z) and ``has`` (M,); the brain is where ``label`` is above zero.

        ``image.meta`` records how the target's scan was sliced, for data consistency.
        """
        d = dict(data)
        d["label"] = torch.as_tensor(d["label"]).float().clamp(min=0)
        brain = d["label"] > 0
        scan = d.pop(LOW_KEY)
        low = inside_brain(scan, brain, thick=True)
        meta = scan.meta if isinstance(scan, MetaTensor) else {}
        channels, has = [], []
        for number, key in enumerate(self.keys):
            there = key in d or number == d[TARGET_KEY]
            volume = d.pop(key, None)
            if number == d[TARGET_KEY]:
                channels.append(low)
            elif volume is not None:
                channels.append(inside_brain(volume, brain, thick=False))
            else:
                channels.append(torch.zeros(brain.shape))
            has.append(there)
        sampling = {key: meta[key] for key in (SAMPLING_KEY,) if key in meta}
        d["image"] = MetaTensor(torch.cat(channels).float(), meta=sampling)
        d[HAS_KEY] = torch.tensor(has)
        return d


class RandPresenced(Randomizable, MapTransform):
    """Drop contrasts of a crop at random, and say in channels of their own which are left.

    Also sets ``group``, the class label of the target: its number, and M more where a slice cuts across the
    thick slices that the target was acquired in. So these teach too, and a sampler asks for sharp ones.

    Args:
        keys: crops (M * (2 * reach + 1), S, S), contrast by contrast.
        keep: probability of keeping each contrast.
        keep_low: probability of keeping the target's own thick-sliced scan.
    """

    def __init__(self, keys: KeysCollection, keep: float = 0.65, keep_low: float = 0.3) -> None:
        super().__init__(keys)
        self.keep = keep
        self.keep_low = keep_low

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw, and append M channels to every key."""
        d = dict(data)
        has, target = torch.as_tensor(d.pop(HAS_KEY)), int(d.pop(TARGET_KEY))
        kept = random_subset(has, target, self.R, self.keep, self.keep_low)
        for key in self.key_iterator(d):
            d[key] = with_presence(d[key], kept)
        sharp = d.pop(SHARP_PLANE_KEY, None)
        d[GROUP_KEY] = target + (len(has) if sharp not in (None, d.pop(PLANE_KEY)) else 0)
        return {key: d[key] for key in (*self.keys, "label", GROUP_KEY)}


def thick_planes(text: str) -> dict[str, str]:
    """Contrasts that were acquired in thick slices, with the plane these lie in.

    Args:
        text: names with blanks between, "T2w FLAIR=sagittal": axial where no plane is named.
    """
    parts = (part.partition("=") for part in text.split())
    return {name: plane or "axial" for name, _, plane in parts}


def random_subset(
    has: Tensor, target: int, random: np.random.RandomState, keep: float, keep_low: float
) -> Tensor:
    """(M,) bool -> (M,) bool: some of the contrasts of a case, one at least.

    Args:
        has: the contrasts there are; that of the target is its thick-sliced scan.
        target: number of the contrast to make.
        random: source of chance.
        keep: probability of keeping each contrast.
        keep_low: probability of keeping the target's thick-sliced scan.
    """
    odds = np.full(len(has), keep)
    odds[target] = keep_low
    kept = torch.as_tensor(random.random_sample(len(has)) < odds) & has
    if not kept.any():
        choices = has.nonzero().flatten().tolist()
        kept[choices[random.randint(len(choices))]] = True
    return kept


def with_presence(image: Tensor, present: Tensor) -> Tensor:
    """Slices (M * (2 * reach + 1), H, W) of the contrasts present, and M channels that say so.

    Args:
        image: contrast by contrast.
        present: (M,) bool.
    """
    shown = image.unflatten(0, (len(present), -1)) * present[:, None, None, None]
    there = present.to(image.dtype)[:, None, None].expand(-1, *image.shape[1:])
    return torch.cat([shown.flatten(0, 1), there])
