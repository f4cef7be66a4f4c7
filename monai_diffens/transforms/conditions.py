"""The contrasts of a head as conditions: chosen and varied for training, masked, stacked, swaps told."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_diffens.contrasts import ENHANCED, TARGET
from monai_diffens.messages import say, warn
from monai_diffens.transforms.augmentation import GROUP_KEY, PLANE_KEY, SHARP_PLANE_KEY
from monai_diffens.transforms.intensity import SCALE_KEY, foreground_percentile
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, measurement_from_meta

# What a restored thick-sliced scan is raised to inside the brain: its spline swings below zero at edges,
# and a voxel above zero is what tells brain from background.
LOWEST_IN_BRAIN = 1e-3
# how often a training is given each contrast, and the thick-sliced scan of the one it is to make
KEPT = (0.65, 0.3)
OUTPUT_MEDIAN = 1000.0  # of a result without a scan of its contrast: integers keep its detail


class RandPowerd(Randomizable, MapTransform):
    """Raise median-scaled volumes to a random power, each its own: another contrast, the same median.

    MONAI's RandAdjustContrast works between a volume's extremes and so moves its median, which is what
    tells the brightness of a translated volume.

    Args:
        keys: volumes that are 1 at the brain's median.
        exponents: smallest and largest exponent.
        prob: probability for each volume.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        exponents: tuple[float, float] = (0.7, 1.4),
        prob: float = 0.7,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.exponents = exponents
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if self.R.random() < self.prob:
                d[key] = d[key].clamp(min=0) ** self.R.uniform(*self.exponents)
        return d


class StackConditionsd(MapTransform):
    """Stack the contrasts a case has into the network's condition channels, 0 where it lacks one.

    Everything is masked to the brain: where ``brain_key`` is above zero if given (training), else where a
    finely sampled contrast is, else where the thick-sliced one was measured. A thick-sliced scan's sampling
    is recorded in ``meta`` for the consistency step. The intensity scale there is the thick-sliced scan's, so
    that a result is in its units; without one the brain's median becomes 1000.

    Args:
        keys: contrasts in the order of the network's conditions; a case may lack some.
        thick_key: the contrast that is sampled in thick slices.
        brain_key: volume that is zero outside of the brain, or None.
        name: where the stack (M, X, Y, Z) goes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        thick_key: str = TARGET,
        brain_key: str | None = None,
        name: str = "image",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.thick_key = thick_key
        self.brain_key = brain_key
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Stack, and drop the single contrasts."""
        d = dict(data)
        volumes = {key: d.pop(key) for key in self.keys if key in d}
        if not volumes:
            raise ValueError(f"a case needs one of {', '.join(map(str, self.keys))}")
        thick = volumes.get(self.thick_key)
        fine = [_plain(volume) for key, volume in volumes.items() if key != self.thick_key]
        if self.brain_key is not None:
            brain = _plain(d[self.brain_key]) > 0
        elif fine:
            brain = torch.stack([volume > 0 for volume in fine]).any(dim=0)
        else:
            alone = volumes[self.thick_key]
            everywhere = torch.ones(alone.shape, dtype=torch.bool)
            volumes[self.thick_key] = inside_brain(alone, everywhere, thick=True)
            brain = measured_brain(volumes[self.thick_key])
        channels = []
        for key in self.keys:
            if key in volumes:
                channels.append(inside_brain(volumes[key], brain, key == self.thick_key))
            else:
                channels.append(torch.zeros(brain.shape))
        reference = next(iter(data[key] for key in self.keys if key in volumes))
        meta = dict(reference.meta) if isinstance(reference, MetaTensor) else {}
        meta.pop(SAMPLING_KEY, None)
        meta[SCALE_KEY] = OUTPUT_MEDIAN
        if isinstance(thick, MetaTensor):
            meta |= {key: thick.meta[key] for key in (SAMPLING_KEY, SCALE_KEY) if key in thick.meta}
        d[self.name] = MetaTensor(torch.cat(channels).float(), meta=meta)
        return d


def inside_brain(volume: Tensor, brain: Tensor, thick: bool) -> Tensor:
    """(1, X, Y, Z) masked to the brain; a restored thick-sliced scan still agrees with its slices then."""
    if not thick:
        return _plain(volume).clamp(min=0) * brain
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    measurement = measurement_from_meta(volume.shape[1:], meta)
    if measurement is None:
        return _plain(volume).clamp(min=LOWEST_IN_BRAIN) * brain
    return measurement.restore_inside(_plain(volume).float(), brain, LOWEST_IN_BRAIN)


def measured_brain(scan: Tensor, level: float = 0.1, side: int = 5) -> Tensor:
    """(1, X, Y, Z) bool: the brain of a restored thick-sliced scan alone, dark ventricles included.

    Args:
        scan: (1, X, Y, Z), 1 at the brain's median.
        level: brightness that tells brain from the spline's swings around it.
        side: of the closing that fills what is dark inside, in voxels.
    """
    room = side // 2  # around the volume, whose border must not stop what is grown from shrinking back
    bright = F.pad((scan > level).float()[None], [room] * 6)
    grown = F.max_pool3d(bright, side, 1, room)
    closed = -F.max_pool3d(-grown, side, 1, room)
    return closed[0, :, room:-room, room:-room, room:-room] > 0.5


def _plain(volume: Tensor) -> Tensor:
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume


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
        kept: as of :func:`random_subset`.
    """

    def __init__(self, keys: KeysCollection, kept: tuple[float, float] = KEPT) -> None:
        super().__init__(keys)
        self.kept = kept

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw, and append M channels to every key."""
        d = dict(data)
        has, target = torch.as_tensor(d.pop(HAS_KEY)), int(d.pop(TARGET_KEY))
        kept = random_subset(has, target, self.R, self.kept)
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
    has: Tensor, target: int, random: np.random.RandomState, kept: tuple[float, float] = KEPT
) -> Tensor:
    """(M,) bool -> (M,) bool: some of the contrasts of a case, one at least.

    Args:
        has: the contrasts there are; that of the target is its thick-sliced scan.
        target: number of the contrast to make.
        random: source of chance.
        kept: probabilities of keeping each contrast, and the target's own thick-sliced scan.
    """
    odds = np.full(len(has), kept[0])
    odds[target] = kept[1]
    subset = torch.as_tensor(random.random_sample(len(has)) < odds) & has
    if not subset.any():
        choices = has.nonzero().flatten().tolist()
        subset[choices[random.randint(len(choices))]] = True
    return subset


def with_presence(image: Tensor, present: Tensor) -> Tensor:
    """Slices (M * (2 * reach + 1), H, W) of the contrasts present, and M channels that say so.

    Args:
        image: contrast by contrast.
        present: (M,) bool.
    """
    shown = image.unflatten(0, (len(present), -1)) * present[:, None, None, None]
    there = present.to(image.dtype)[:, None, None].expand(-1, *image.shape[1:])
    return torch.cat([shown.flatten(0, 1), there])


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
        if {"T1w", ENHANCED} <= set(tails) and tails["T1w"][1] > tails[ENHANCED][1]:
            seen = f"{tails['T1w'][1]:.2f} and {tails[ENHANCED][1]:.2f}"
            warn(d, say("swapped_agent", one="T1w", other=ENHANCED, seen=seen))
        return d
