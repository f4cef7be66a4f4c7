"""Is this scan like those that the model was trained on? Warnings, never rejections.

Four things are compared with the training volumes: intensities, size of the brain, voxel size, and which way
the head lies. The reference is ``training_range.json`` beside this file, ranges and averages of a few numbers
written by ``python -m monai_diffens.apps.training_range``; no part of any scan is in it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_diffens.transforms.intensity import foreground_percentile
from monai_diffens.transforms.messages import say, warn

__all__ = ["PERCENTILES", "FlagUnlikeTrainingd", "ScanTraits", "TrainingRange"]

REFERENCE = Path(__file__).with_name("training_range.json")
PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
BRIGHT_PERCENTILE = 99.5  # of the voxels above zero; intensities are told as fractions of it
FOREGROUND = 0.02  # of that value: what is darker is background, for the shape
AIR = 0.005  # of that value: what is darker is 0 with the ripples of interpolation
INTENSITY_MARGIN = 0.2  # of that value, beyond the training range; training subjects left out lie within
SIZE_MARGIN = 0.15  # of the training range's ends
SPACING_MARGIN = 0.25
TURN_FACTOR = 1.5  # another orientation must fit this much better before it is told
STRIDE = 2  # of voxels, for the shape

# every order and direction of three axes
TURNS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
MIRROR = np.array([-1.0, 1, 1])  # heads look alike from both sides: left and right cannot be told


@dataclass(frozen=True)
class ScanTraits:
    """What is compared: a few numbers of one scan.

    Attributes:
        intensities: (7,) percentiles of what is not 0, as fractions of its 99.5th.
        extent: (3,) of the foreground, right-left, front-back and head-foot, mm.
        spacing: (3,) of the voxels along the same axes, mm.
        covariance: (3, 3) of foreground positions in mm, scaled to a trace of 3.
        skewness: (3, 3, 3) third central moments of the same positions.
    """

    intensities: NDArray[np.floating]
    extent: NDArray[np.floating]
    spacing: NDArray[np.floating]
    covariance: NDArray[np.floating]
    skewness: NDArray[np.floating]

    @classmethod
    def of(cls, scan: MetaTensor) -> ScanTraits:
        """Measure a scan (1, X, Y, Z) in RAS order with an affine in mm."""
        values = scan.as_tensor()[0].float().cpu()
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
        intensities = np.percentile(volume[volume > AIR], PERCENTILES)
        return cls(intensities, extent, spacing, covariance, skewness)


@dataclass(frozen=True)
class TrainingRange:
    """Lowest, highest and average traits of the training volumes; fields as of :class:`ScanTraits`."""

    volumes: int
    intensities: tuple[NDArray[np.floating], NDArray[np.floating]]
    extent: tuple[NDArray[np.floating], NDArray[np.floating]]
    spacing: tuple[NDArray[np.floating], NDArray[np.floating]]
    covariance: NDArray[np.floating]
    skewness: NDArray[np.floating]

    @classmethod
    def over(cls, scans: list[ScanTraits]) -> TrainingRange:
        """Summarise scans."""

        def ends(name: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            stacked = np.stack([getattr(scan, name) for scan in scans])
            return stacked.min(axis=0), stacked.max(axis=0)

        covariance = np.mean([scan.covariance for scan in scans], axis=0)
        skewness = np.mean([scan.skewness for scan in scans], axis=0)
        return cls(len(scans), ends("intensities"), ends("extent"), ends("spacing"), covariance, skewness)

    @classmethod
    def load(cls, path: str | PathLike[str] = REFERENCE) -> TrainingRange:
        """Read what :meth:`save` wrote."""
        read = json.loads(Path(path).read_text(encoding="utf-8"))

        def ends(name: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            low, high = read[name]
            return np.array(low), np.array(high)

        return cls(
            read["volumes"],
            ends("intensities"),
            ends("extent"),
            ends("spacing"),
            np.array(read["covariance"]),
            np.array(read["skewness"]),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write as JSON, rounded to what the margins need."""
        plain = {
            name: value if name == "volumes" else np.round(np.array(value), 3).tolist()
            for name, value in asdict(self).items()
        }
        Path(path).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

    def intensity_excess(self, scan: ScanTraits) -> tuple[float, int]:
        """How far the farthest percentile lies outside of the range, and which it is (an index)."""
        low, high = self.intensities
        outside = np.maximum(low - scan.intensities, scan.intensities - high)
        return float(outside.max()), int(outside.argmax())

    def fits(self, extent: NDArray[np.floating]) -> bool:
        """Whether the extent (3,) in mm is that of a whole brain, within the margin."""
        low, high = self.extent
        return bool(((extent >= low * (1 - SIZE_MARGIN)) & (extent <= high * (1 + SIZE_MARGIN))).all())

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

    def complaints(self, scan: ScanTraits) -> list[str]:
        """Lines on what is unlike the training volumes."""
        lines = []
        excess, which = self.intensity_excess(scan)
        if excess > INTENSITY_MARGIN:
            low, high = (100 * end[which] for end in self.intensities)
            lines.append(
                say(
                    "unlike_intensities",
                    percentile=PERCENTILES[which],
                    value=100 * scan.intensities[which],
                    low=low,
                    high=high,
                )
            )
        codes = self.turned(scan)
        if codes is not None:
            lines.append(say("unlike_orientation", codes=codes))
        elif not self.fits(scan.extent):
            sizes = [" x ".join(f"{side:.0f}" for side in sides) for sides in (scan.extent, *self.extent)]
            lines.append(say("unlike_extent", extent=sizes[0], low=sizes[1], high=sizes[2]))
        low, high = self.spacing[0] * (1 - SPACING_MARGIN), self.spacing[1] * (1 + SPACING_MARGIN)
        if ((scan.spacing < low) | (scan.spacing > high)).any():
            spacing = " x ".join(f"{side:.3g}" for side in scan.spacing)
            trained = " x ".join(f"{side:.3g}" for side in self.spacing[0])
            lines.append(say("unlike_spacing", spacing=spacing, trained=trained))
        return lines


class FlagUnlikeTrainingd(MapTransform):
    """Add warnings on what is unlike the training volumes to ``data["warnings"]``, and log them.

    Args:
        keys: scans (1, X, Y, Z) on the grid that the network sees, in RAS order, MetaTensors with an affine
            in mm; they pass unchanged.
        reference: file of :meth:`TrainingRange.save`.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str | PathLike[str] = REFERENCE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = TrainingRange.load(reference)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Look at every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            for line in self.reference.complaints(ScanTraits.of(d[key])):
                warn(d, line)
        return d
