"""The paper's figures and its table: numbers that can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from research.data_pack import sharpest_volumes
from research.paper.figures import DIFFERENCE, PaperFigures, mean_difference
from research.paper.published import BOTH, MT, PUBLISHED, ROWS, SR
from research.studies.tables import append_row
from research.tables.paper_report import METHODS, interval, paper_rows, write_paper_report

SHAPE = (20, 24, 16)
BOX = (48, 52, 44)  # smaller than the published one


@pytest.fixture(autouse=True)
def _small_box(monkeypatch):
    monkeypatch.setattr("research.paper.figures.BOX", BOX)


@pytest.fixture
def truth() -> torch.Tensor:
    return torch.rand(SHAPE) + 1


def test_the_box_holds_background_and_the_maximum_is_one(truth, tmp_path):
    figures = PaperFigures(tmp_path, lambda result, truth, mask: {"fid": 7.0})
    found = figures(truth + 0.1 * truth.max(), truth, truth > 0)
    share = np.prod(SHAPE) / np.prod(BOX)
    assert found["psnr_paper"] == pytest.approx(-10 * np.log10(0.01 * share), abs=1e-3)
    assert found["ssim_paper"] > 0.99 and found["fid"] == 7.0
    assert figures(truth, truth, truth > 0)["psnr_paper"] == np.inf


def test_mean_difference_lets_opposite_errors_cancel(truth, tmp_path):
    figures = PaperFigures(tmp_path)
    step = 0.1 * truth.max()
    up, down, level = (figures(truth + s, truth, truth > 0)[DIFFERENCE] for s in (step, -step, 0 * step))
    assert mean_difference(tmp_path, [up, down]) == pytest.approx(0, abs=1e-6)
    assert mean_difference(tmp_path, [up, level]) == pytest.approx(0.05**2 * np.prod(SHAPE), rel=1e-3)


def test_an_interval_holds_the_mean_and_shrinks_with_spread():
    assert interval(np.array([1.0]), 2) == "+1.00"
    assert interval(np.full(8, 0.5), 2) == "+0.50 (+0.50 to +0.50)"
    low, high = (float(v) for v in interval(np.arange(8.0), 3).split("(")[1].strip(")").split(" to "))
    assert 0 < low < 3.5 < high < 7


def test_the_table_has_a_row_a_method_beside_the_published_one(tmp_path):
    for folder in ("sr", "translate"):
        (tmp_path / folder).mkdir()
        np.savez_compressed(tmp_path / folder / "d", np.full(BOX, 0.0625, dtype=np.float16))
    tables = {"sr": tmp_path / "sr.csv", "translate": tmp_path / "translate.csv"}
    for bundle, settings in {"sr": [SR], "translate": [MT, BOTH]}.items():
        for setting in settings:
            for case in ("a", "b"):
                for place, method in enumerate([*METHODS, "cubic"]):
                    figure = {"psnr_paper": 30.0 + place, "ssim_paper": 0.9, "psnr_brain": 20.0 + place}
                    names = {"setting": setting, "case": case, "method": method}
                    append_row(tables[bundle], names | figure | {"ssim_brain": 0.8, DIFFERENCE: "d"})
    rows = paper_rows(tables["sr"], tmp_path / "sr")
    assert set(rows["row"]) == set(ROWS) and len(rows) == 2 * len(METHODS)
    text = write_paper_report(tables, tmp_path, tmp_path / "out" / "paper.md", "Split val.").read_text()
    assert [line.split(":")[0] for line in text.splitlines() if line[:2] == "##"] == [
        "## SR",
        "## MT",
        "## both",
    ]
    # planes come second, third and fourth: their mean is that of the third
    square = 0.0625**2 * np.prod(BOX)
    assert f"| one plane | 32.00 | 0.900 | 22.00 | 0.800 | - | - | {square:.1f} |" in text
    assert "| mean | -" not in text and "| mean | +1.00 (+1.00 to +1.00) |" in text
    assert "33.31 / 0.945 / 13.5 / 6.6" in text and "36.37 / 0.964 / 5.4 / 3.8" in text


def test_published_rows_are_rows():
    assert set(PUBLISHED) <= set(ROWS) and all(set(each) == {SR, MT, BOTH} for each in PUBLISHED.values())


def test_each_subject_gives_its_sharpest_volume(data_dir: Path):
    items = sharpest_volumes(data_dir, "val")
    assert {item["case"] for item in items} == {
        "sub-gli00000_T2w",
        "sub-gli01482_ce-gadolinium_T1w",
        "sub-tcga06_ce-gadolinium_T1w",
    }
    assert len(sharpest_volumes(data_dir, "test")) == 8
