"""Case by case: what the learned fusion gains over every other method at the same point of the dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from scipy import stats

from research.studies.sweep import KEYS, row_key
from research.tables.markdown import markdown_table

COMPARED = {"psnr_brain": "PSNR / dB", "ssim_brain": "SSIM"}
REFERENCE = "calibrated"


def paired_differences(rows: Sequence[Mapping[str, str]], reference: str = REFERENCE) -> list[str]:
    """Markdown table of the differences between a method and the others, inside the brain.

    Args:
        rows: those of a sweep's table.
        reference: the method whose differences are taken, at equal setting, case, passes, restart and gain.

    Returns:
        Lines; no line where no other method shares a point and at least two cases with it. The p-value is
        that of a paired, two-sided t-test over the cases: with few cases it is rarely small, and the cases of
        one table share a model, so it says nothing of other trainings.
    """
    table = pd.DataFrame(
        [
            dict(zip(KEYS, row_key(row), strict=True)) | {name: float(row[name]) for name in COMPARED}
            for row in rows
        ],
        columns=[*KEYS, *COMPARED],
    ).drop_duplicates([*KEYS], keep="last")
    at = [key for key in KEYS if key != "method"]
    ours = table[table["method"] == reference].drop(columns="method")
    pairs = table[table["method"] != reference].merge(ours, on=at, suffixes=("", "_ours"))
    lines = []
    for names, group in pairs.groupby([key for key in KEYS if key != "case"], sort=False):
        if len(group) > 1:
            setting, method, steps, restart, gain = names
            figures = (_difference(group[f"{metric}_ours"], group[metric]) for metric in COMPARED)
            lines.append((setting, method, steps, restart or "-", gain, str(len(group)), *figures))
    if not lines:
        return []
    heads = ("setting", f"{reference} against", "passes", "restart", "gain", "cases", *COMPARED.values())
    return [
        "",
        f"## {reference} less each other method, case by case",
        "",
        "Mean difference (least to greatest over the cases), and p of a paired t-test.",
        "",
        *markdown_table(heads, lines),
    ]


def _difference(ours: pd.Series, theirs: pd.Series) -> str:
    differences, p = ours - theirs, float(stats.ttest_rel(ours, theirs).pvalue)
    return f"{differences.mean():+.3f} ({differences.min():+.3f} to {differences.max():+.3f}), p {p:.2g}"
