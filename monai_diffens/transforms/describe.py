"""What a user should know of a result: its maps, and in numbers agreement, spread, who decided, how made."""

from __future__ import annotations

import platform
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_diffens.transforms.brain_mask import FACTS_KEY
from monai_diffens.transforms.one_grid import MOVES_KEY
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, measurement_from_meta

SPREAD, WEIGHT = (
    "std",
    "weight-",
)  # names of maps: the samples' deviation; an expert's weights, its name behind


class SplitMapsd(MapTransform):
    """Leave the first channel under the key, and put each further one under ``<key>_<map name>``.

    The inferer gives one tensor, since that is what MONAI's engines pass on and take apart by case.

    Args:
        keys: predictions (1 + number of maps, X, Y, Z).
        maps: names of the maps, see :func:`monai_diffens.inferers.settings.map_names`.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self, keys: KeysCollection, maps: Sequence[str] = (), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.maps = tuple(maps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Split every key.

        Raises:
            ValueError: a prediction has another number of channels.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            volumes = d[key]
            if volumes.shape[0] != 1 + len(self.maps):
                raise ValueError(
                    f"{key}: {1 + len(self.maps)} channels are needed (the result, then "
                    f"{', '.join(self.maps) or 'no map'}), got {volumes.shape[0]}"
                )
            for index, name in enumerate(self.maps, start=1):
                d[f"{key}_{name}"] = volumes[index : index + 1].clone()
            d[key] = volumes[:1].clone()
        return d


SIDE = 5  # voxels, of the neighbourhood


def unseen_detail(result: Tensor, meta: Mapping[str, Any], unmeasured: int = 0) -> Tensor:
    """How much detail thick slices may have hidden at each voxel: local deviation times sqrt(thick axes).

    Samples of few steps agree with each other and err together, most where the image is busy, and more
    where more axes are thick: on the val subject the ratio of error to this is much the same in all settings.

    Args:
        result: (1, X, Y, Z), scaled.
        meta: of the scan on the same grid; records which axes are thick.
        unmeasured: number of thick axes where it records nothing: 0 for a scan that is fine along every axis,
            3 for a result whose contrast was not scanned.

    Returns:
        (1, X, Y, Z): standard deviation over 5 x 5 x 5 voxels, times the root of the number of thick axes.
    """
    thick_axes = unmeasured
    if SAMPLING_KEY in meta:
        sampling = np.asarray(meta[SAMPLING_KEY], dtype=float).reshape(3, -1)
        thick_axes = int((sampling[:, 0] > 0).sum())
    volume = result.as_subclass(Tensor).float().clamp(min=0)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool3d(values[None], SIDE, 1, SIDE // 2, count_include_pad=False)[0]

    variance = mean(volume.square()) - mean(volume).square()
    return variance.clamp(min=0).sqrt() * thick_axes**0.5


class FloorSpreadd(MapTransform):
    """Replace a spread s by sqrt(s^2 + (floor * :func:`unseen_detail`)^2).

    Args:
        keys: spreads (1, X, Y, Z), scaled as the result.
        result_key: the result (1, X, Y, Z).
        source_key: the scan on the same grid, whose ``meta`` tells which axes are thick.
        floor: factor, fitted by the bundle's command ``calibrate``; 0 leaves spreads as they are.
        unmeasured_floor: the same where the source's ``meta`` records no slices: nothing of the result was
            measured, along any axis.
        inside_only: no floor where no channel of the source is above 0, for models whose result is 0 there.
        allow_missing_keys: skip absent keys.

    Raises:
        ValueError: when a floor is negative.
    """

    def __init__(
        self,
        keys: KeysCollection,
        result_key: str = "pred",
        source_key: str = "image",
        floor: float = 0.0,
        unmeasured_floor: float = 0.0,
        inside_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if min(floor, unmeasured_floor) < 0:
            raise ValueError(f"spread_floor must be 0 or more, got {min(floor, unmeasured_floor)}")
        self.result_key, self.source_key = result_key, source_key
        self.floor, self.unmeasured_floor, self.inside_only = floor, unmeasured_floor, inside_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raise every key."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        meta = d[self.source_key].meta if keys else {}
        factor = self.floor if SAMPLING_KEY in meta else self.unmeasured_floor
        if keys and factor:
            floor = factor * unseen_detail(d[self.result_key], meta, unmeasured=3)
            if self.inside_only:
                floor = floor * (torch.as_tensor(d[self.source_key]).as_subclass(Tensor) > 0).any(dim=0)
            for key in keys:
                d[key] = torch.hypot(d[key], floor)
        return d


VERSIONS = ("monai", "torch", "numpy", "nibabel")
WHOLLY = 0.999  # share of a thick voxel; slice profiles sum to 1 within rounding


class DescribeResultd(MapTransform):
    """Put the facts of a result into ``data["facts"]``, a plain dict that goes into its JSON file and report.

    It holds ``Sampling`` (the parameters), ``Versions``, ``WeightsSHA256``, and where they apply
    ``Consistency``, ``Spread``, ``PlaneWeights``, ``Registration`` and ``BrainMask`` (by contrast).
    Differences and spread are relative to the percentile that
    :class:`~monai_diffens.transforms.intensity.ScaleForegroundPercentiled` made 1. Nothing in it depends on
    the time or the place of the run.

    Args:
        keys: the result (1, X, Y, Z), scaled, on the source's grid and axes.
        source_key: its first condition, whose ``meta`` tells how the scan was sliced; that of a result on
            other voxels tells it itself.
        scan_key: the scan on its own slices (1, x, y, z), scaled; without it there is no consistency figure.
        maps: names of the maps at ``<key>_<name>``.
        parameters: options of the run.
        weights_file: ``<weights_file>.sha256`` beside it holds the hash of the weights.
        inside_only: compare only where the scan saw nothing but the result's foreground, for models whose
            result is 0 outside of a brain whatever the scan shows there.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        source_key: str = "image",
        scan_key: str = "scan",
        maps: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        weights_file: str | Path | None = None,
        inside_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key, self.scan_key = source_key, scan_key
        self.maps = tuple(maps)
        self.parameters = dict(parameters or {})
        self.weights_file = weights_file
        self.inside_only = inside_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Describe the last key's result."""
        d = dict(data)
        for key in self.key_iterator(d):
            result, source = _plain(d[key]), d[self.source_key]
            facts: dict[str, Any] = {"Sampling": dict(self.parameters), "Versions": versions()}
            if self.weights_file is not None:
                record = Path(f"{self.weights_file}.sha256")
                facts["WeightsSHA256"] = record.read_text(encoding="utf-8").split()[0]
            own = result.shape[1:] == source.shape[1:]  # else it went to the scan's finer pixels
            meta = source.meta if own else d[key].meta
            measurement = measurement_from_meta(result.shape[1:], meta)
            inside = result > 0
            if measurement is not None and self.scan_key in d:
                seen = measurement(inside.float()) > WHOLLY if self.inside_only else None
                facts["Consistency"] = consistency(measurement(result), _plain(d[self.scan_key]), seen)
            if SPREAD in self.maps:
                facts["Spread"] = spread_summary(_plain(d[f"{key}_{SPREAD}"]), inside)
            names = [name for name in self.maps if name.startswith(WEIGHT)]
            if names:
                shares = {name.removeprefix(WEIGHT): _plain(d[f"{key}_{name}"])[inside] for name in names}
                facts["PlaneWeights"] = {name: _mean(share) for name, share in shares.items()}
            for name, held in (("Registration", MOVES_KEY), ("BrainMask", FACTS_KEY)):
                if d.get(held):
                    facts[name] = _numbers(d[held])
            d["facts"] = facts
        return d


