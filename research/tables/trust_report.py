"""Tables of the spread calibration and of the hallucination check, written from their CSV alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from research.studies.tables import read_table
from research.tables.markdown import markdown_row

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
    rows = read_table(Path(table))
    test = [row for row in rows if row["split"] == "test"]
    if not test:
        raise ValueError(f"{table} holds no row of test volumes")
    keys = ("setting", "num_steps", "restart", "num_samples")
    heads = ("setting", "passes", "restart", "samples", "floor", *SPREAD_COLUMNS.values())
    lines = [
        "# Does the spread cover the error?",
        "",
        f"Weights {test[0]['weights']}. Test volumes: {_names(test)}; the floor is fitted on the val volumes "
        f"{_names(row for row in rows if row['split'] == 'val')}. {note}".strip(),
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
        markdown_row(heads),
        markdown_row(["---"] * len(heads)),
    ]
    for group, found in _groups(test, keys).items():
        val = [row for row in rows if row["split"] == "val" and tuple(row[k] for k in keys) == group]
        figures = [_mean(val, "floor"), *(_mean(found, name) for name in SPREAD_COLUMNS)]
        setting, steps, restart, samples = group
        lines.append(
            markdown_row((setting, steps, restart or "-", samples, *(f"{value:.3f}" for value in figures)))
        )
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
    rows = read_table(Path(table))
    if not rows:
        raise ValueError(f"{table} holds no rows")
    heads = ("change", "method", "passes", "restart", "lesions", *LESION_COLUMNS.values())
    lines = [
        "# Do lesions appear and disappear with the input?",
        "",
        f"Weights {rows[0]['weights']}. Volumes: {_names(rows)}. {note}".strip(),
        "",
        "A real lesion is taken out of the truth (removed), or added to it at the mirrored place of "
        "the other hemisphere (planted); both are thick-sliced and restored with the same noise. "
        "Recovered: difference of the two outputs inside the label over that of the truths; 1 is all "
        "of the lesion, 0 is none: a planted lesion that is missed, or a removed one that is put "
        "back. Least: the worst lesion. Pattern: slope of the outputs' difference on the truths', "
        "lowered by blur too. Contrast is relative to the truth's 99.5th foreground percentile.",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for least, most in sizes:
            chosen = [
                row for row in rows if row["setting"] == setting and least <= int(row["volume"]) <= most
            ]
            if not chosen:
                continue
            lines += ["", f"## {setting}, lesions of {least} to {most} mm³", ""]
            lines += [markdown_row(heads), markdown_row(["---"] * len(heads))]
            groups = _groups(chosen, ("change", "method", "num_steps", "restart"))
            for (change, method, steps, restart), found in sorted(groups.items(), key=lambda g: g[0][0]):
                worst = min(float(row["recovered"]) for row in found)
                figures = (
                    _mean(found, "contrast"),
                    _mean(found, "recovered"),
                    worst,
                    _mean(found, "pattern"),
                )
                cells = (change, method, steps, restart or "-", str(len(found)))
                lines.append(markdown_row((*cells, *(f"{value:.3f}" for value in figures))))
    return _write(table, lines)


def _groups(
    rows: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> dict[tuple[str, ...], list[Mapping[str, str]]]:
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _mean(rows: Sequence[Mapping[str, str]], name: str) -> float:
    return float(np.mean([float(row[name]) for row in rows]))


def _names(rows: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(dict.fromkeys(row["case"] for row in rows))


def _write(table: str | Path, lines: Sequence[str]) -> Path:
    table = Path(table)
    report = table.with_suffix(".md")
    report.write_text(
        "\n".join([*lines, "", f"Every row stands in [{table.name}]({table.name})."]) + "\n", encoding="utf-8"
    )
    return report
