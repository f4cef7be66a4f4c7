"""From the scan's grid to the target grid, and back to the scan's axes and to its finer pixels."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation
from monai.utils import ensure_tuple_rep
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.acquisition.measurement import AxisSampling, Measurement
from monai_diffens.messages import InputRejected, say, warn
from monai_diffens.transforms.registration import Scan
from monai_diffens.transforms.thick_slices import (
    SAMPLING_KEY,
    is_believed,
    measurement_from_meta,
    record_sampling,
    thickness_along,
    thickness_lines,
)

logger = logging.getLogger(__name__)

WORKING_SPACING = 1.0  # mm, of the voxels that the shipped weights were trained on
# Axes whose spacing is this close to the target's keep their own voxels.
SPACING_TOLERANCE = 0.05
# Spacings the shipped weights were trained for, in target voxels.
TRAINED_FACTOR = 6.0
LARGEST_FACTOR = 10.0


def as_spacing(spacing: float | Sequence[float]) -> tuple[float, float, float]:
    """Target spacing along the right, front and head axes, in mm, from one number or three.

    Raises:
        InputRejected: it is not one or three positive numbers.
    """
    try:
        x, y, z = (float(value) for value in ensure_tuple_rep(spacing, 3))
    except (TypeError, ValueError) as error:
        raise InputRejected(say("bad_spacing", value=repr(spacing))) from error
    if not 0 < min(x, y, z) <= max(x, y, z) < np.inf:
        raise InputRejected(say("bad_spacing", value=repr(spacing)))
    return x, y, z


def working_spacing(spacing: float | Sequence[float] | str | None) -> tuple[float, float, float]:
    """Spacing in mm that the network works at: what is asked for, ``WORKING_SPACING`` with None or "auto".

    Raises:
        InputRejected: as of :func:`as_spacing`.
    """
    return as_spacing(WORKING_SPACING if keeps_in_plane(spacing) else cast(float, spacing))


def keeps_in_plane(spacing: float | Sequence[float] | str | None) -> bool:
    """Whether a result keeps axes that the scan has finer than the working spacing: None or "auto"."""
    return spacing is None or spacing == "auto"


def spacing_factors(affine: NDArray[np.floating], spacing: Sequence[float]) -> NDArray[np.floating]:
    """(3,) spacing of a volume's axes over that of the target, along the right, front and head axes.

    Args:
        affine: (4, 4), voxel index to RAS+ mm; axes in any order and direction.
        spacing: see :func:`as_spacing`.
    """
    matrix = np.asarray(affine, dtype=float)
    to_ras = nib.orientations.io_orientation(matrix)[:, 0].argsort()
    return nib.affines.voxel_sizes(matrix)[to_ras] / np.asarray(spacing)


def check_factors(factors: NDArray[np.floating], spacing: Sequence[float], name: str) -> list[str]:
    """Warnings on slices thicker than what was trained for.

    Args:
        factors: of :func:`spacing_factors`.
        spacing: see :func:`as_spacing`.
        name: of the file, for the message.

    Raises:
        InputRejected: when slices are more than ``LARGEST_FACTOR`` target voxels apart.
    """
    axis = int(np.argmax(factors))
    seen = {"mm": factors[axis] * spacing[axis], "factor": factors[axis]}
    if factors[axis] > LARGEST_FACTOR * (1 + 1e-6):  # affines are stored in single precision
        raise InputRejected(say("too_thick", name=name, limit=LARGEST_FACTOR, **seen))
    if factors[axis] > TRAINED_FACTOR * (1 + SPACING_TOLERANCE):
        return [say("thick", trained=TRAINED_FACTOR, **seen)]
    return []


def is_fine(factors: NDArray[np.floating]) -> bool:
    """Whether no axis of a volume is coarser than the target."""
    return bool((factors <= 1 + SPACING_TOLERANCE).all())


class RestoreToSpacingd(MapTransform):
    """Bring a thick-sliced scan to a fine grid over the same field of view.

    Thick axes go through :meth:`Measurement.restore`; axes finer than the target are averaged down; axes
    within 5 % of it keep their voxels exactly. The grids share their centre. How the scan was sampled is
    recorded in ``meta`` for the consistency step.

    Args:
        keys: scans (1, X, Y, Z), MetaTensors with an affine in mm.
        spacing: target spacing in mm, one number or one an axis. None or "auto": 1 mm for the network, and
            the scan under ``scan_key`` keeps its finer axes, for :class:`~.in_plane.KeepInPlaned`.
        profile: slice profile of the thick axes, "box" or "gaussian".
        slice_thickness: of the axis with the widest spacing, in mm; when None what the scan's header tells,
            else that spacing.
        scan_key: where to keep the scan on its own slices; not kept when None.
        scan_of: which of several keys' scan that is.
        allow_missing_keys: skip absent keys.

    Raises:
        InputRejected: when slices are more than 10 target voxels apart, or ``spacing`` is not positive.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: float | Sequence[float] | str | None = 1.0,
        profile: str = "box",
        slice_thickness: float | None = None,
        scan_key: str | None = None,
        scan_of: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if scan_key is not None and scan_of is None and len(self.keys) > 1:
            raise ValueError(f"scan_key keeps one scan, got {len(self.keys)} keys: name one by scan_of")
        self.scan_key, self.scan_of = scan_key, self.keys[0] if scan_of is None else scan_of
        self.spacing, self.keeps_in_plane = working_spacing(spacing), keeps_in_plane(spacing)
        self.profile = profile
        self.slice_thickness = slice_thickness

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            self.check(d, key)
            d[key], scan = self.restore(d[key])
            if self.scan_key is not None and key == self.scan_of:
                d[self.scan_key] = scan
        return d

    def check(self, data: dict[Hashable, Any], key: Hashable) -> None:
        """Tell what there is to a scan's spacing; raises InputRejected for slices too far apart."""
        affine, meta = np.asarray(data[key].affine, dtype=float), data[key].meta
        name = Path(str(meta.get("filename_or_obj", key))).name
        for line in check_factors(spacing_factors(affine, self.spacing), self.spacing, name):
            if line not in (data.get("warnings") or ()):  # else CaseFolder has told it
                logger.warning("%s: %s", name, line)
        for line in self.thickness_notes(data[key]):
            warn(data, line if len(self.keys) == 1 else f"{key}: {line}")

    def thickness_of(self, scan: MetaTensor, axis: int, widest: int) -> float:
        """Thickness of slices along an axis, in mm: as asked for, else by the header, else their spacing."""
        affine = np.asarray(scan.affine, dtype=float)
        spacing = float(nib.affines.voxel_sizes(affine)[axis])
        if self.slice_thickness is not None:
            return self.slice_thickness if axis == widest else spacing
        told = thickness_along(axis, widest, affine, scan.meta)
        return spacing if told is None or not is_believed(told, spacing) else told

    def thickness_notes(self, scan: MetaTensor) -> list[str]:
        """A line where slices are not as thick as they are apart."""
        affine = np.asarray(scan.affine, dtype=float)
        zooms = nib.affines.voxel_sizes(affine)
        widest = int(np.argmax(zooms / self.spacing))
        for axis in range(3):
            told = thickness_along(axis, widest, affine, scan.meta)
            thick = zooms[axis] / self.spacing[axis] > 1 + SPACING_TOLERANCE
            if self.slice_thickness is None and told is not None and thick:
                return thickness_lines(told, float(zooms[axis]))
        return []

    def plan(self, scan: MetaTensor) -> GridPlan:
        """Samplings of the axes of a scan (1, X, Y, Z), and where the target grid lies."""
        affine = np.asarray(scan.affine, dtype=float)
        factors = nib.affines.voxel_sizes(affine) / self.spacing
        widest = int(np.argmax(factors))
        plan = GridPlan([None] * 3, [None] * 3, np.eye(4), np.eye(4))
        for axis, (size, factor) in enumerate(zip(scan.shape[1:], factors, strict=True)):
            if abs(factor - 1) <= SPACING_TOLERANCE:
                continue
            count = max(1, round(size * factor))
            if factor > 1:
                thickness = self.thickness_of(scan, axis, widest) / self.spacing[axis]
                plan.thick[axis] = AxisSampling(count, size, factor, thickness, self.profile)
            else:
                plan.average[axis] = AxisSampling(size, count, 1 / factor, 1 / factor)
            plan.to_source[axis, axis] = 1 / factor
            plan.to_source[axis, 3] = (size - 1) / 2 - (count - 1) / 2 / factor
            if factor < 1:
                plan.to_measured[axis] = plan.to_source[axis]
        return plan

    def restore(self, scan: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
        """The scan (1, X, Y, Z), in RAS order, on the target grid, with affine and sampling recorded.

        Second comes what it agrees with: the scan, averaged along axes that are finer than the target unless
        the result is to keep them.
        """
        affine, plan = np.asarray(scan.affine, dtype=float), self.plan(scan)
        measurement = Measurement(plan.thick)
        measured = Measurement(plan.average)(scan)
        restored = measurement.restore(measured)
        # with nothing to do it is the scan itself, whose meta stays the caller's
        result = cast(MetaTensor, scan.clone() if restored is scan else restored)
        result.affine = affine @ plan.to_source
        record_sampling(result, measurement)
        if self.keeps_in_plane:
            return result, cast(MetaTensor, scan.clone())
        measured = cast(MetaTensor, measured.clone())
        measured.affine = affine @ plan.to_measured
        return result, measured


@dataclass(frozen=True)
class GridPlan:
    """How a scan's grid and the target grid over the same field of view belong together.

    Attributes:
        thick: samplings of the axes that are coarser than the target, fine grid to scan; else None.
        average: samplings of those that are finer, scan to target; else None.
        to_source: (4, 4), target voxel index to scan voxel index.
        to_measured: (4, 4), the same for the scan averaged along its finer axes.
    """

    thick: list[AxisSampling | None]
    average: list[AxisSampling | None]
    to_source: NDArray[np.floating]
    to_measured: NDArray[np.floating]


class ToSourceAxesd(MapTransform):
    """Turn a prediction's axes back to the order and direction its source file has.

    Args:
        keys: predictions (1, X, Y, Z), MetaTensors.
        source_key: the volume whose ``meta["original_affine"]`` tells the source's axes.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self, keys: KeysCollection, source_key: str = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Reorient every key."""
        d = dict(data)
        axcodes = nib.aff2axcodes(np.asarray(d[self.source_key].meta["original_affine"], dtype=float))
        turn = Orientation(axcodes="".join(axcodes), labels=None)
        for key in self.key_iterator(d):
            d[key] = turn(d[key])
        return d


class KeepInPlaned(MapTransform):
    """Bring a result to the scan's grid along the axes that the scan has finer, in agreement with the scan.

    The scan y has fine axes of its own, say 0.72 mm, and thick ones. The network saw it averaged to 1 mm and
    gave x. U brings x to the fine axes; A slices thick and R is its spline inverse, so that A R y = y. The
    result is R y + (U x - R A U x): what the scan measured, at its own resolution, and of the network what
    the scan could not see. Sliced thick again it is the scan. Where no axis of the scan is finer, nothing
    is done.

    The scan's slices are recorded in the result's ``meta``, for its new grid.

    Args:
        keys: results (1, X, Y, Z), MetaTensors on the network's grid, scaled.
        scan_key: the scan (1, x, y, z) on its own voxels, scaled; nothing is done without it.
        source_key: conditions on the network's grid, whose ``meta`` tells how the scan was sliced.
        maps: names of maps at ``<key>_<name>`` that are brought to the same grid, linearly.
        inside_only: keep the result's background at 0, for models whose result is 0 outside of a brain.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        scan_key: str = "scan",
        source_key: str = "image",
        maps: Sequence[str] = (),
        inside_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scan_key, self.source_key = scan_key, source_key
        self.maps, self.inside_only = tuple(maps), inside_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Refine every key."""
        d = dict(data)
        if self.scan_key not in d:
            return d
        for key in self.key_iterator(d):
            result, scan = d[key], d[self.scan_key]
            averaged = finer_axes(result, scan)
            if not any(averaged):
                continue
            d[key] = self.refine(result, scan, averaged, d[self.source_key].meta)
            for name in self.maps:
                d[f"{key}_{name}"] = like(d[f"{key}_{name}"], d[key])
        return d

    def refine(
        self,
        result: MetaTensor,
        scan: MetaTensor,
        averaged: Sequence[AxisSampling | None],
        meta: Mapping[str, Any],
    ) -> MetaTensor:
        """One result on the finer grid."""
        volume = _plain(result).float()
        y = _plain(scan).to(volume)
        up = Measurement(averaged).restore(volume)
        shape = up.shape[1:]
        affine = np.asarray(scan.affine, dtype=float).copy()
        for axis, finer in enumerate(averaged):
            if finer is None:  # as the network has it; the grids share their centre
                step = np.eye(4)
                ratio = scan.shape[1 + axis], shape[axis]
                own = float(scan.pixdim[axis]), float(result.pixdim[axis])
                step[axis, axis] = own[1] / own[0]
                step[axis, 3] = (ratio[0] - 1) / 2 - (ratio[1] - 1) / 2 * step[axis, axis]
                affine = affine @ step
        measurement = measurement_from_meta(shape, meta) or Measurement([None] * 3)
        support = torch.ones_like(up, dtype=torch.bool)
        if self.inside_only:
            support = like_grid((volume > 0).float(), result, shape, affine) > 0.5
        refined = measurement.restore(y) + up - measurement.restore(measurement(up))
        refined = measurement.restore_inside(refined, support)
        made = MetaTensor(refined, meta=dict(result.meta))
        made.affine = torch.as_tensor(affine)
        made.meta.pop(SAMPLING_KEY, None)
        record_sampling(made, measurement)
        return made


def finer_axes(result: MetaTensor, scan: MetaTensor) -> list[AxisSampling | None]:
    """How each axis that the scan (1, x, y, z) has finer than the result was averaged; else None."""
    axes: list[AxisSampling | None] = []
    for size, count, own, coarse in zip(
        scan.shape[1:], result.shape[1:], scan.pixdim, result.pixdim, strict=True
    ):
        factor = float(coarse / own)
        finer = size != count and factor > 1
        axes.append(AxisSampling(size, count, factor, factor) if finer else None)
    return axes


def like(volume: MetaTensor, grid: MetaTensor) -> MetaTensor:
    """A volume (1, X, Y, Z) on the voxels of another, linearly; edges are held."""
    affine = np.asarray(grid.affine, dtype=float)
    values = like_grid(_plain(volume).float(), volume, grid.shape[1:], affine)
    moved = MetaTensor(values, meta=dict(volume.meta))
    moved.affine = torch.as_tensor(affine)
    return moved


def like_grid(values: Tensor, place: MetaTensor, shape: Sequence[int], affine: np.ndarray) -> Tensor:
    """Values (1, X, Y, Z), which lie as ``place`` does, on a grid of ``shape`` and ``affine``, linearly."""
    source = Scan(values[0].cpu().numpy(), np.asarray(place.affine, dtype=float))
    moved = source.on(np.asarray(affine, dtype=float), tuple(shape), mode="nearest")
    return torch.as_tensor(moved, device=values.device)[None]


def _plain(volume: Tensor) -> Tensor:
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume
