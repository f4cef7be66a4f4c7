"""A small sweep over the dial that counts how often its network runs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from monai.data import MetaTensor

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from research.studies.study import Model, Volumes
from research.studies.sweep import KEYS, DialSweep
from research.studies.tables import MethodMarks

SIZE = (18, 20, 22)
SETTINGS = {
    "x2 pooled": {"factors": [2, 2, 2]},
    "5 mm sagittal": {"factors": [5, 1, 1], "profile": "gaussian"},
}
FUSIONS = ("mean", "calibrated")
DIAL = [[1, None], (2, None), (2, 0.5), [2, 0.5, 1.5]]  # as JSON and as Python give it
INTERPOLATIONS = ("cubic", "restored spline")


def load(item) -> dict:
    """Preprocessing: a ball of texture on 0, by the case's number."""
    generator = torch.Generator().manual_seed(int(item["case"][-1]))
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SIZE), indexing="ij")
    volume = (sum(axis**2 for axis in grid) < 1) * (0.3 + 0.6 * torch.rand(SIZE, generator=generator))
    return {**item, "label": MetaTensor(volume[None], meta={"filename_or_obj": item["label"]})}


def grouped(options: dict) -> dict:
    """Options of a study by name, those of its volumes, model and weights in their groups."""
    rest = dict(options)
    for name, kind in (("volumes", Volumes), ("model", Model)):
        rest[name] = kind(
            **{field.name: rest.pop(field.name) for field in fields(kind) if field.name in rest}
        )
    if "weights_files" in rest:
        rest["weights"] = MethodMarks(rest.pop("weights_files"), rest.pop("method_weights", None))
    return rest


def small_sweep(tiny_ensembler, folder: Path, **options) -> tuple[DialSweep, list[str]]:
    """A small DialSweep with these options, and the fusions of its network's runs."""
    network, runs = tiny_ensembler(), []
    taking_part = network.taking_part

    def counted(conditions, fusion, *arguments):
        runs.append(fusion)
        return taking_part(conditions, fusion, *arguments)

    network.taking_part = counted
    small = {
        "items": [{"label": "/data/x.nii.gz", "case": case} for case in ("sub-1", "sub-2")],
        "preprocessing": load,
        "network": network,
        "inferer": DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False),
        "settings": SETTINGS,
        "fusions": FUSIONS,
        "dial": DIAL,
        "output_dir": folder / "results" / "val",
    }
    return DialSweep(**grouped(small | options)), runs


def keys(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """What identifies each row."""
    return [tuple(row[key] for key in KEYS) for row in rows]
