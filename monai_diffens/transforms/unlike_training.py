"""Is this scan like those that the model was trained on? Warnings; what is no head is rejected.

Four things are compared with the training volumes: intensities, size of the brain, voxel size, and which way
the head lies. The references are files beside this one, ranges and averages of a few numbers written by
``python -m research.training_range``; no part of any scan is in them. ``training_range.json`` is of
all contrasts together, ``training_range_contrasts.json`` of each by itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.messages import InputRejected, say, warn
from monai_diffens.transforms.brain_mask import BRAIN_KEY, HEAD_KEY, on_voxels_of
from monai_diffens.transforms.intensity import foreground_percentile

PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
BRIGHT_PERCENTILE = 99.5  # of the voxels above zero
FOREGROUND = 0.02  # of that value: what is darker is background, for the shape
AIR = 0.005  # of that value: what is darker is 0 with the ripples of interpolation
SHORTEST_FIELD = 90.0  # mm, of a volume that may hold a brain
STRIDE = 2  # of voxels, for the shape


@dataclass(frozen=True)
class ScanTraits:
    """What is compared: a few numbers of one scan.

    Attributes:
        intensities: (7,) percentiles of what is not 0, over the percentile that the model's scaling makes 1.
        extent: (3,) of the foreground, right-left, front-back and head-foot, mm.
        spacing: (3,) of the voxels along the same axes, mm.
        covariance: (3, 3) of foreground positions in mm, scaled to a trace of 3.
        skewness: (3, 3, 3) third central moments of the same positions.
        cut: (3,) bool: whether the foreground reaches the end of the volume along each axis, or the volume is
            shorter than any brain there.
    """

    intensities: NDArray[np.floating]
    extent: NDArray[np.floating]
    spacing: NDArray[np.floating]
    covariance: NDArray[np.floating]
    skewness: NDArray[np.floating]
    cut: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, dtype=bool))

    @classmethod
    def of(
        cls, scan: MetaTensor, scaled_by: float = BRIGHT_PERCENTILE, brain: Tensor | None = None
    ) -> ScanTraits:
        """Measure a scan.

        Args:
            scan: (1, X, Y, Z) in RAS order with an affine in mm.
            scaled_by: percentile of the voxels above zero that the model's scaling makes 1.
            brain: bool, of the scan's shape: what is measured, of a head with its skull; all when None.
        """
        values = scan.as_tensor()[0].float().cpu()
        if brain is not None:
            values = values * brain.as_subclass(Tensor)[0].cpu()
        bright = foreground_percentile(values, BRIGHT_PERCENTILE)
        volume = values.numpy() / bright
        foreground = volume > FOREGROUND
        spacing = nib.affines.voxel_sizes(np.asarray(scan.affine, dtype=float))
        sides = [
            np.flatnonzero(foreground.any(axis=tuple(other for other in range(3) if other != axis)))
            for axis in range(3)
        ]
        extent = np.array([side[-1] - side[0] + 1 for side in sides]) * spacing
        places = np.argwhere(foreground[::STRIDE, ::STRIDE, ::STRIDE]) * spacing
        places = places - places.mean(axis=0)
        places /= max(np.sqrt(np.square(places).sum(axis=1).mean() / 3), 1e-6)
        covariance = places.T @ places / len(places)
        skewness = np.einsum("ni,nj,nk->ijk", places, places, places, optimize=True) / len(places)
        seen = volume[volume > AIR]
        # not of all voxels above zero: the ripples of a restored scan would draw its median down
        unit = 1.0 if scaled_by == BRIGHT_PERCENTILE else np.percentile(seen, scaled_by)
        intensities = np.percentile(seen, PERCENTILES) / unit
        cut = np.array(
            [
                side[0] == 0 or side[-1] == size - 1 or size * step < SHORTEST_FIELD
                for side, size, step in zip(sides, volume.shape, spacing, strict=True)
            ]
        )
        return cls(intensities, extent, spacing, covariance, skewness, cut)


MEDIAN = 50.0
REFERENCE = Path(__file__).with_name("training_range.json")
CONTRAST_REFERENCE = Path(__file__).with_name("training_range_contrasts.json")
# Of the range's ends, by hand: a dozen brains do not tell how large brains are (the ICBM 152 template is 8 %
# larger, a training site left out 6 %); what is cut off or has its skull is farther outside.
SIZE_MARGIN = 0.15
SPACING_MARGIN = 0.25  # training volumes have one spacing, so that none tells how far another may be off
# Of heads with their skull, right-left, front-back and head-foot in mm: by hand, with room for ears and neck.
HEAD_EXTENT = (200.0, 270.0, 400.0)
# Distance of a whole brain from the average shape: 0.10 to 0.33 in training; balls, boxes, cylinders and
# noise of a brain's size 0.55 to 0.66.
FARTHEST_SHAPE = 0.45
SMALLEST_SHARE = 0.6  # of the lower end of the size, for what is neither a brain nor cut off by the volume
TURN_FACTOR = 1.5  # another orientation must fit this much better before it is told

# every order and direction of three axes
TURNS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
MIRROR = np.array([-1.0, 1, 1])  # heads look alike from both sides: left and right cannot be told


@dataclass(frozen=True)
class TrainingRange:
    """Lowest, highest and average traits of the training volumes; fields as of :class:`ScanTraits`.

    Intensities may lie outside by ``intensity_margin``, in units of what is 1 in them; see
    ``research.training_range``.
    """

    volumes: int
    scaled_by: float
    intensities: tuple[NDArray[np.floating], NDArray[np.floating]]
    extent: tuple[NDArray[np.floating], NDArray[np.floating]]
    spacing: tuple[NDArray[np.floating], NDArray[np.floating]]
    covariance: NDArray[np.floating]
    skewness: NDArray[np.floating]
    intensity_margin: float = 0.0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrainingRange:
        """A range of a reference file."""

        def ends(name: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            low, high = plain[name]
            return np.array(low), np.array(high)

        return cls(
            plain["volumes"],
            plain["scaled_by"],
            ends("intensities"),
            ends("extent"),
            ends("spacing"),
            np.array(plain["covariance"]),
            np.array(plain["skewness"]),
            plain["intensity_margin"],
        )

    def measure(self, scan: Any) -> ScanTraits:
        """Traits of a scan (1, X, Y, Z), to be compared with this range."""
        return ScanTraits.of(scan, self.scaled_by)

    def intensity_excess(self, scan: ScanTraits) -> tuple[float, int]:
        """How far the farthest percentile lies outside of the range, and which it is (an index).

        Scaled by the median, the percentiles below it may be as dark as they like: how much fluid a head has
        is a matter of age and disease. Scaled by the bright end they also tell of one far too bright, as the
        skull of a CT. Too bright, they tell of a histogram as narrow as a CT's in both.
        """
        low, high = self.intensities
        too_dark = low - scan.intensities
        if self.scaled_by == MEDIAN:
            too_dark[np.array(PERCENTILES) < MEDIAN] = -np.inf
        outside = np.maximum(too_dark, scan.intensities - high)
        return float(outside.max()), int(outside.argmax())

    def extent_excess(self, extent: NDArray[np.floating]) -> float:
        """How far the extent (3,) in mm lies outside of the range, as a share of the range's end."""
        low, high = self.extent
        return float(np.maximum(1 - extent / low, extent / high - 1).max())

    def fits(self, extent: NDArray[np.floating]) -> bool:
        """Whether the extent (3,) in mm is that of a whole brain, within the margin."""
        return self.extent_excess(extent) <= SIZE_MARGIN

    def distance(self, scan: ScanTraits, turn: NDArray[np.floating]) -> float:
        """How unlike the average shape the scan's is after a (3, 3) turn of its axes."""
        covariance = turn @ scan.covariance @ turn.T
        skewness = np.einsum("ai,bj,ck,ijk->abc", turn, turn, turn, scan.skewness, optimize=True)
        apart = np.square(covariance - self.covariance).sum() + np.square(skewness - self.skewness).sum()
        return float(np.sqrt(apart))

    def turned(self, scan: ScanTraits) -> str | None:
        """Axis codes that the scan seems to have instead of RAS; None where nothing fits clearly better."""
        distances = [self.distance(scan, turn) for turn in TURNS]
        best = TURNS[int(np.argmin(distances))]
        upright = min(self.distance(scan, np.diag(signs)) for signs in (np.ones(3), MIRROR))
        if upright <= TURN_FACTOR * min(distances) or not self.fits(np.abs(best) @ scan.extent):
            return None
        # row i of the turn says which stored axis, in which direction, is the i-th true one
        codes = [""] * 3
        for row, ends in zip(best, ("RL", "AP", "SI"), strict=True):
            axis = int(np.argmax(np.abs(row)))
            codes[axis] = ends[0] if row[axis] > 0 else ends[1]
        return "".join(codes)

    def kind(self, scan: ScanTraits, head: bool = False) -> str:
        """What the scan shows by its size and shape: "brain", "head", "cropped", "other" or "not_a_head".

        Shape is compared where a whole brain alone is shown; a head's is much like a ball's.

        Args:
            scan: measured with this ``scaled_by``.
            head: whether its skull may still be there; else it was stripped, or its brain alone was measured.
        """
        low, high = self.extent[0] * (1 - SIZE_MARGIN), self.extent[1] * (1 + SIZE_MARGIN)
        upright = scan.extent
        whole = bool((upright >= low).all()) and not (scan.cut & (upright > high)).any()
        if not head and whole and min(self.distance(scan, turn) for turn in TURNS) > FARTHEST_SHAPE:
            return "not_a_head"
        if self.fits(scan.extent):
            return "brain"
        if self.turned(scan) is not None:
            return "brain"
        if (np.sort(upright) > np.sort(HEAD_EXTENT)).any():
            return "not_a_head"
        small = upright < low
        if (small & ~scan.cut & (upright < SMALLEST_SHARE * self.extent[0])).any():
            return "not_a_head"
        if head and (upright > high).any():
            return "head"
        if (upright <= high).all() and (small & scan.cut).any():
            return "cropped"
        return "other"

    def complaints(self, scan: ScanTraits, head: bool = False) -> dict[str, str]:
        """Lines on what is unlike the training volumes, by the key of their message.

        Args: those of :meth:`kind`.
        """
        lines: dict[str, dict[str, Any]] = {}
        kind = self.kind(scan, head)
        excess, which = self.intensity_excess(scan)
        if excess > self.intensity_margin and kind != "head":  # a head's tell of its skull, which is told
            low, high = (100 * end[which] for end in self.intensities)
            seen = {"percentile": PERCENTILES[which], "value": 100 * scan.intensities[which]}
            unit = "bright end" if self.scaled_by == BRIGHT_PERCENTILE else "median"
            lines["unlike_intensities"] = {**seen, "unit": unit, "low": low, "high": high}
        codes = self.turned(scan)
        if codes is not None:
            lines["unlike_orientation"] = {"codes": codes}
        elif not self.fits(scan.extent):
            sizes = [" x ".join(f"{side:.0f}" for side in sides) for sides in (scan.extent, *self.extent)]
            key = {"head": "with_skull", "cropped": "cropped"}.get(kind, "unlike_extent")
            lines[key] = {"extent": sizes[0], "low": sizes[1], "high": sizes[2]}
        low, high = self.spacing[0] * (1 - SPACING_MARGIN), self.spacing[1] * (1 + SPACING_MARGIN)
        if ((scan.spacing < low) | (scan.spacing > high)).any():
            spacing = " x ".join(f"{side:.3g}" for side in scan.spacing)
            trained = " x ".join(f"{side:.3g}" for side in self.spacing[0])
            lines["unlike_spacing"] = {"spacing": spacing, "trained": trained}
        return {key: say(key, **values) for key, values in lines.items()}


def load_ranges(path: str | PathLike[str] = REFERENCE) -> dict[str, TrainingRange]:
    """Ranges of a reference file, by name."""
    read = json.loads(Path(path).read_text(encoding="utf-8"))
    return {name: TrainingRange.from_plain(plain) for name, plain in read.items()}


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
