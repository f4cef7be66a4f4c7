"""Calibration of the spread for translation: every subset of conditions, as its sweep degrades them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.describe import unseen_detail
from monai_diffens.transforms.intensity import foreground_percentile
from research.studies.spread_calibration import SpreadCalibration
from research.studies.study import Model, Volumes
from research.studies.subset_sweep import PEAK_PERCENTILE, SubsetSweep


class SubsetSpreadCalibration(SpreadCalibration):
    """Does the spread of a synthesised contrast cover its error, for each subset of conditions?

    Args:
        sweep: loads cases and makes what the network gets; its network, inferer, settings, region and device
            are used.
        items: cases that are reported on (split "test").
        fit_items: cases that the floor is fitted on (split "val").
        dial: (num_steps, restart or None) pairs.
        num_samples: samples a case.
        weights_file: its recorded hash marks the rows.
        output_dir: receives ``spread.csv``.

    Raises:
        ValueError: no cases to fit on, or fewer than two samples.
    """

    def __init__(
        self,
        sweep: SubsetSweep,
        items: Sequence[Mapping[str, Any]],
        fit_items: Sequence[Mapping[str, Any]],
        dial: Sequence[tuple[int, float | None]],
        num_samples: int,
        weights_file: str | Path,
        output_dir: str | Path,
    ) -> None:
        super().__init__(
            Volumes(items, sweep.preprocessing, sweep.region),
            fit_items,
            Model(sweep.network, sweep.inferer, sweep.device),
            sweep.settings,
            dial,
            num_samples,
            weights_file,
            output_dir,
        )
        self.sweep = sweep

    def applies(self, loaded: Any, setting: Mapping[str, Any]) -> bool:
        """As the sweep."""
        return self.sweep.applies(loaded, setting)

    def load(self, item: Mapping[str, Any]) -> Any:
        """Contrasts and labels of a case."""
        return self.sweep.load(item)

    def sample(
        self, case: str, loaded: Any, setting: Mapping[str, Any], steps: int, restart: float | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Error, spread, unseen detail (N,) of the target's voxels above zero, over its 99.5th percentile."""
        trial = self.sweep.trial(case, loaded, setting)
        truth = loaded[self.sweep.target]
        scale = trial.scale / foreground_percentile(truth, PEAK_PERCENTILE)
        inferer = self.inferer.changed(num_steps=steps, restart=restart)
        result = torch.as_tensor(inferer(trial.inputs.to(self.device), self.network)[0]).cpu() * scale
        mean, spread = result[:1].clamp(min=0), result[1:]
        error = truth * (scale / trial.scale) - mean
        detail = unseen_detail(mean, cast(MetaTensor, trial.inputs).meta, unmeasured=3)
        inside = truth > 0
        return error[inside].numpy(), spread[inside].numpy(), detail[inside].numpy()
