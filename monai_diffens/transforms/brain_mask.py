"""The brain of a head: recognised where it was stripped already, found by a network, or given by the user.

deepbet (extra ``skull``) finds it: a T1w network that also takes T2w and FLAIR, 4 seconds and 1.2 GB on one
core. Its answer is checked by its volume, since it gives a mask of anything.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch
from numpy.typing import NDArray

from monai_diffens.data.load_scan import LoadScand
from monai_diffens.files import installed
from monai_diffens.messages import InputRejected, say, warn
from monai_diffens.transforms.intensity import OFFSET_KEY, on_one_grid
from monai_diffens.transforms.nifti_file import CHECKED
from monai_diffens.transforms.registration import Scan

SKULL = ("auto", "keep", "strip", "given")
VOLUME = (900.0, 2200.0)  # cm3, of a whole brain
ZEROS = 0.15  # share of voxels that are exactly 0 in a stripped volume; a box around a brain has half
WIDEST = (168.0, 206.0)  # mm from right to left and front to back, of a brain; heads are wider
CUT_SHARE = 0.01  # of the mask's voxels on the border of the volume, from which on the brain is cut off
SHORT_FIELD = 160.0  # mm, of a volume that may cut a brain off
BRAIN_KEY = "brain"
FACTS_KEY = "brain_facts"
HEAD_KEY = "head_shown"  # True where a head is kept whose brain is not known


class BrainFinderMissing(ImportError):
    """The extra ``skull`` is not installed."""


class BrainNotFound(ValueError):
    """What was found cannot be a brain.

    Attributes:
        volume: of it, in cm3.
    """

    def __init__(self, volume: float) -> None:
        super().__init__(volume)
        self.volume = volume


@dataclass(frozen=True, eq=False)
class Found:
    """A brain mask and what is told of it.

    Attributes:
        mask: bool, (X, Y, Z).
        volume: cm3.
        cut: whether the brain reaches the border of the volume, so that only a part of it is shown.
    """

    mask: NDArray[np.bool_]
    volume: float
    cut: bool


def is_stripped(scan: Scan) -> bool:
    """Whether a scan shows a brain alone: 0 around it, exactly, and no larger than a brain.

    The air around a head is noise; where a scanner or a defacing program sets it to 0, what is left is a
    head, which is larger.
    """
    shown = scan.values != 0
    if shown.all() or 1 - shown.mean() < ZEROS:
        return False
    if cubic_centimetres(shown, scan) > VOLUME[1]:
        return False
    to_ras = nib.orientations.io_orientation(scan.affine)[:, 0].astype(int)
    for axis, side in enumerate(scan.spacing):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(shown.any(axis=others))
        extent = (places[-1] - places[0] + 1) * side if places.size else 0.0
        if to_ras[axis] < 2 and extent > WIDEST[to_ras[axis]]:
            return False
    return True


def find_brain(scan: Scan) -> Found:
    """Find the brain in a head.

    Args:
        scan: a head with or without its skull, any MR contrast.

    Raises:
        BrainNotFound: what was found has no brain's volume, and is not cut off either.
        BrainFinderMissing: the extra ``skull`` is not installed.
    """
    if not installed("deepbet"):
        raise BrainFinderMissing("deepbet")
    from deepbet import BrainExtraction

    image = nib.Nifti1Image(np.asarray(scan.values, dtype=np.float32), scan.affine)
    try:
        # on the CPU on every machine, so that its mask is the same
        mask = np.asarray(BrainExtraction(no_gpu=True).run(image)[1].dataobj) > 0
    except (AssertionError, ValueError) as error:  # "not enough foreground"; argmax of nothing
        raise BrainNotFound(0.0) from error
    volume, cut = cubic_centimetres(mask, scan), is_cut(mask, scan.spacing)
    if volume > VOLUME[1] or (volume < VOLUME[0] and not cut) or not mask.any():
        raise BrainNotFound(volume)
    return Found(mask, volume, cut)


def cubic_centimetres(mask: NDArray[np.bool_], scan: Scan) -> float:
    """Volume of a mask on a scan's voxels."""
    return float(mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000)


