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
            truth = self.preprocessing(item)["label"]
            if self.region is not None:
                truth = CenterSpatialCrop(self.region)(truth)
            for name, setting in self.settings.items():
                self.sweep_case(str(item["case"]), torch.as_tensor(truth).float(), name, setting, done)
        return self.table

    def sweep_case(
        self, case: str, truth: Tensor, name: str, setting: Mapping[str, Any], done: set[tuple[str, ...]]
    ) -> None:
        """All methods on one degraded volume (1, X, Y, Z)."""
        measurement = measurement_for(truth.shape[1:], setting["factors"], setting.get("profile", "box"))
        low = measurement(truth)
        mask = truth[0] > 0

        def measure(method: str, steps: int, restart: float | None, restore: Callable[[], Tensor]) -> None:
            key = (name, case, method, str(steps), "" if restart is None else str(restart))
            if key in done:
                return
            started = time.perf_counter()
            result = restore()
            seconds = time.perf_counter() - started
            row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
            row |= volume_metrics(result[0], truth[0], mask, data_range=1.0)
            row["consistency"] = float((measurement(result) - low).abs().mean())
            row["seconds"] = seconds
            append_row(self.table, row)
            logger.info("%s: %s", " ".join(key), {k: round(v, 3) for k, v in row.items() if k not in KEYS})

        measure("cubic", 0, None, lambda: measurement.interpolate(low).clamp(min=0))
        measure("restored spline", 0, None, lambda: measurement.restore(low).clamp(min=0))
        named = MetaTensor(truth, meta={"case": case})
        condition = thick_slice(named, setting["factors"], setting.get("profile", "box"))
        inputs = condition[None].to(self.device)
        for steps, restart in self.dial:
            for fusion in self.fusions:
                measure(fusion, steps, restart, partial(self.restore, inputs, fusion, steps, restart))

    def restore(self, inputs: Tensor, fusion: str, steps: int, restart: float | None) -> Tensor:
        """One volume (1, X, Y, Z) of scaled conditions (1, M, X, Y, Z), on the CPU."""
        inferer = copy.copy(self.inferer)
        inferer.fusion, inferer.num_steps, inferer.restart = fusion, steps, restart
        return torch.as_tensor(inferer(inputs, self.network)[0]).clamp(min=0).cpu()


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
