"""The page of the peers: quality and cost of each program, and where one of them is better than ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from research.peers.programs import FUSED
from research.studies.tables import read_table
from research.tables.markdown import markdown_table

COLUMNS = {  # column -> head, decimals
    "psnr_brain": ("PSNR / dB", 2),
    "ssim_brain": ("SSIM", 3),
    "hfen": ("HFEN", 3),
    "inter_slice": ("inter-slice", 3),
    "sharpness": ("sharpness", 2),
    "seconds": ("s", 1),
    "cpu_s": ("CPU s", 1),
    "peak_mb": ("MB", 0),
}
BETTER = {"psnr_brain": 1, "ssim_brain": 1, "hfen": -1}  # 1: more is better


def write_peer_report(table: str | Path) -> Path:
    """Write ``<table>.md`` beside the CSV of a :class:`~research.peers.study.PeerStudy`.

    Raises:
        ValueError: the table is empty.
    """
    table = Path(table)
    rows = pd.DataFrame(read_table(table))
    if rows.empty:
        raise ValueError(f"{table} holds no rows")
    for column in COLUMNS:
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    cases = list(dict.fromkeys(rows["case"]))
    lines = [
        "# Beside what users would pick",
        "",
        f"Volumes ({len(cases)}): {', '.join(cases)}. Each is cut into thick slices (box profile, no gaps) "
        "and given to every program as a file; what it writes is compared with the volume inside the brain, "
        "intensities over the volume's 99.5th percentile there. Seconds, processor seconds and the most "
        "memory are those of the whole command, start and loading of weights included. Means over the "
        "volumes.",
    ]
    for setting, here in rows.groupby("setting", sort=False):
        lines += ["", f"## {setting}", "", *_table_of(here)]
    lines += ["", "## Where another program is better than ours", "", *(_losses(rows) or ["Nowhere."])]
    failed = rows[rows["outcome"] != "done"]
    lines += [
        f"\n{row['method']} on {row['case']}, {row['setting']}: {row['outcome']}."
        for _, row in failed.iterrows()
    ]
    lines += ["", f"Every run stands in [{table.name}]({table.name})."]
    page = table.with_suffix(".md")
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def _table_of(rows: pd.DataFrame) -> list[str]:
    means = rows.groupby("method", sort=False)[[*COLUMNS]].mean()
    counts = rows[rows["outcome"] == "done"].groupby("method").size()
    cells = [
        (
            str(method),
            str(counts.get(method, 0)),
            *("-" if pd.isna(value) else f"{value:.{COLUMNS[name][1]}f}" for name, value in row.items()),
        )
        for method, row in means.iterrows()
    ]
    return markdown_table(("program", "volumes", *(head for head, _ in COLUMNS.values())), cells)


def _losses(rows: pd.DataFrame) -> list[str]:
    """A line for each figure and setting in which a program beats ours, volume by volume."""
    done = rows[rows["outcome"] == "done"]
    ours = done[done["method"] == FUSED]
    pairs = done[done["method"] != FUSED].merge(ours, on=["setting", "case"], suffixes=("", "_ours"))
    return [
        line
        for (setting, method), group in pairs.groupby(["setting", "method"], sort=False)
        for line in _losses_of(str(setting), str(method), group)
    ]


def _losses_of(setting: str, method: str, pairs: pd.DataFrame) -> Iterator[str]:
    for name, sign in BETTER.items():
        gains = sign * (pairs[name] - pairs[f"{name}_ours"])
        if gains.mean() > 0:
            head, decimals = COLUMNS[name]
            yield (
                f"- {setting}: {method}, {head} better by {gains.mean():.{decimals + 1}f} "
                f"({int((gains > 0).sum())} of {len(gains)} volumes)"
            )
