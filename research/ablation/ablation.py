"""Ablations of the learned fusion: short trainings, judged on held-out draws and on samples."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import SpatialCrop
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

from monai_diffens.engines.fusion import RelativeSquaredError, average_error
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from research.ablation.feature_fusion import FeatureFusionStep
from research.ablation.variant_training import FUSION_FILE, VariantTraining, claim, variant_of
from research.studies.baselines import DialPoint
from research.studies.subset_sweep import SubsetSweep
from research.studies.sweep import dial_point
from research.studies.tables import MethodMarks, append_row, read_table

logger = logging.getLogger(__name__)

SHIPPED, MEAN, REFERENCE = "shipped weights", "plain average", "reference"
TABLES = ("training", "held_out", "samples")


class CropSweep(SubsetSweep):
    """A :class:`SubsetSweep` on several crops of each case, to see how much figures vary.

    Args:
        offsets: of the crops' centres from the centre of the target's foreground, in voxels.
        weights_files: of :class:`SubsetSweep`.
        **options: likewise; ``region`` is a crop's size.
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[int]],
        weights_files: Sequence[str | Path | None] = (),
        **options: Any,
    ) -> None:
        super().__init__(weights_files=weights_files, **options)
        self.weights_files = tuple(weights_files)
        if self.region is None:
            raise ValueError("crops need a region")
        self.loaded: dict[str, dict[str, Tensor]] = {}
        items = [(item, offset) for item in self.items for offset in offsets]
        self.items = [
            {**item, "case": f"{item['case']} crop {number % len(offsets) + 1}", "offset": tuple(offset)}
            for number, (item, offset) in enumerate(items)
        ]

    def load(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        """The contrasts of one crop."""
        path = str(item[self.target])
        if path not in self.loaded:
            whole = copy.copy(self)
            whole.region = None
            self.loaded[path] = super(CropSweep, whole).load(item)
        volumes = self.loaded[path]
        start, stop = generate_spatial_bounding_box(volumes[self.target])
        centre = [(a + b) // 2 + o for a, b, o in zip(start, stop, item["offset"], strict=True)]
        crop = SpatialCrop(roi_center=centre, roi_size=self.region)
        return {key: torch.as_tensor(crop(volume)) for key, volume in volumes.items()}


class AblationStudy:
    """Train variants of the fusion, and measure each on held-out draws and on samples of crops.

    A run that was killed goes on with what is missing: draws, epochs, samples. Every variant is sampled at
    the dial's first point before any is at the next; the tables are put together anew on the way.

    Args:
        sweep: what is sampled and measured; its network has the shipped weights, its dial is every variant's.
        training: trains the variants.
        variants: name -> arguments of :class:`Variant`; "reference" among them.
        steps: further dial points, of the reference, the plain average and the shipped weights.
        conditions: subsets that held-out draws are fused with, where they have them.
        output_dir: receives ``training.csv``, ``held_out.csv`` and ``samples.csv``.
    """

    def __init__(
        self,
        sweep: CropSweep,
        training: VariantTraining,
        variants: Mapping[str, Mapping[str, Any]],
        steps: Sequence[Sequence[Any]],
        conditions: Sequence[Sequence[str]],
        output_dir: str | Path,
    ) -> None:
        self.sweep = sweep
        self.training = training
        self.variants = {name: variant_of(options) for name, options in variants.items()}
        if REFERENCE not in self.variants:
            raise ValueError(f"no variant is called '{REFERENCE}'")
        self.steps = [dial_point(point) for point in steps]
        self.conditions = [tuple(subset) for subset in conditions]
        self.output_dir = Path(output_dir)

    def run(self) -> Path:
        """Do what is missing, and return the folder of the tables."""
        held_out = self.training.held_out().entries
        claim(self.training.variant_folder(SHIPPED), self.training.draw_settings)
        first, *others = [*self.sweep.dial, *self.steps]
        networks = {SHIPPED: self.sweep.network}
        self.compare(SHIPPED, self.sweep.network, held_out)
        self.sample(SHIPPED, self.sweep.network, first)
        rows = []
        for name, variant in self.variants.items():
            networks[name], row = self.training.trained(name, variant)
            rows.append(row)
            self.compare(name, networks[name], held_out)
            self.sample(name, networks[name], first)
            self.join(rows)
        for point in others:
            for name, network in networks.items():
                if point in self.sweep.dial or name in (SHIPPED, REFERENCE):
                    self.sample(name, network, point)
                    self.join(rows)
        return self.output_dir

    def compare(self, name: str, network: DiffEnsembler, held_out: Iterable[Mapping[str, Any]]) -> None:
        """Measure a variant on held-out draws."""
        table = self.training.variant_folder(name) / "held_out.csv"
        done = {(row["conditions"], row["draw"]) for row in read_table(table)}
        for number, entry in enumerate(held_out):
            for label, present in self.subsets(entry["present"]).items():
                if (label, str(number)) not in done:
                    error = relative_error(network, entry, present)
                    row = {"conditions": label, "draw": number, "timestep": entry["timestep"]}
                    append_row(table, row | {"relative_error": error})

    def sample(self, name: str, network: DiffEnsembler, point: DialPoint) -> None:
        """Measure a variant's samples at one point of the dial; of the shipped weights also the mean's."""
        folder = self.training.variant_folder(name)
        sweep = copy.copy(self.sweep)
        sweep.network, sweep.dial = network.eval(), [point]
        sweep.fusions = ("mean", "calibrated") if name == SHIPPED else ("calibrated",)
        sweep.table = folder / "sweep.csv"
        if (folder / FUSION_FILE).is_file():
            sweep.marks = MethodMarks((*self.sweep.weights_files, folder / FUSION_FILE))
        sweep.run()

    def subsets(self, present: Tensor) -> dict[str, Tensor]:
        """Those of ``conditions`` that a draw has, by name, as (M,) bool."""
        names = self.sweep.contrasts
        found = {}
        for subset in self.conditions:
            wanted = torch.tensor([name in subset for name in names])
            if bool((present[wanted]).all()):
                found[" + ".join(subset)] = wanted
        return found

    def join(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write the tables of all variants."""
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        tables["training"] = [dict(row) for row in rows]
        for name in (SHIPPED, *(row["variant"] for row in rows)):
            folder = self.training.variant_folder(name)
            tables["held_out"] += [{"variant": name} | row for row in read_table(folder / "held_out.csv")]
            for row in read_table(folder / "sweep.csv"):
                kept = {key: value for key, value in row.items() if key not in ("seconds", "weights", "gain")}
                method = kept.pop("method")
                called = {"calibrated": name, "mean": MEAN}.get(method, method)
                if name == SHIPPED or called == name:  # what has no fusion is the same for all
                    tables["samples"].append({"variant": called} | kept)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, content in tables.items():
            path = self.output_dir / f"{name}.csv"
            path.unlink(missing_ok=True)
            for row in content:
                append_row(path, row)
        return self.output_dir


@torch.no_grad()
def relative_error(network: DiffEnsembler, entry: Mapping[str, Any], present: Tensor) -> float:
    """Squared error of the fusion of a whole draw over that of the plain average.

    Args:
        network: the fusion.
        entry: of :class:`~research.ablation.study_replay.StudyReplay`.
        present: (M,) bool, the conditions to use.
    """
    count = len(present)
    volumes = entry["volumes"].float()[None]
    experts = present.repeat(len(network.bank.planes))[None]
    maps = None
    if network.alignment is not None:
        maps = {plane: each.float()[None] for plane, each in entry["maps"].items()}
    conditions = volumes[:, 2 : 2 + count] * present[None, :, None, None, None]
    timestep = torch.tensor([entry["timestep"]])
    step = FeatureFusionStep(network)
    prediction = step(volumes[:, :1], conditions, volumes[:, 2 + count :], timestep, experts, maps)
    baseline = average_error(entry["gram"][None], experts)
    return float(RelativeSquaredError()(prediction, (volumes[:, 1:2], baseline)))
