"""The report of a sweep: its numbers are the table's, and it says what the curves say."""

import re

import numpy as np
import pytest

from research.studies.sweep import KEYS, row_key
from research.studies.tables import append_row, read_table
from research.tables.sweep_report import METRICS, at_sharpness, curve, mean_rows, write_report

SETTINGS = ("x4 pooled", "5 mm")
METHODS = (
    ("cubic", 0, "", "1"), ("mean", 1, "", "1"), ("mean", 1, "", "1.5"), ("mean", 4, "0.5", "1"),
    ("calibrated", 2, "", "1"),
)  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Random figures of two cases in two settings."""
    random, path = np.random.default_rng(0), tmp_path / "sweep.csv"
    for case in ("sub-1", "sub-2"):
        for setting in SETTINGS:
            for method in METHODS:
                row = dict(zip(KEYS, (setting, case, *method), strict=True))
                append_row(path, row | {metric: float(random.uniform(0.1, 30)) for metric in METRICS})
    return path


def points(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [{"sharpness": sharpness, "psnr": psnr} for sharpness, psnr in values]


def test_numbers_are_the_means_of_the_cases(table):
    rows = read_table(table)
    report = write_report(table, "A title", "A note.").read_text()
    assert report.startswith("# A title\n") and "Cases (2): sub-1, sub-2. A note." in report
    for setting in SETTINGS:
        section = report.split(f"## {setting}, mean of cases\n")[1].split("\n## ")[0]
        found = {}
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("| ").split("|")]
            if len(cells) == 4 + len(METRICS):
                found[tuple(cells[:4])] = cells[4:]
        assert found.pop(("method", "passes", "restart", "gain")) == list(METRICS.values())
        del found[("---",) * 4]
        assert list(found) == [
            (method, str(steps), restart or "-", gain) for method, steps, restart, gain in METHODS
        ]
        for (method, steps, restart, gain), cells in found.items():
            key = (setting, method, steps, restart.replace("-", ""), gain)
            same = [row for row in rows if (row["setting"], *row_key(row)[2:]) == key]
            assert len(same) == 2
            for metric, cell in zip(METRICS, cells, strict=True):
                expected = sum(float(row[metric]) for row in same) / 2
                assert float(cell) == pytest.approx(expected, abs=6e-4 if metric != "consistency" else 6e-5)
                assert re.fullmatch(r"\d+\.\d{4}" if metric == "consistency" else r"\d+\.\d{3}", cell)


def test_files_lie_beside_the_table(table):
    assert write_report(table, "t") == table.with_suffix(".md")
    picture = table.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n") and len(picture) > 10_000
    text = table.with_suffix(".md").read_text()
    assert "(sweep.png)" in text and "(sweep.csv)" in text
    write_report(table, "t")  # again, over itself
    assert table.with_suffix(".md").read_text() == text


def test_means_group_by_setting_method_and_dial(table):
    means = mean_rows(read_table(table))
    assert set(means) == {(setting, *method) for setting in SETTINGS for method in METHODS}
    rows = [row for row in read_table(table) if (row["setting"], row["method"]) == ("5 mm", "calibrated")]
    for metric in METRICS:
        assert means["5 mm", "calibrated", 2, "", "1"][metric] == np.mean(
            [float(row[metric]) for row in rows]
        )


def test_curve_keeps_what_no_other_point_beats(tmp_path):
    table = tmp_path / "sweep.csv"
    points = {"1": (0.7, 30.0), "1.5": (0.85, 29.0), "1.2": (0.65, 29.5), "2": (0.8, 28.5), "3": (1.0, 27.0)}
    for gain, (sharp, psnr) in points.items():
        row = dict(zip(KEYS, ("s", "c", "mean", 1, "", gain), strict=True))
        append_row(table, row | dict.fromkeys(METRICS, 1.0) | {"sharpness": sharp, "psnr_brain": psnr})
    means = mean_rows(read_table(table))
    line = curve(means, "s", "mean")
    assert line == [means["s", "mean", 1, "", gain] for gain in ("1", "1.5", "3")]
    assert curve(means, "s", "nobody") == []


def test_a_table_from_before_gains_is_read_with_a_gain_of_1(tmp_path):
    table = tmp_path / "sweep.csv"
    old = {
        key: value for key, value in zip(KEYS, ("s", "c", "mean", 1, "", "1"), strict=True) if key != "gain"
    }
    figures = dict.fromkeys(METRICS, 1.0)
    append_row(table, old | figures)
    append_row(table, old | {"gain": "1.5"} | figures)
    assert list(mean_rows(read_table(table))) == [("s", "mean", 1, "", "1"), ("s", "mean", 1, "", "1.5")]


@pytest.mark.parametrize(
    ("line", "sharpness", "expected"),
    [
        (points((0.8, 30), (1.0, 26)), 0.9, 28),
        (points((0.8, 30), (1.0, 26)), 0.85, 29),
        (points((0.8, 30), (0.9, 25), (1.0, 24)), 0.9, 25),
        (points((0.8, 30), (0.9, 25), (1.0, 24)), 0.95, 24.5),
        (points((0.8, 30), (1.0, 26)), 0.8, 30),
        (points((0.8, 30), (1.0, 26)), 1.0, 26),
        (points((0.8, 30), (1.0, 26)), 0.79, None),
        (points((0.8, 30), (1.0, 26)), 1.01, None),
        (points((0.9, 30)), 0.9, None),
        (points(), 0.9, None),
    ],
)
def test_interpolation_at_a_sharpness(line, sharpness, expected):
    value = at_sharpness(line, "psnr", sharpness)
    assert value is None if expected is None else value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sharpness", "text"),
    [((0.8, 1.0), "mean 28.00 dB / 0.850"), ((0.5, 0.6), "no curve spans it")],
    ids=["reached", "not reached"],
)
def test_what_the_curves_say_at_the_reference(tmp_path, sharpness, text):
    table = tmp_path / "sweep.csv"
    for steps, sharp, psnr, ssim in ((1, sharpness[0], 30, 0.9), (4, sharpness[1], 26, 0.8)):
        row = {"setting": "s", "case": "c", "method": "mean", "num_steps": steps, "restart": ""}
        figures = dict.fromkeys(METRICS, 1.0) | {"sharpness": sharp, "psnr_brain": psnr, "ssim_brain": ssim}
        append_row(table, row | figures)
    report = write_report(table, "t").read_text()
    assert f"At sharpness 0.9 (PSNR / SSIM inside the brain, along each curve): {text}." in report


def test_curves_that_end_early_are_compared_where_all_reach(tmp_path):
    table = tmp_path / "sweep.csv"
    for method, line in {
        "mean": points((0.6, 30), (0.7, 28)),
        "calibrated": points((0.65, 31), (0.75, 29), (0.95, 25)),
        "alternate": points((0.8, 27), (0.9, 26)),  # sharper than 0.7 from its first point on
        "cubic": points((0.4, 26)),  # no curve
    }.items():
        for steps, point in enumerate(line):
            row = {"setting": "s", "case": "c", "method": method, "num_steps": steps, "restart": ""}
            figures = dict.fromkeys(METRICS, 1.0)
            append_row(table, row | figures | {"sharpness": point["sharpness"], "psnr_brain": point["psnr"]})
    report = write_report(table, "t").read_text()
    assert "along each curve): calibrated 26.00 dB / 1.000; alternate 26.00 dB / 1.000." in report
    expected = "mean 28.00 dB / 1.000; calibrated 30.00 dB / 1.000; alternate 27.00 dB / 1.000"
    assert f"At 0.70 or sharper, the most that every curve reaches: {expected}." in report


@pytest.mark.parametrize("header", [False, True])
def test_an_empty_table_is_named(tmp_path, header):
    table = tmp_path / "sweep.csv"
    if header:
        table.write_text("setting,case\n")
    with pytest.raises(ValueError, match=r"sweep\.csv holds no rows: run evaluate first"):
        write_report(table, "t")
