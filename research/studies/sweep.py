"""Evaluation over the dial: every fusion at several numbers of steps, beside interpolation, in one run.

More denoising steps give sharper volumes of lower PSNR (arXiv 1711.06077), so samplers are compared by
their curves of distortion against sharpness, never by PSNR alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop
from torch import Tensor

from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.metrics.suite import volume_metrics
from research.studies.baselines import Baseline, DialPoint, Drawn, restore_at, those_given
from research.studies.study import Measure, Model, Names, Study, Volumes, dial_names
from research.studies.tables import MARK, MethodMarks

KEYS = ("setting", "case", "method", "num_steps", "restart", "gain")
Realism = Callable[[Tensor, Tensor, Tensor], Mapping[str, Any]]


@dataclass
class Trial:
    """One case in one setting.

    Attributes:
        inputs: (1, M, X, Y, Z) scaled conditions, a MetaTensor whose ``meta`` names the case.
        measure: figures of a result (1, X, Y, Z).
        baselines: results of what has no dial, by name.
        scale: factor from the network's result to what ``measure`` takes.
    """

    inputs: Tensor
    measure: Callable[[Tensor], dict[str, Any]]
    baselines: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    scale: float = 1.0


class DialSweep(Study):
    """Degrade test volumes, restore them in every way, and measure against the truth.

    Args:
        volumes: what is degraded; of its ``region`` the central box is restored.
        model: whose fusion and steps are swept.
        settings: name -> {"factors": 3 slice spacings in voxels, "profile": "box" or "gaussian"}.
        fusions: fusion modes to sweep.
        dial: (num_steps, restart or None) pairs, or with the residual's gain behind them, 1 without.
        output_dir: receives ``sweep.csv``; rows already in it are not computed again, those of other weights
            are.
        realism: further figures of (result, truth, mask), as "fid" and "mmd" of
            :class:`~research.realism.realism.PatchRealism`; none when None.
        weights: marks the rows (column "weights") with the hashes of what the figures depend on; none when
            None.
        baselines: further methods by name; one that is None is left out.
        sharpness_axes: axes along which the volumes are sharp, see :func:`volume_metrics`.
    """

    keys = KEYS

    def __init__(
        self,
        volumes: Volumes,
        model: Model,
        settings: Mapping[str, Mapping[str, Any]],
        fusions: Sequence[str],
        dial: Sequence[Sequence[Any]],
        output_dir: str | Path,
        realism: Realism | None = None,
        weights: MethodMarks | None = None,
        baselines: Mapping[str, Baseline | None] | None = None,
        sharpness_axes: Sequence[int] = (0, 1, 2),
    ) -> None:
        super().__init__(Path(output_dir) / "sweep.csv", settings, weights or MethodMarks(()))
        self.items, self.preprocessing, self.region = volumes.items, volumes.preprocessing, volumes.region
        self.network, self.inferer, self.device = model.network, model.inferer, model.device
        self.fusions = tuple(fusions)
        self.dial = [dial_point(point) for point in dial]
        self.realism = realism
        self.baselines = those_given(baselines)
        self.sharpness_axes = tuple(sharpness_axes)
        for fusion in self.fusions:
            self.network.check_fusion(fusion)
        for _, _, gain in self.dial:
            self.inferer.changed(residual_gain=gain)  # refuses one of no use

    def cases(self) -> Iterator[tuple[Names, Any]]:
        """Every item."""
        for item in self.items:
            yield {"case": str(item["case"])}, self.load(item)

    def load(self, item: Mapping[str, Any]) -> Any:
        """What :meth:`trial` needs of an item, cut to the region."""
        return load_truth(self.preprocessing, item, self.region)

    def crop(self, volume: Tensor) -> Tensor:
        """The central box of a volume (1, X, Y, Z)."""
        return volume if self.region is None else CenterSpatialCrop(self.region)(volume)

    def trial(self, case: str, loaded: Any, setting: Mapping[str, Any]) -> Trial:
        """Degrade what was loaded, a volume (1, X, Y, Z)."""
        truth: Tensor = loaded
        factors, profile = setting["factors"], setting.get("profile", "box")
        measurement = measurement_for(truth.shape[1:], factors, profile)
        low, mask = measurement(truth), truth[0] > 0

        def measure(result: Tensor) -> dict[str, Any]:
            figures: dict[str, Any] = dict(
                volume_metrics(result[0], truth[0], mask, 1.0, self.sharpness_axes)
            )
            figures |= self.realism(result[0], truth[0], mask) if self.realism else {}
            return figures | {"consistency": float((measurement(result) - low).abs().mean())}

        baselines = {
            "cubic": lambda: measurement.interpolate(low).clamp(min=0),
            "restored spline": lambda: measurement.restore(low).clamp(min=0),
        }
        condition = thick_slice(MetaTensor(truth, meta={"case": case}), factors, profile)
        return Trial(condition[None], measure, baselines)

    def methods(
        self, place: Names, loaded: Any, setting: Mapping[str, Any]
    ) -> Iterator[tuple[Names, Measure]]:
        """Interpolations, then every fusion and every further network over the dial."""
        trial = self.trial(place["case"], loaded, setting)

        def entry(method: str, point: DialPoint, restore: Callable[[], Tensor]) -> tuple[Names, Measure]:
            names = {"method": method, "gain": f"{point[2]:g}"} | dial_names(*point[:2])
            return names, partial(self.measure, trial, method, restore)

        for method, baseline in trial.baselines.items():
            yield entry(method, (0, None, 1.0), baseline)
        inputs = trial.inputs.to(self.device)
        drawn: dict[str, Drawn] = {name: {} for name in (*self.fusions, *self.baselines)}
        for point in self.dial:
            for fusion in self.fusions:
                run = partial(self.restore, inputs, fusion, point, drawn[fusion], trial.scale)
                yield entry(fusion, point, run)
        for point in self.dial:
            for method, other in self.baselines.items():
                if other.has(point):
                    yield entry(method, point, partial(other.restore, inputs, point, drawn[method]))

    def measure(self, trial: Trial, method: str, restore: Callable[[], Tensor]) -> dict[str, Any]:
        """Figures of what a method restores, the seconds it took, and the mark of its weights."""
        started = time.perf_counter()
        result = restore()
        seconds = time.perf_counter() - started
        mark = self.marks.of(method)
        return trial.measure(result) | {"seconds": seconds} | ({MARK: mark} if mark else {})

    def key_of(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """The key of a row, :func:`row_key`."""
        return row_key(row)

    def restore(
        self,
        inputs: Tensor,
        fusion: str,
        point: DialPoint,
        drawn: Drawn | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """One volume (1, X, Y, Z) of scaled conditions (1, M, X, Y, Z), see :func:`restore_at`."""
        inferer = self.inferer.changed(fusion=fusion)
        return restore_at(inferer, self.network, inputs, point, drawn) * scale


def dial_point(values: Sequence[Any]) -> DialPoint:
    """Passes, restart and gain of a dial's entry; the gain may be left out."""
    steps, restart, gain = (*values, 1.0)[:3]
    return int(steps), restart, float(gain)


def row_key(row: Mapping[str, str]) -> tuple[str, ...]:
    """What identifies a row; tables from before there were gains have none, which is 1."""
    return tuple(row.get(key) or ("1" if key == "gain" else "") for key in KEYS)


def load_truth(
    preprocessing: Callable[[Mapping[str, Any]], dict[str, Any]],
    item: Mapping[str, Any],
    region: Sequence[int] | None = None,
) -> Tensor:
    """The scaled ``label`` of an item, (1, X, Y, Z), or its central box of ``region`` voxels."""
    truth = preprocessing(item)["label"]
    if region is not None:
        truth = CenterSpatialCrop(region)(truth)
    return torch.as_tensor(truth).float()
