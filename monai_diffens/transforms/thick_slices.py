"""Thick slices: how thick a scan's are, how its metadata notes them, and how a fine volume is given some.

The voxel grid does not tell how thick slices are: they may be thinner than they are apart (a gap) or thicker
(overlap). DICOM headers tell, and the JSON file that dcm2niix and BIDS keep beside a NIfTI file.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_diffens.acquisition.measurement import PROFILES, AxisSampling, Measurement
from monai_diffens.acquisition.slicing import in_plane_axes
from monai_diffens.files import NIFTI_ENDINGS
from monai_diffens.messages import say
from monai_diffens.transforms.augmentation import SHARP_PLANE_KEY

# meta entry: (4,) thickness in mm and the slice axis' direction in RAS+; zeros where that is not known
SLICE_THICKNESS = "slice_thickness"
BELIEVED = (0.1, 4.0)  # of the slice distance; else it is that of a slab, or a mistake
ALIKE = 0.05  # of the slice distance: less is not told
LARGEST_SIDECAR = 1 << 20  # bytes


def sidecar_thickness(scan: Path) -> float | None:
    """``SliceThickness`` in mm of the JSON file beside a NIfTI file; None where nothing usable tells it."""
    ending = next((end for end in NIFTI_ENDINGS if scan.name.lower().endswith(end)), None)
    if ending is None:
        return None
    sidecar = scan.with_name(scan.name[: -len(ending)] + ".json")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
            return None
        told = json.loads(sidecar.read_text(encoding="utf-8-sig"))["SliceThickness"]
        value = 0.0 if isinstance(told, bool) else float(told)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if 0 < value < np.inf else None


def thickness_along(axis: int, widest: int, affine: np.ndarray, meta: Mapping[str, Any]) -> float | None:
    """Thickness in mm of the slices along an axis of a volume; None where they are not stacked along it.

    Args:
        axis: 0, 1 or 2.
        widest: the axis with the widest spacing, which is the slices' where nothing tells their direction.
        affine: (4, 4), voxel index to RAS+ mm.
        meta: of the loaded scan.
    """
    if SLICE_THICKNESS not in meta:
        return None
    thickness, *normal = np.asarray(meta[SLICE_THICKNESS], dtype=float).ravel()
    if any(normal):
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        widest = int(np.argmax(np.abs(axes.T @ normal)))
    return float(thickness) if axis == widest else None


def is_believed(thickness: float, spacing: float) -> bool:
    """Whether a thickness can be that of slices this far apart."""
    return BELIEVED[0] <= thickness / spacing <= BELIEVED[1]


def thickness_lines(thickness: float, spacing: float) -> list[str]:
    """A line where slices are not as thick as they are apart."""
    seen = {"thickness": thickness, "spacing": spacing}
    if not is_believed(thickness, spacing):
        return [say("thickness_unbelieved", **seen)]
    if abs(thickness - spacing) <= ALIKE * spacing:
        return []
    what = "a gap" if thickness < spacing else "an overlap"
    return [say("thickness", what=what, mm=abs(thickness - spacing), **seen)]


# meta entry: one row an axis of slices, factor, thickness and profile number; no slices: a fine axis
SAMPLING_KEY = "slice_sampling"


def measurement_for(
    shape: Sequence[int], factors: Sequence[float], profile: str = "box", thickness: float | None = None
) -> Measurement:
    """Measurement that samples axis i every ``factors[i]`` voxels; a factor of 1 leaves the axis fine.

    Args:
        shape: (X, Y, Z) of the fine grid.
        factors: slice spacing an axis, in fine voxels.
        profile: slice profile of the thick axes.
        thickness: slice thickness in fine voxels; the spacing when None.
    """
    return Measurement(
        [
            None if factor <= 1 else AxisSampling.from_factor(size, factor, thickness, profile)
            for size, factor in zip(shape, factors, strict=True)
        ]
    )


def measurement_from_meta(shape: Sequence[int], meta: Mapping[str, Any]) -> Measurement | None:
    """Measurement that ``meta`` records for a volume of ``shape`` (X, Y, Z), or None when it records none."""
    if SAMPLING_KEY not in meta:
        return None
    axes: list[AxisSampling | None] = []
    rows = np.asarray(meta[SAMPLING_KEY], dtype=float).reshape(3, -1)
    for size, (n_low, factor, thickness, profile) in zip(shape, rows, strict=True):
        if n_low == 0:
            axes.append(None)
        else:
            axes.append(AxisSampling(size, int(n_low), factor, thickness, PROFILES[int(profile)]))
    return Measurement(axes)


def record_sampling(volume: Tensor, measurement: Measurement) -> None:
    """Write the measurement into ``volume.meta``, as numbers that MONAI's collation keeps."""
    if isinstance(volume, MetaTensor):
        volume.meta[SAMPLING_KEY] = np.asarray(
            [
                (0.0, 1.0, 1.0, 0.0)
                if axis is None
                else (axis.n_low, axis.factor, axis.thickness, PROFILES.index(axis.profile))
                for axis in measurement.axes
            ]
        )


