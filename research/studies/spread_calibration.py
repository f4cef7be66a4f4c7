"""Does the spread cover the error? Measured on volumes whose truth is known, its floor fitted on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_diffens.transforms.describe import unseen_detail
from monai_diffens.transforms.thick_slices import thick_slice
from research.metrics.uncertainty import fitted_floor, spread_metrics
from research.studies.study import Measure, Model, Names, Study, Volumes, dial_names
from research.studies.sweep import load_truth
from research.studies.tables import MethodMarks, read_table

KEYS = ("weights", "split", "setting", "case", "num_steps", "restart", "num_samples")


class SpreadCalibration(Study):
    """Sample degraded volumes several times, and compare spread and error inside the brain.

    The volumes of ``fit_items`` come first: the floor that brings the share of their errors within one
    spread to 68.3 % (:func:`fitted_floor`) is what raises the spread of ``items``. Rows of other weights are
    dropped from the table; rows of these weights are not computed again.

    Args:
        volumes: those that are reported on (split "test"); of ``region`` the central box.
        fit_items: volumes that the floor is fitted on (split "val").
        model: what restores them, with its inferer's fusion.
        settings: name -> {"factors": ..., "profile": ...}, as for the sweep.
        dial: (num_steps, restart or None) pairs.
        num_samples: samples a volume.
        weights_file: its recorded hash marks the rows.
        output_dir: receives ``spread.csv``.

    Raises:
        ValueError: no volumes to fit on, or fewer than two samples.
    """

    keys = KEYS
    needed = "floor"

    def __init__(
        self,
        volumes: Volumes,
        fit_items: Sequence[Mapping[str, Any]],
        model: Model,
        settings: Mapping[str, Mapping[str, Any]],
        dial: Sequence[tuple[int, float | None]],
        num_samples: int,
        weights_file: str | Path,
        output_dir: str | Path,
    ) -> None:
        if not fit_items or num_samples < 2:
            raise ValueError("volumes to fit the floor on and two samples or more are needed")
        super().__init__(Path(output_dir) / "spread.csv", settings, MethodMarks(weights_file))
        self.splits = {"val": fit_items, "test": volumes.items}
        self.preprocessing, self.region = volumes.preprocessing, volumes.region
        self.network, self.device = model.network, model.device
        self.num_samples = int(num_samples)
        self.inferer = model.inferer.changed(spread=True, num_samples=self.num_samples)
        self.dial = [(int(steps), restart) for steps, restart in dial]

    def cases(self) -> Iterator[tuple[Names, Any]]:
        """Volumes of val, which the floor is fitted on, then of test."""
        for split, items in self.splits.items():
            for item in items:
                yield {"split": split, "case": str(item["case"])}, self.load(item)

    def methods(
        self, place: Names, loaded: Any, setting: Mapping[str, Any]
    ) -> Iterator[tuple[Names, Measure]]:
        """Every point of the dial."""
        for steps, restart in self.dial:
            names = {"num_samples": str(self.num_samples)} | dial_names(steps, restart)
            yield names, partial(self.figures, place | names, loaded, setting, steps, restart)

    def figures(
        self, names: Names, loaded: Any, setting: Mapping[str, Any], steps: int, restart: float | None
    ) -> dict[str, float]:
        """Figures of the spread as it is ("raw") and with the floor."""
        error, spread, detail = self.sample(names["case"], loaded, setting, steps, restart)
        own = fitted_floor(error, spread, detail)
        floor = own if names["split"] == "val" else mean_floor(read_table(self.table), names)
        figures = {f"raw_{k}": v for k, v in spread_metrics(error, spread).items()}
        figures |= spread_metrics(error, np.hypot(spread, floor * detail))
        return {"floor": floor, "own_floor": own} | figures

    def load(self, item: Mapping[str, Any]) -> Any:
        """What :meth:`sample` needs of an item, cut to the region."""
        return load_truth(self.preprocessing, item, self.region)

    def sample(
        self, case: str, loaded: Any, setting: Mapping[str, Any], steps: int, restart: float | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error, spread and unseen detail (N,) of the voxels of a truth (1, X, Y, Z) that are above zero."""
        truth: Tensor = loaded
        inferer = self.inferer.changed(num_steps=steps, restart=restart)
        named = MetaTensor(truth, meta={"case": case})
        scan = thick_slice(named, setting["factors"], setting.get("profile", "box"))
        mean, spread = torch.as_tensor(inferer(scan[None].to(self.device), self.network)[0]).cpu()
        inside = truth[0] > 0
        error = truth[0][inside] - mean.clamp(min=0)[inside]
        detail = unseen_detail(mean[None], cast(MetaTensor, scan).meta)[0]
        return error.numpy(), spread[inside].numpy(), detail[inside].numpy()


def mean_floor(rows: Sequence[Mapping[str, str]], key: Mapping[str, str]) -> float:
    """Mean floor of the ``val`` rows of a setting and dial.

    Raises:
        ValueError: there is none.
    """
    same = [k for k in KEYS if k not in ("split", "case")]
    floors = [
        float(row["floor"]) for row in rows if row["split"] == "val" and all(row[k] == key[k] for k in same)
    ]
    if not floors:
        raise ValueError(f"no val row of {', '.join(key[k] for k in same)}: the floor cannot be fitted")
    return float(np.mean(floors))