def consistency(again: Tensor, scan: Tensor, where: Tensor | None = None) -> dict[str, float]:
    """Mean and largest absolute difference of a result, sliced thick again, to the scan.

    Args:
        again: (1, x, y, z), the result as the scanner would have seen it, scaled.
        scan: (1, x, y, z), what it saw.
        where: bool, the voxels that are compared; None for those where either is above zero, so that empty
            space does not dilute it.

    Returns:
        ``MeanAbsoluteDifference`` and ``MaximumAbsoluteDifference`` over these voxels.

    Raises:
        ValueError: shapes differ.
    """
    if again.shape != scan.shape:
        raise ValueError(
            f"the thick-sliced result has shape {tuple(again.shape)}, the scan {tuple(scan.shape)}"
        )
    difference = (again - scan).abs()[(again > 1e-6) | (scan > 0) if where is None else where]
    largest = float(difference.max()) if difference.numel() else 0.0
    return {"MeanAbsoluteDifference": _mean(difference), "MaximumAbsoluteDifference": round(largest, 7)}


def spread_summary(spread: Tensor, inside: Tensor) -> dict[str, float]:
    """``Mean`` and ``Percentile95`` of a spread (1, X, Y, Z) where ``inside`` (bool) holds."""
    values = spread[inside].flatten()
    if values.numel() == 0:
        return {"Mean": 0.0, "Percentile95": 0.0}
    rank = max(1, round(0.95 * values.numel()))
    return {"Mean": _mean(values), "Percentile95": round(float(torch.kthvalue(values, rank).values), 7)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result's voxels."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}


def _numbers(value: Any) -> Any:
    """Plain numbers and texts, which a DataLoader had made tensors and lists of one."""
    if isinstance(value, Mapping):
        return {str(key): _numbers(each) for key, each in value.items()}
    if isinstance(value, list | tuple) and len(value) == 1:
        return _numbers(value[0])
    return _numbers(value.tolist()) if hasattr(value, "tolist") else value


def _plain(volume: Tensor) -> Tensor:
    """The values on the CPU, in single precision, without metadata."""
    return torch.as_tensor(volume).as_subclass(torch.Tensor).detach().cpu().float()


def _mean(values: Tensor) -> float:
    """Mean in double precision, rounded so that it reads the same on every machine; 0 of nothing."""
    return round(float(values.double().mean()), 7) if values.numel() else 0.0
