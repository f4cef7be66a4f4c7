"""Case by case: what the learned fusion gains over every other method at the same point of the dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from research.studies.sweep import row_key
from research.tables.markdown import markdown_row

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
    values = {row_key(row): row for row in rows}
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in values:
        setting, case, method, *dial = key
        if method != reference and (setting, case, reference, *dial) in values:
            groups.setdefault((setting, method, *dial), []).append(key)
    lines = []
    for (setting, method, steps, restart, gain), keys in groups.items():
        if len(keys) < 2:
            continue
        cells = [setting, method, steps, restart or "-", gain, str(len(keys))]
        for metric in COMPARED:
            ours = [float(values[(key[0], key[1], reference, *key[3:])][metric]) for key in keys]
            theirs = [float(values[key][metric]) for key in keys]
            differences = np.subtract(ours, theirs)
            p = float(stats.ttest_rel(ours, theirs).pvalue)
            cells.append(
                f"{differences.mean():+.3f} ({differences.min():+.3f} to {differences.max():+.3f}), p {p:.2g}"
            )
        lines.append(markdown_row(cells))
    if not lines:
        return []
    heads = ("setting", f"{reference} against", "passes", "restart", "gain", "cases", *COMPARED.values())
    return [
        "",
        f"## {reference} less each other method, case by case",
        "",
        "Mean difference (least to greatest over the cases), and p of a paired t-test.",
        "",
        markdown_row(heads),
        markdown_row(["---"] * len(heads)),
        *lines,
    ]
