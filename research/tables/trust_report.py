"""Tables of the spread calibration and of the hallucination check, written from their CSV alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from research.studies.tables import read_table
from research.tables.markdown import markdown_table

SPREAD_COLUMNS = {
    "raw_within_1": "raw within 1",
    "within_1": "within 1",
    "raw_within_2": "raw within 2",
    "within_2": "within 2",
    "raw_within_3": "raw within 3",
    "within_3": "within 3",
    "raw_correlation": "raw correlation",
    "correlation": "correlation",
    "raw_ause": "raw AUSE",
    "ause": "AUSE",
    "ause_random": "AUSE of chance",
    "rmse": "RMSE",
    "mean_spread": "mean spread",
}
LESION_COLUMNS = {"contrast": "contrast", "recovered": "recovered", "least": "least", "pattern": "pattern"}


def write_spread_report(table: str | Path, note: str = "") -> Path:
    """Write ``<table>.md`` beside the CSV of a spread calibration.

    Args:
        table: CSV of :class:`~research.studies.spread_calibration.SpreadCalibration`.
        note: what was run, in words.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: when the table holds no row of split "test".
    """
    rows = pd.DataFrame(read_table(Path(table)), columns=None if Path(table).is_file() else ["split"])
    test, val = (rows[rows["split"] == split] for split in ("test", "val"))
    if test.empty:
        raise ValueError(f"{table} holds no row of test volumes")
    keys = ["setting", "num_steps", "restart", "num_samples"]
    heads = ("setting", "passes", "restart", "samples", "floor", *SPREAD_COLUMNS.values())
    figures = test.groupby(keys, sort=False)[[*SPREAD_COLUMNS]].agg(_mean)
    figures.insert(0, "floor", val.groupby(keys)["floor"].agg(_mean))
    cells = [
        (setting, steps, restart or "-", samples, *(f"{value:.3f}" for value in row))
        for (setting, steps, restart, samples), row in figures.iterrows()
    ]
    lines = [
        "# Does the spread cover the error?",
        "",
        f"Weights {test['weights'].iloc[0]}. Test volumes: {_names(test)}; the floor is fitted on the val "
        f"volumes {_names(val)}. {note}".strip(),
        "",
        "Raw: of the samples' standard deviation alone; the other columns: of the spread with its floor, "
        "sqrt(s^2 + (floor x d)^2), d being the result's standard deviation over 5 x 5 x 5 voxels times the "
        "root of the number of thick axes. The floor brings the val volumes' within 1 to 0.683. Within k: "
        "share of the brain's voxels whose error is at most k spreads; a normal distribution has 0.683, "
        "0.954, 0.997. Correlation: Spearman's, of spread and absolute error. AUSE: area between the "
        "sparsification curves of spread and error, 0 is best, against that of a random order. Errors and "
        "spread are relative to the truth's 99.5th foreground percentile. `--spread_floor` takes the floor "
        "of your setting.",
        "",
        *markdown_table(heads, cells),
    ]
    return _write(table, lines)


def write_lesion_report(table: str | Path, sizes: Sequence[tuple[int, int]], note: str = "") -> Path:
    """Write ``<table>.md`` beside the CSV of a lesion check.

    Args:
        table: CSV of :class:`~research.studies.lesion_check.LesionCheck`.
        sizes: (least, most) lesion volume a size class, in voxels.
        note: what was run, in words.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: when the table is empty.
    """
    rows = pd.DataFrame(read_table(Path(table)))
    if rows.empty:
        raise ValueError(f"{table} holds no rows")
    rows = rows.astype({"volume": int, **dict.fromkeys(("contrast", "recovered", "pattern"), float)})
    heads = ("change", "method", "passes", "restart", "lesions", *LESION_COLUMNS.values())
    lines = [
        "# Do lesions appear and disappear with the input?",
        "",
        f"Weights {rows['weights'].iloc[0]}. Volumes: {_names(rows)}. {note}".strip(),
        "",
        "A real lesion is taken out of the truth (removed), or added to it at the mirrored place of "
        "the other hemisphere (planted); both are thick-sliced and restored with the same noise. "
        "Recovered: difference of the two outputs inside the label over that of the truths; 1 is all "
        "of the lesion, 0 is none: a planted lesion that is missed, or a removed one that is put "
        "back. Least: the worst lesion. Pattern: slope of the outputs' difference on the truths', "
        "lowered by blur too. Contrast is relative to the truth's 99.5th foreground percentile.",
    ]
    for setting, of_setting in rows.groupby("setting", sort=False):
        for least, most in sizes:
            chosen = of_setting[of_setting["volume"].between(least, most)]
            if not chosen.empty:
                lines += ["", f"## {setting}, lesions of {least} to {most} mm³", ""]
                lines += markdown_table(heads, _lesion_cells(chosen))
    return _write(table, lines)


def _lesion_cells(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row a change, method and point of the dial; planted before removed, else in the table's order."""
    groups = rows.groupby(["change", "method", "num_steps", "restart"], sort=False)
    figures = groups.agg(
        lesions=("recovered", "size"),
        contrast=("contrast", "mean"),
        recovered=("recovered", "mean"),
        least=("recovered", "min"),
        pattern=("pattern", "mean"),
    ).sort_index(level="change", kind="stable", sort_remaining=False)
    return [
        (change, method, steps, restart or "-", f"{lesions:.0f}", *(f"{value:.3f}" for value in values))
        for (change, method, steps, restart), (lesions, *values) in figures.iterrows()
    ]


def _mean(values: pd.Series) -> float:
    return float(values.astype(float).mean())


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(rows["case"].unique())


def _write(table: str | Path, lines: Sequence[str]) -> Path:
    table = Path(table)
    report = table.with_suffix(".md")
    report.write_text(
        "\n".join([*lines, "", f"Every row stands in [{table.name}]({table.name})."]) + "\n", encoding="utf-8"
    )
    return report
