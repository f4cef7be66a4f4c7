"""Hallucination check: lesions planted into or removed from inputs must appear or disappear in the output.

Real lesions are used. The difference of a lesion to the tissue around it is taken away from the truth, or
added at the mirrored place of the other hemisphere; both truths are thick-sliced and restored with the same
noise, and the outputs' difference is compared with the truths'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.metrics.lesions import Change, lesion_box, lesion_changes
from research.studies.study import Measure, Model, Names, Study, Volumes, dial_names
from research.studies.sweep import load_truth
from research.studies.tables import MethodMarks

KEYS = ("weights", "setting", "case", "lesion", "change", "method", "num_steps", "restart")


class LesionCheck(Study):
    """Measure how much of a lesion's contrast every method gives back.

    Args:
        volumes: their items have ``lesion`` too (path of a label map on the same grid); loaded in RAS order.
            ``region`` is the box around a lesion that is restored, 64 voxels a side when None.
        model: what restores them.
        settings: name -> {"factors": ..., "profile": ...}, as for the sweep.
        fusions: fusion modes.
        dial: (num_steps, restart or None) pairs.
        sizes: lesion volumes in voxels, (least, most) a size class; of each class the largest
            ``per_class`` lesions of enough contrast are removed, and as many planted.
        weights_file: its recorded hash marks the rows.
        output_dir: receives ``lesions.csv``; rows of these weights are not computed again.
        per_class: lesions a volume and size class.
    """

    keys = KEYS

    def __init__(
        self,
        volumes: Volumes,
        model: Model,
        settings: Mapping[str, Mapping[str, Any]],
        fusions: Sequence[str],
        dial: Sequence[tuple[int, float | None]],
        sizes: Sequence[tuple[int, int]],
        weights_file: str | Path,
        output_dir: str | Path,
        per_class: int = 2,
    ) -> None:
        super().__init__(Path(output_dir) / "lesions.csv", settings, MethodMarks(weights_file))
        self.items, self.preprocessing = volumes.items, volumes.preprocessing
        self.region = tuple(volumes.region or (64, 64, 64))
        self.network, self.inferer, self.device = model.network, model.inferer, model.device
        self.fusions = tuple(fusions)
        self.dial = [(int(steps), restart) for steps, restart in dial]
        self.sizes, self.per_class = sizes, per_class
        for fusion in self.fusions:
            self.network.check_fusion(fusion)

    def run(self) -> Path:
        """Compute what is missing in the table, and return its path.

        Raises:
            ValueError: no volume has a lesion of the wanted sizes and of enough contrast.
        """
        table = super().run()
        if not table.is_file():
            raise ValueError("no lesion of the wanted sizes and of enough contrast: nothing was checked")
        return table

    def cases(self) -> Iterator[tuple[Names, Change]]:
        """Every lesion that is planted or removed, in its box."""
        for item in self.items:
            truth = load_truth(self.preprocessing, item)[0].numpy()
            label = load_truth(self.preprocessing, {**item, "label": item["lesion"]})[0].numpy() > 0
            for change in lesion_changes(truth, label, self.sizes, self.per_class):
                names = {"case": str(item["case"]), "lesion": str(change.number), "change": change.kind}
                yield names, change.inside(lesion_box(change.mask, self.region))

    def methods(
        self, place: Names, loaded: Change, setting: Mapping[str, Any]
    ) -> Iterator[tuple[Names, Measure]]:
        """Interpolations, then every fusion over the dial."""
        factors, profile = setting["factors"], setting.get("profile", "box")
        measurement = measurement_for(loaded.without.shape, factors, profile)

        def entry(
            method: str, steps: int, restart: float | None, restore: Callable[[Tensor], Tensor]
        ) -> tuple[Names, Measure]:
            return {"method": method} | dial_names(steps, restart), partial(self.measure, loaded, restore)

        yield entry("cubic", 0, None, lambda truth: measurement.interpolate(measurement(truth)))
        yield entry("restored spline", 0, None, lambda truth: measurement.restore(measurement(truth)))
        for steps, restart in self.dial:
            for fusion in self.fusions:
                inferer = self.inferer.changed(fusion=fusion, num_steps=steps, restart=restart)

                def restore(truth: Tensor, inferer: DiffEnsemblerInferer = inferer) -> Tensor:
                    scan = thick_slice(MetaTensor(truth, meta={"case": place["case"]}), factors, profile)
                    return torch.as_tensor(inferer(scan[None].to(self.device), self.network)[0]).cpu()

                yield entry(fusion, steps, restart, restore)

    def measure(self, change: Change, restore: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """What a method gives back of a lesion's contrast."""
        found, without = (
            restore(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None])
            .clamp(min=0)[0]
            .numpy()
            for part in (change.without + change.difference, change.without)
        )
        return {"volume": change.volume} | recovered(found - without, change.difference, change.mask)


def recovered(
    found: NDArray[np.floating], difference: NDArray[np.floating], mask: NDArray[np.bool_]
) -> dict[str, float]:
    """How much of a lesion's difference an output shows; 1 is all of it.

    Args:
        found: (X, Y, Z), output with the lesion minus output without.
        difference: (X, Y, Z), the same of the truth.
        mask: (X, Y, Z) bool, the lesion.

    Returns:
        ``contrast``: mean difference of the truth inside the mask; ``recovered``: mean found inside the mask
        over it; ``pattern``: slope of found on difference over the whole box, which notes blur too.
    """
    contrast = float(difference[mask].mean())
    return {
        "contrast": contrast,
        "recovered": float(found[mask].mean()) / contrast,
        "pattern": float((found * difference).sum() / np.square(difference).sum()),
    }
