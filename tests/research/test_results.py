"""What the documents say is what the tables in docs/results hold: nobody typed a figure."""

import json
import shutil
from pathlib import Path

import pytest

from research.readme import results_table
from research.realism.realism import shipped_encoder
from research.studies.tables import MARK, read_table, weights_mark
from research.tables.model_card import cost_lines, write_card
from research.tables.sweep_report import write_report
from research.tables.trust_report import write_lesion_report, write_spread_report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
CONFIGS = ROOT / "research" / "configs"
TABLES = sorted(path.parent.name for path in RESULTS.glob("*/sweep.csv"))
CARDS = {"diffensembler_sr": "super_resolution", "diffensembler_translate": "translation"}


def tables(text: str) -> list[list[str | float]]:
    """Rows of a page's Markdown tables; what is a number as one."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[number(cell) for part in row for cell in part.split(" / ")] for row in rows]


def number(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def assert_same_tables(found: str, written: str) -> None:
    """Equal words, and numbers to the last digit that is written."""
    ours, theirs = tables(found), tables(written)
    assert len(ours) == len(theirs) > 3
    for row, other in zip(ours, theirs, strict=True):
        assert row == [
            value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1.1e-3) for value in other
        ]


def test_there_are_results():
    assert set(CARDS.values()) <= set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_report_is_what_its_table_gives(name, tmp_path):
    written = (RESULTS / name / "sweep.md").read_text()
    title, cases = written.splitlines()[0].removeprefix("# "), written.splitlines()[2]
    note = cases.split(". ", 1)[1]
    shutil.copy(RESULTS / name / "sweep.csv", tmp_path)
    table = tmp_path / "sweep.csv"
    report = write_report(table, title, note, pictured=[read_table(table)[0]["setting"]])
    assert_same_tables(report.read_text(), written)


@pytest.mark.parametrize("folder", ["trust", "trust/translation"])
def test_spread_report_is_what_its_table_gives(folder, tmp_path):
    shutil.copy(RESULTS / folder / "spread.csv", tmp_path)
    found = write_spread_report(tmp_path / "spread.csv").read_text()
    assert_same_tables(found, (RESULTS / folder / "spread.md").read_text())


def test_lesion_report_is_what_its_table_gives(tmp_path):
    shutil.copy(RESULTS / "trust" / "lesions.csv", tmp_path)
    sizes = json.loads((CONFIGS / "sr" / "trust.json").read_text())["lesion_sizes"]
    found = write_lesion_report(tmp_path / "lesions.csv", sizes).read_text()
    assert_same_tables(found, (RESULTS / "trust" / "lesions.md").read_text())


@pytest.mark.parametrize("bundle", CARDS)
def test_model_card_and_metadata_are_what_the_table_gives(bundle, tmp_path):
    root = ROOT / "bundles" / bundle
    for name in ("docs/README.md", "configs/metadata.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    config = json.loads((CONFIGS / bundle.split("_")[1] / "evaluate.json").read_text())
    dial = (config["card_num_steps"], config["card_restart"], config.get("residual_gain", 1.0))
    write_card(RESULTS / CARDS[bundle] / "sweep.csv", tmp_path, *dial)
    assert_same_tables(*((folder / "docs" / "README.md").read_text() for folder in (tmp_path, root)))
    found, told = (
        json.loads((folder / "configs" / "metadata.json").read_text())["eval_metrics"]
        for folder in (tmp_path, root)
    )
    assert found == {name: pytest.approx(figures, abs=1e-3) for name, figures in told.items()}


def test_default_gain_is_the_smallest_that_is_sharp_enough_on_val():
    """In steps of 0.1, sharpness 0.85 of x4 pooled volumes, along the axes where the val scans are sharp."""
    folder = RESULTS / "super_resolution_gain"
    assert "Split: val;" in (folder / "sweep.md").read_text()
    assert "sharpness along axes [0, 1]" in (folder / "sweep.md").read_text()
    of_gain: dict[float, list[float]] = {}
    for row in read_table(folder / "sweep.csv"):
        if row["method"] == "calibrated":
            of_gain.setdefault(float(row["gain"]), []).append(float(row["sharpness"]))
    means = {gain: sum(values) / len(values) for gain, values in of_gain.items()}
    chosen = min(gain for gain, sharpness in means.items() if sharpness >= 0.85)
    assert means[round(chosen - 0.1, 1)] < 0.85
    for folder in (ROOT / "bundles" / "diffensembler_sr" / "configs", CONFIGS / "sr"):
        for path in (folder / "inference.json", folder / "evaluate.json"):
            assert not path.is_file() or json.loads(path.read_text())["residual_gain"] == chosen


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_of_the_shipped_weights(name):
    of_sr = name.startswith("super_resolution")
    model = (
        ROOT
        / "bundles"
        / ("diffensembler_sr" if of_sr else "diffensembler_translate")
        / "models"
        / "model.pt"
    )
    regression = [] if of_sr else [ROOT / "research" / "weights" / "translate" / "regression.pt"]
    mark = weights_mark([model, *regression, shipped_encoder()])
    rows = [row for row in read_table(RESULTS / name / "sweep.csv") if row["method"] == "calibrated"]
    assert rows and {row[MARK] for row in rows} == {mark}


@pytest.mark.parametrize("bundle", CARDS)
def test_what_training_cost_is_told_of_all_weights(bundle):
    root = ROOT / "bundles" / bundle
    costs = json.loads((root / "configs" / "metadata.json").read_text())["training_cost"]
    assert set(costs) == {path.name for path in (root / "models").glob("*.pt")}
    assert all(cost["core_hours"] > 0 for cost in costs.values())


def test_energy_of_an_hour_by_hand():
    line = cost_lines({"model.pt": {"device": "core", "core_hours": 10}})[-1]
    assert (
        line == "| `models/model.pt` | core | 10.0 | 0.225 | 107 |"
    )  # (12 + 4 * 0.3725) W * 1.67 * 10 h, 475 g


def test_the_readmes_table_is_what_the_results_give():
    assert "\n".join(results_table()) in (ROOT / "README.md").read_text(encoding="utf-8")