def is_cut(mask: NDArray[np.bool_], spacing: NDArray[np.floating]) -> bool:
    """Whether a mask reaches the end of its volume along an axis that is too short for a head.

    Args:
        mask: bool, (X, Y, Z).
        spacing: (3,) in mm.
    """
    for axis, size in enumerate(mask.shape):
        ends = int(np.take(mask, [0, size - 1], axis=axis).sum())
        if size * spacing[axis] < SHORT_FIELD and ends > CUT_SHARE * max(int(mask.sum()), 1):
            return True
    return False


class BrainMaskd(MapTransform):
    """Find the brain of each scan, and take the rest away or keep it.

    A mask given by the user is taken before any other. A stripped scan passes as it is, and so does one whose
    field of view holds less than a brain: nothing of it can be a head. Of anything else the brain is found.

    Where the head is kept, ``data["brain"]`` is the mask (1, X, Y, Z) on the scan's voxels: what comes later
    measures inside of it; ``data["head_shown"]`` is True where it is kept without a mask.
    ``data["brain_facts"]`` tells where masks came from, and their volume.

    Args:
        keys: scans (1, X, Y, Z), MetaTensors with an affine in mm; with ``keeps_head`` one key.
        skull: "auto"; "keep" looks for no brain and takes nothing away; "strip" takes the head away;
            "given" is "auto" that accepts a given mask alone.
        keeps_head: what "auto" does with the head: keeps it, or takes it away.
        mask_key: path of a NIfTI file whose voxels above 0 are the brain; the key is removed.
        allow_missing_keys: skip absent keys.

    Raises:
        InputRejected: no mask is given with "given"; the brain cannot be found; without the extra ``skull``
            where the head has to go.
        ValueError: ``skull`` is no choice, or several heads would be kept.
    """

    def __init__(
        self,
        keys: KeysCollection,
        skull: str = "auto",
        keeps_head: bool = False,
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if skull not in SKULL:
            raise ValueError(f"unknown skull '{skull}': use one of {', '.join(SKULL)}")
        if keeps_head and len(self.keys) > 1:
            raise ValueError(f"one head can be kept, got {len(self.keys)} keys")
        self.skull, self.mask_key, self.several = skull, mask_key, len(self.keys) > 1
        self.strips = skull == "strip" or (skull != "keep" and not keeps_head)
        self.load = LoadScand(mask_key)
        self.resample = ResampleToMatch(mode="nearest", padding_mode="zeros")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look for the brain of every key."""
        d = dict(data)
        path = d.pop(self.mask_key, None)
        given = None
        if path is not None:
            given = self.load({self.mask_key: path, CHECKED: d.get(CHECKED)})[self.mask_key]
        if given is None and self.skull == "given":
            raise InputRejected(say("mask_needed", name=self.name(d)))
        facts: dict[str, dict[str, float | str]] = {}
        for key in self.key_iterator(d):
            where, told = self.brain(d, key, given)
            if where is None:
                continue
            facts[str(key)] = told
            if self.strips:
                d[key] = d[key] * where
                if OFFSET_KEY in d and d[OFFSET_KEY].shape == d[key].shape:
                    d[OFFSET_KEY] = d[OFFSET_KEY] * where
            elif not self.several:
                mask = MetaTensor(where.float(), meta={})
                mask.affine = d[key].affine
                d[BRAIN_KEY] = mask
        if facts:
            d[FACTS_KEY] = facts
        return d

    def brain(
        self, d: dict[Hashable, Any], key: Hashable, given: MetaTensor | None
    ) -> tuple[torch.Tensor | None, dict[str, float | str]]:
        """Mask (1, X, Y, Z) bool of one scan, or None, and the facts on it."""
        scan = Scan(d[key].as_tensor()[0].float().cpu().numpy(), np.asarray(d[key].affine, dtype=float))
        if given is not None:
            where = self.given(d, key, given)
            if where is None:
                return None, {}
            volume = cubic_centimetres(where[0].cpu().numpy(), scan)
            return where, {"From": "given", "VolumeCm3": round(volume, 1)}
        if is_stripped(scan):
            return None, {}
        if self.skull == "keep":
            if self.several:
                warn(d, self.told(key, "head_kept"))
            d[HEAD_KEY] = True
            return None, {}
        if cubic_centimetres(np.ones(scan.values.shape, dtype=bool), scan) < VOLUME[0]:
            return None, {}
        return self.found(d, key, scan)

    def found(
        self, d: dict[Hashable, Any], key: Hashable, scan: Scan
    ) -> tuple[torch.Tensor | None, dict[str, float | str]]:
        """What the network finds, as :meth:`brain` returns it."""
        try:
            found = find_brain(scan)
        except BrainFinderMissing as missing:
            if self.strips:
                raise InputRejected(say("no_deepbet", name=self.name(d), which=str(key))) from missing
            warn(d, self.told(key, "no_deepbet_kept"))
            d[HEAD_KEY] = True
            return None, {}
        except BrainNotFound as nothing:
            low, high = VOLUME
            seen = {"which": str(key), "volume": nothing.volume, "low": low, "high": high}
            raise InputRejected(say("no_brain", name=self.name(d), **seen)) from nothing
        if found.cut and found.volume < VOLUME[0]:
            warn(d, self.told(key, "brain_cut", volume=found.volume))
        facts: dict[str, float | str] = {"From": f"deepbet {version('deepbet')}"}
        return torch.from_numpy(found.mask)[None], facts | {"VolumeCm3": round(found.volume, 1)}

    def given(self, d: dict[Hashable, Any], key: Hashable, given: MetaTensor) -> torch.Tensor | None:
        """The user's mask on a scan's voxels (nearest neighbour); None where it holds nothing of the scan."""
        mask = given
        if not on_one_grid(mask, d[key]):
            mask = cast(MetaTensor, self.resample(mask, d[key]))
            warn(d, self.told(key, "mask_resampled"))
        where = mask.as_tensor() > 0
        if not bool((where & (d[key].as_tensor() > 0)).any()):
            warn(d, self.told(key, "mask_empty"))
            return None
        return where

    def told(self, key: Hashable, message: str, **seen: float) -> str:
        """A message, of several scans with the name of the one it is about."""
        return f"{key}: {say(message, **seen)}" if self.several else say(message, **seen)

    def name(self, d: Mapping[Hashable, Any]) -> str:
        """What messages call the case."""
        return str(d.get("case", "case"))


class PlaceBrainMaskd(MapTransform):
    """Bring the brain mask to the result's voxels, to be written and shown; without a mask nothing is done.

    Args:
        keys: the result (1, X, Y, Z), a MetaTensor.
        conditions_key: where heads were stripped, the conditions (M, X, Y, Z) on the result's voxels or
            others: their brain is where any is above 0.
    """

    def __init__(self, keys: KeysCollection = "pred", conditions_key: str = "image") -> None:
        super().__init__(keys)
        self.conditions_key = conditions_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Place the mask of the last key's result at ``data["brain"]``."""
        d = dict(data)
        if FACTS_KEY not in d:
            return d
        for key in self.key_iterator(d):
            mask = d.get(BRAIN_KEY)
            if mask is None:
                conditions = d[self.conditions_key]
                mask = MetaTensor((conditions.as_tensor() > 0).any(dim=0, keepdim=True).float(), meta={})
                mask.affine = conditions.affine
            d[BRAIN_KEY] = on_voxels_of(mask, d[key])
        return d


def on_voxels_of(mask: MetaTensor, volume: MetaTensor) -> MetaTensor:
    """A mask (1, x, y, z) on the voxels of a volume (1, X, Y, Z): 1 where half of one or more is inside."""
    source = Scan(mask.as_tensor()[0].float().cpu().numpy(), np.asarray(mask.affine, dtype=float))
    shape = tuple(volume.shape[1:])
    values = source.on(np.asarray(volume.affine, dtype=float), shape, mode="nearest") >= 0.5
    meta = {k: volume.meta[k] for k in ("filename_or_obj", "sform_code", "qform_code") if k in volume.meta}
    placed = MetaTensor(torch.from_numpy(values)[None].float(), meta=meta)
    placed.affine = volume.affine
    return placed
