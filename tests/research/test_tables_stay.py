"""Studies write the tables that they wrote before: columns, rows in their order, figures to rounding.

Those of one contrast in tests/research/tables were written by the code of commit 81979ff, those of several
when experts became joint. A change of what is measured is meant to change them.
"""

import csv
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from small_sweep import grouped, small_sweep
from torch import nn

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget
from research.studies.lesion_check import LesionCheck
from research.studies.segmentation_sweep import SegmentationSweep
from research.studies.spread_calibration import SpreadCalibration
from research.studies.subset_calibration import SubsetSpreadCalibration
from research.studies.subset_sweep import SubsetSweep

STORED = Path(__file__).with_name("tables")
SIZE = (20, 20, 20)
CONTRASTS = ("T1w", "FLAIR")
LESION = {"label": "scan", "lesion": "lesion", "case": "sub-1"}


def ball(centre: tuple[int, int, int], radius: float) -> torch.Tensor:
    grid = torch.meshgrid(*map(torch.arange, SIZE), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def load(item: dict) -> dict:
    """Preprocessing: a brain of waves with a bright lesion, in two contrasts."""
    lesion = ball((14, 10, 10), 2)
    if item.get("label") == "lesion":
        return {**item, "label": MetaTensor(lesion[None].float())}
    x, y, z = torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij")
    phase = len(item["case"])
    waves = 0.5 + 0.1 * torch.sin(0.9 * x + phase) + 0.1 * torch.cos(0.7 * y) * torch.sin(1.1 * z)
    volume = ball((10, 10, 10), 8) * waves + 0.3 * lesion
    one = MetaTensor(volume[None].float())
    return {**item, "label": one, "T1w": one, "FLAIR": one**2, "lesions": MetaTensor(lesion[None].float())}


class Bright(nn.Module):
    """One fold that calls bright what is above the middle."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :1] - 0.5


@pytest.fixture
def studies(tiny_ensembler, tmp_path) -> dict:
    """Name of each stored table to a small study that is not run yet."""
    for name, digits in (("model.pt", "0123456789ab"), ("segmentation.pt", "fedcba987654")):
        (tmp_path / f"{name}.sha256").write_text(f"{digits}ff  {name}\n")
    model, plain = tmp_path / "model.pt", {"progress": False, "amp": False}
    brain = {"target": ResidualTarget("brain", 0.3, 1)}
    one = {
        "preprocessing": load,
        "network": tiny_ensembler(),
        "inferer": DiffEnsemblerInferer.of(TrailingDDIMScheduler(), **plain),
        "settings": {"4 mm axial": {"factors": [1, 1, 4]}, "x2": {"factors": [2, 2, 2]}},
        "weights_file": model,
    }
    several = {
        "preprocessing": load,
        "network": tiny_ensembler(conditions=CONTRASTS),
        "inferer": DiffEnsemblerInferer.of(TrailingDDIMScheduler(), **plain, **brain),
        "settings": {"T1w": {"contrasts": ["T1w"]}, "both": {"contrasts": list(CONTRASTS)}},
        "contrasts": CONTRASTS,
        "factors": (2, 2, 2),
        "fusions": ["mean", "calibrated"],
        "dial": [[1, None]],
        "items": [{"case": "sub-1"}],
    }
    calibrated = [{"label": "scan", "case": case} for case in ("val-1", "sub-10", "sub-100")]
    sweep, _ = small_sweep(tiny_ensembler, tmp_path, weights_files=[model])
    subsets = SubsetSweep(**grouped(several | {"output_dir": tmp_path}))
    return {
        "sweep": sweep,
        "subsets": SubsetSweep(
            **grouped(several | {"weights_files": [model], "output_dir": tmp_path / "subsets"})
        ),
        "spread": SpreadCalibration(
            fit_items=calibrated[:1],
            num_samples=2,
            dial=[[1, None], [2, 0.5]],
            output_dir=tmp_path,
            **grouped(one | {"items": calibrated[1:]}),
        ),
        "subset_spread": SubsetSpreadCalibration(
            subsets, [{"case": "sub-1"}], [{"case": "val-12"}], [[1, None]], 2, model, tmp_path / "subsets"
        ),
        "lesions": LesionCheck(
            fusions=["mean", "axial"],
            sizes=[(20, 60)],
            dial=[[1, None]],
            output_dir=tmp_path,
            **grouped(one | {"items": [LESION], "region": (20, 20, 20)}),
        ),
        "segmentation": SegmentationSweep(
            segmenter=Bright(),
            windows=SlidingWindowInferer([16, 16, 16], overlap=0.25),
            segmentation_weights=tmp_path / "segmentation.pt",
            segmented=("FLAIR", "T1w"),
            weights_files=[model],
            output_dir=tmp_path,
            **grouped(several | {"region": (12, 12, 12)}),
        ),
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize("name", ["sweep", "subsets", "spread", "subset_spread", "lesions", "segmentation"])
def test_a_table_is_what_it_was(name, studies):
    found, stored = (rows_of(path) for path in (studies[name].run(), STORED / f"{name}.csv"))
    assert [list(row) for row in found] == [list(row) for row in stored]
    for row, before in zip(found, stored, strict=True):
        for key, text in before.items():
            if key != "seconds":
                expected = number(text)
                close = expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-3, abs=1e-4)
                assert number(row[key]) == close, (row, key)
