"""Calibration of the spread and the lesion check: real networks on small volumes, tables and reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from small_sweep import grouped

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.options import values_of
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from research.data_pack import label_path, labelled_volumes
from research.studies.lesion_check import LesionCheck, recovered
from research.studies.spread_calibration import SpreadCalibration, mean_floor
from research.studies.tables import read_table
from research.tables.trust_report import write_lesion_report, write_spread_report

SIZE = (20, 20, 20)
SETTINGS = {"4 mm axial": {"factors": [1, 1, 4]}}


def ball(centre, radius) -> torch.Tensor:
    grid = torch.meshgrid(*map(torch.arange, SIZE), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def load(item) -> dict:
    """Preprocessing: a brain with a bright lesion, and the lesion's label."""
    lesion = ball((14, 10, 10), 2)
    if item["label"] == "lesion":
        return {**item, "label": MetaTensor(lesion[None].float())}
    texture = 0.5 + 0.05 * torch.rand(SIZE, generator=torch.Generator().manual_seed(0))
    return {**item, "label": MetaTensor((ball((10, 10, 10), 8) * texture + 0.3 * lesion)[None])}


@pytest.fixture
def parts(tiny_ensembler, tmp_path) -> dict:
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    return {
        "preprocessing": load,
        "network": tiny_ensembler(),
        "inferer": DiffEnsemblerInferer.of(TrailingDDIMScheduler(), progress=False, amp=False),
        "settings": SETTINGS,
        "dial": [[1, None]],
        "weights_file": tmp_path / "model.pt",
        "output_dir": tmp_path / "trust",
    }


def calibration(parts, **options) -> SpreadCalibration:
    cases = [{"label": "scan", "case": case} for case in ("val-1", "test-1")]
    return SpreadCalibration(
        **grouped({"fit_items": cases[:1], "items": cases[1:], "num_samples": 3} | parts | options)
    )


def test_the_floor_is_fitted_on_val_and_applied_to_test(parts):
    table = calibration(parts).run()
    val, test = rows = read_table(table)
    assert [row["split"] for row in rows] == ["val", "test"] and {r["weights"] for r in rows} == {
        "0123456789ab"
    }
    assert float(val["floor"]) == float(val["own_floor"]) == float(test["floor"]) > 0
    assert float(val["within_1"]) == pytest.approx(0.683, abs=0.01) and float(val["raw_within_1"]) < 0.68
    # the same brain with other noise: what brings val to 0.683 brings test close to it
    assert float(test["within_1"]) == pytest.approx(0.683, abs=0.1)
    text = write_spread_report(table, "Note.").read_text()
    assert "Weights 0123456789ab. Test volumes: test-1;" in text and "val volumes val-1. Note." in text
    cells = (float(test[name]) for name in ("floor", "raw_within_1", "within_1"))
    assert f"| 4 mm axial | 1 | - | 3 | {' | '.join(f'{cell:.3f}' for cell in cells)} |" in text


def test_rows_are_kept_for_these_weights_and_dropped_for_others(parts, monkeypatch):
    table = calibration(parts).run()
    before = table.read_bytes()
    monkeypatch.setattr(SpreadCalibration, "sample", lambda *_: pytest.fail("computed again"))
    assert calibration(parts).run().read_bytes() == before
    monkeypatch.setattr(SpreadCalibration, "sample", lambda *_: (np.arange(9.0), np.ones(9), np.ones(9)))
    parts["weights_file"].with_name("model.pt.sha256").write_text("fedcba9876543210  model.pt\n")
    assert {row["weights"] for row in read_table(calibration(parts).run())} == {"fedcba987654"}


def test_what_cannot_be_fitted(parts, tmp_path):
    for options in ({"fit_items": []}, {"num_samples": 1}):
        with pytest.raises(ValueError, match="volumes to fit the floor on and two samples"):
            calibration(parts, **options)
    key = dict.fromkeys(("weights", "setting", "num_steps", "restart", "num_samples"), "x")
    with pytest.raises(ValueError, match="no val row"):
        mean_floor([], key)
    with pytest.raises(ValueError, match="no row of test volumes"):
        write_spread_report(tmp_path / "none.csv")


