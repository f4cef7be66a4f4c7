"""Evaluation over the dial: every fusion at several numbers of steps, beside interpolation, in one run.

More denoising steps give sharper volumes of lower PSNR (arXiv 1711.06077), so samplers are compared by
their curves of distortion against sharpness, never by PSNR alone.
"""

from __future__ import annotations

import copy
import csv
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop
from torch import Tensor

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.metrics import volume_metrics
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice

logger = logging.getLogger(__name__)

KEYS = ("setting", "case", "method", "num_steps", "restart")


@dataclass
class Trial:
    """One case in one setting.

    Attributes:
        inputs: (1, M, X, Y, Z) scaled conditions, a MetaTensor whose ``meta`` names the case.
        measure: figures of a result (1, X, Y, Z).
        baselines: results that need no network, by name.
        scale: factor from the network's result to what ``measure`` takes.
    """

    inputs: Tensor
    measure: Callable[[Tensor], dict[str, Any]]
    baselines: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    scale: float = 1.0


class DialSweep:
    """Degrade test volumes, restore them in every way, and measure against the truth.

    Args:
        items: volumes with ``label`` (path) and ``case``.
        preprocessing: loads an item and scales its ``label`` (1, X, Y, Z) to [0, about 1].
        network: the model, on ``device``.
        inferer: its scheduler, seed and residual scale are used; fusion and steps are swept.
        settings: name -> {"factors": 3 slice spacings in voxels, "profile": "box" or "gaussian"}.
        fusions: fusion modes to sweep.
        dial: (num_steps, restart or None) pairs.
        output_dir: receives ``sweep.csv``; rows already in it are not computed again.
        region: side lengths of the central box that is restored, in voxels; the whole volume when None.
        device: where to run.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        preprocessing: Callable[[Mapping[str, Any]], dict[str, Any]],
        network: DiffEnsembler,
        inferer: DiffEnsemblerInferer,
        settings: Mapping[str, Mapping[str, Any]],
        fusions: Sequence[str],
        dial: Sequence[tuple[int, float | None]],
        output_dir: str | Path,
        region: Sequence[int] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.items = items
        self.preprocessing = preprocessing
        self.network = network.eval()
        self.inferer = inferer
        self.settings = settings
        self.fusions = tuple(fusions)
        self.dial = [(int(steps), restart) for steps, restart in dial]
        self.table = Path(output_dir) / "sweep.csv"
        self.region = region
        self.device = device
        for fusion in self.fusions:
            network.check_fusion(fusion)

    def run(self) -> Path:
        """Compute what is missing in the table, and return its path."""
        self.table.parent.mkdir(parents=True, exist_ok=True)
        done = {tuple(row[key] for key in KEYS) for row in read_table(self.table)}
        for item in self.items:
            loaded = self.load(item)
            for name, setting in self.settings.items():
                self.sweep_case(str(item["case"]), loaded, name, setting, done)
        return self.table

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
            figures = volume_metrics(result[0], truth[0], mask, data_range=1.0)
            return figures | {"consistency": float((measurement(result) - low).abs().mean())}

        baselines = {
            "cubic": lambda: measurement.interpolate(low).clamp(min=0),
            "restored spline": lambda: measurement.restore(low).clamp(min=0),
        }
        condition = thick_slice(MetaTensor(truth, meta={"case": case}), factors, profile)
        return Trial(condition[None], measure, baselines)

    def sweep_case(
        self, case: str, loaded: Any, name: str, setting: Mapping[str, Any], done: set[tuple[str, ...]]
    ) -> None:
        """All methods on one case in one setting."""
        trial = self.trial(case, loaded, setting)

        def measure(method: str, steps: int, restart: float | None, restore: Callable[[], Tensor]) -> None:
            key = (name, case, method, str(steps), "" if restart is None else str(restart))
            if key in done:
                return
            started = time.perf_counter()
            result = restore()
            seconds = time.perf_counter() - started
            row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | trial.measure(result)
            row["seconds"] = seconds
            append_row(self.table, row)
            figures = {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}
            logger.info("%s: %s", " ".join(key), figures)

        for method, baseline in trial.baselines.items():
            measure(method, 0, None, baseline)
        inputs = trial.inputs.to(self.device)
        for steps, restart in self.dial:
            for fusion in self.fusions:
                restore = partial(self.restore, inputs, fusion, steps, restart, trial.scale)
                measure(fusion, steps, restart, restore)

    def restore(
        self, inputs: Tensor, fusion: str, steps: int, restart: float | None, scale: float = 1.0
    ) -> Tensor:
        """One volume (1, X, Y, Z) of scaled conditions (1, M, X, Y, Z), on the CPU."""
        inferer = copy.copy(self.inferer)
        inferer.fusion, inferer.num_steps, inferer.restart = fusion, steps, restart
        return torch.as_tensor(inferer(inputs, self.network)[0]).clamp(min=0).cpu() * scale


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


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a sweep's table; empty when there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, with a header when the file is new."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        rounded = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()}
        writer.writerow(rounded)
