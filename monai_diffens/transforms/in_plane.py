"""Put the scan's own in-plane resolution back into a result that the network made on a coarser grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_diffens.acquisition.measurement import AxisSampling, Measurement
from monai_diffens.transforms.registration import Scan
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, measurement_from_meta, record_sampling

__all__ = ["KeepInPlaned"]


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