def test_lesions_appear_and_disappear(parts):
    items = [{"label": "scan", "lesion": "lesion", "case": "sub-1"}]
    options = {"fusions": ["mean", "axial"], "sizes": [(20, 60)], "region": (20, 20, 20)}
    check = LesionCheck(**grouped({"items": items} | parts | options))
    rows = read_table(check.run())
    methods = ["cubic", "restored spline", "mean", "axial"]
    assert [(r["change"], r["method"]) for r in rows] == [
        (c, m) for c in ("removed", "planted") for m in methods
    ]
    assert {row["volume"] for row in rows} == {"33"}
    for row in rows:
        assert float(row["contrast"]) == pytest.approx(0.3, abs=0.05)
        assert 0.4 < float(row["recovered"]) < 1.2  # thick slices blur a lesion of 5 voxels
    assert len(read_table(check.run())) == len(rows)  # nothing is computed twice
    text = write_lesion_report(check.table, [(20, 60)]).read_text()
    assert "## 4 mm axial, lesions of 20 to 60 mm³" in text
    assert text.count("| planted | mean | 1 | - | 1 |") == text.count("| removed | axial | 1 | - | 1 |") == 1
    with pytest.raises(ValueError, match="nothing was checked"):
        LesionCheck(
            **grouped(
                {"items": items}
                | parts
                | options
                | {"sizes": [(900, 999)], "output_dir": check.table.parent / "x"}
            )
        ).run()


def test_recovered_of_a_perfect_a_blind_and_a_blurring_method():
    mask = ball((10, 10, 10), 3).numpy()
    lesion = -0.2 * mask
    assert recovered(lesion, lesion, mask) == pytest.approx({"contrast": -0.2, "recovered": 1, "pattern": 1})
    assert recovered(0 * lesion, lesion, mask)["recovered"] == 0
    assert recovered(lesion / 2, lesion, mask) == pytest.approx(
        {"contrast": -0.2, "recovered": 0.5, "pattern": 0.5}
    )


def test_label_maps_of_the_data(data_dir):
    assert label_path(data_dir, "sub-lj19").name == "sub-lj19_desc-lesion_dseg.nii.gz"
    assert label_path(data_dir, "sub-upenn05") is None
    items = [{"subject": subject} for subject in ("sub-lj19", "sub-upenn05")]
    assert [item["subject"] for item in labelled_volumes(items, data_dir)] == ["sub-lj19"]


ROOT = Path(__file__).parents[2]
TABLES = ROOT / "docs" / "results" / "trust"


def shipped(bundle: str) -> dict:
    return values_of(json.loads((ROOT / "bundles" / bundle / "configs" / "inference.json").read_text()))


def fitted(table: Path) -> dict[str, float]:
    """Mean floor of each setting's val rows at one pass."""
    rows = [row for row in read_table(table) if row["split"] == "val" and row["num_steps"] == "1"]
    names = {row["setting"] for row in rows}
    return {name: np.mean([float(row["floor"]) for row in rows if row["setting"] == name]) for name in names}


def test_the_bundle_s_floor_is_the_mean_of_the_table_at_one_pass():
    floors = fitted(TABLES / "spread.csv")
    assert shipped("diffensembler_sr")["spread_floor"] == pytest.approx(
        np.mean(list(floors.values())), abs=0.05
    )


def test_the_translation_bundle_s_floors_are_the_means_with_and_without_a_flair():
    floors, config = fitted(TABLES / "translation" / "spread.csv"), shipped("diffensembler_translate")
    for option, measured in (("spread_floor", True), ("spread_floor_unmeasured", False)):
        means = [floor for name, floor in floors.items() if ("FLAIR" in name) == measured]
        assert len(means) >= 2 and config[option] == pytest.approx(np.mean(means), abs=0.05), option