class ThickSlicesd(MapTransform):
    """Replace a fine volume by what its thick-sliced scan shows on the same grid.

    The volume is measured by slices and brought back by :meth:`Measurement.restore`, so grid and affine
    stay as they are; ``meta`` records the sampling for the consistency step.

    Args:
        keys: volumes (C, X, Y, Z).
        factors: slice spacing an axis, in voxels; 1 leaves an axis as it is.
        profile: "box" or "gaussian".
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        factors: Sequence[float],
        profile: str = "box",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.factors = tuple(float(factor) for factor in factors)
        self.profile = profile

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Degrade every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = thick_slice(d[key], self.factors, self.profile)
        return d


def thick_slice(
    volume: Tensor, factors: Sequence[float], profile: str = "box", thickness: float | None = None
) -> Tensor:
    """The volume (C, X, Y, Z) as its thick-sliced scan shows it, on the same grid."""
    measurement = measurement_for(volume.shape[1:], factors, profile, thickness)
    degraded = measurement.restore(measurement(volume))
    if degraded is volume:  # no thick axis; the caller's meta stays as it is
        degraded = volume.clone()
    record_sampling(degraded, measurement)
    return degraded


class RandThickSlicesd(Randomizable, MapTransform):
    """Thick-slice with a random axis, factor and profile, or pool all axes alike (the paper's setting).

    An item that names its ``sharp_plane`` was acquired in thick slices: it is degraded along the axes of that
    plane alone, for along its slice axis it is no ground truth.

    Args:
        keys: volumes (C, X, Y, Z); all get the same parameters.
        factor_range: smallest and largest slice spacing, in voxels.
        pool_factor: spacing of the pooled setting.
        pool_prob: probability of the pooled setting; else one random axis is thick.
        gaussian_prob: probability of a Gaussian profile in the one-axis setting.
        thickness_range: thickness over spacing of half the slices of the one-axis setting: below 1 they leave
            gaps, above 1 they overlap. The other half neither.
        prob: probability of slicing a key at all.
        each: draw anew for each key instead of once for all.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        factor_range: tuple[float, float] = (2.0, 6.0),
        pool_factor: float = 4.0,
        pool_prob: float = 0.4,
        gaussian_prob: float = 0.3,
        thickness_range: tuple[float, float] = (1.0, 1.0),
        prob: float = 1.0,
        each: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.thickness_range = thickness_range
        self.prob = prob
        self.each = each
        self.factor_range = factor_range
        self.pool_factor = pool_factor
        self.pool_prob = pool_prob
        self.gaussian_prob = gaussian_prob
        self.factors: tuple[float, ...] = (1.0, 1.0, 1.0)
        self.profile = "box"
        self.thickness: float | None = None

    def randomize(self, data: Sequence[int] = (0, 1, 2)) -> None:
        """Draw axis, factor and profile; ``data`` are the axes to draw from, or to pool."""
        factors, self.thickness = [1.0, 1.0, 1.0], None
        if self.prob < 1 and self.R.random() >= self.prob:
            self.factors = tuple(factors)
            return
        if self.R.random() < self.pool_prob:
            for axis in data:
                factors[axis] = self.pool_factor
            self.factors, self.profile = tuple(factors), "box"
            return
        factor = self.R.uniform(*self.factor_range)
        factors[data[self.R.randint(len(data))]] = factor
        if self.thickness_range != (1.0, 1.0) and self.R.random() < 0.5:
            self.thickness = factor * self.R.uniform(*self.thickness_range)
        self.factors = tuple(factors)
        self.profile = "gaussian" if self.R.random() < self.gaussian_prob else "box"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw, and degrade every key."""
        d = dict(data)
        axes = in_plane_axes(d[SHARP_PLANE_KEY]) if SHARP_PLANE_KEY in d else (0, 1, 2)
        for number, key in enumerate(self.key_iterator(d)):
            if self.each or number == 0:
                self.randomize(axes)
            d[key] = thick_slice(d[key], self.factors, self.profile, self.thickness)
        return d
