"""The paper's table, written from the sweeps of :mod:`research.paper`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from research.baselines.training_targets import MATCHED, TEMPLATE
from research.paper.figures import DIFFERENCE, mean_difference
from research.paper.published import DIFFERS, PUBLISHED, ROWS, TASKS
from research.studies.tables import read_table
from research.tables.markdown import markdown_table

# method of a sweep -> row of the table
METHODS = {
    "3D U-Net regression": "3D U-Net regression",
    "axial": "one plane",
    "coronal": "one plane",
    "sagittal": "one plane",
    "alternate": "alternate",
    "mean": "mean",
    "calibrated": "fused",
    MATCHED: MATCHED,
    TEMPLATE: TEMPLATE,
}
COLUMNS = {  # figure of a case -> head, decimals
    "psnr_paper": ("PSNR box", 2),
    "ssim_paper": ("SSIM box", 3),
    "psnr_brain": ("PSNR brain", 2),
    "ssim_brain": ("SSIM brain", 3),
    "fid": ("patch FID", 1),
    "mmd": ("patch MMD", 4),
}
MEAN_DIFFERENCE = "mean difference"
COMPARED = {"psnr_paper": 2, "ssim_paper": 4, "psnr_brain": 2, "ssim_brain": 4, "fid": 1}
RESAMPLES, CONFIDENCE = 9999, 0.95


def write_paper_report(tables: Mapping[str, Path], work_dir: Path, page: Path, note: str = "") -> Path:
    """Write the page.

    Args:
        tables: bundle -> CSV of its sweep.
        work_dir: of :func:`~research.paper.sweeps.paper_sweep`.
        page: to write.
        note: what was run, in words.

    Raises:
        ValueError: a table holds no row.
    """
    rows = pd.concat([paper_rows(path, work_dir / bundle) for bundle, path in tables.items()])
    lines = [
        "# The paper's table on open data",
        "",
        f"{note} {DIFFERS}".strip(),
        "",
        "Box: 192 x 192 x 152 voxels, background and all, intensities over the truth's maximum, as we read "
        "the paper. Brain: where the truth is above zero, intensities over its 99.5th percentile. Patch FID "
        "and patch MMD: of patches inside the brain, in the features of this repository's encoder. Mean "
        "difference: squared distance of the mean result and the mean truth over the box, which the paper "
        "calls MMD. One plane: mean of the three. All at the default dial, one step.",
    ]
    for task, words in TASKS.items():
        here = rows[rows["setting"] == task]
        if not here.empty:
            cases = list(dict.fromkeys(here["case"]))
            lines += ["", f"## {task}: {words}", "", f"Cases ({len(cases)}): {', '.join(cases)}.", ""]
            lines += [*task_table(here, task, work_dir), "", *intervals(here)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def paper_rows(table: Path, work_dir: Path) -> pd.DataFrame:
    """Rows of a sweep that the table shows, with numbers as numbers and ``row``, ``folder``."""
    rows = pd.DataFrame(read_table(table))
    if rows.empty:
        raise ValueError(f"{table} holds no rows")
    rows["row"], rows["folder"] = rows["method"].map(METHODS), str(work_dir)
    rows = rows.dropna(subset=["row"])
    for column in COLUMNS:
        rows[column] = pd.to_numeric(rows[column], errors="coerce") if column in rows else np.nan
    return rows


def task_table(rows: pd.DataFrame, task: str, work_dir: Path) -> list[str]:
    """Ours and the published ones, a row a method."""
    means = rows.groupby("row", sort=False)[[*COLUMNS]].mean()
    differences = {
        method: np.mean(
            [
                mean_difference(Path(str(each["folder"].iloc[0])), each[DIFFERENCE])
                for _, each in group.groupby("method")
            ]
        )
        for method, group in rows.groupby("row", sort=False)
    }
    cells = []
    for method, paper in ROWS.items():
        if method not in means.index:
            continue
        ours = [
            "-" if pd.isna(means.loc[method, name]) else f"{means.loc[method, name]:.{decimals}f}"
            for name, (_, decimals) in COLUMNS.items()
        ]
        figures = PUBLISHED.get(method, {}).get(task)
        theirs = "-" if figures is None else " / ".join(f"{value:g}" for value in figures)
        cells.append((method, *ours, f"{differences[method]:.1f}", f"{paper}: {theirs}"))
    heads = [head for head, _ in COLUMNS.values()]
    return markdown_table(("method", *heads, MEAN_DIFFERENCE, "published PSNR / SSIM / MMD / 3D-FID"), cells)


def intervals(rows: pd.DataFrame) -> list[str]:
    """Fused less every other method, case by case, with bootstrap intervals over the cases."""
    figures = rows.groupby(["row", "case"])[[*COMPARED]].mean()
    if "fused" not in figures.index.get_level_values(0):
        return []
    ours, cells = figures.loc["fused"], []
    for method in ROWS:
        if method == "fused" or method not in figures.index.get_level_values(0):
            continue
        differences = (ours - figures.loc[method]).dropna(axis=1, how="all")
        told = [
            interval(differences[name].dropna().to_numpy(), decimals) if name in differences else "-"
            for name, decimals in COMPARED.items()
        ]
        cells.append((method, *told))
    heads = [COLUMNS[name][0] for name in COMPARED]
    return [
        f"Fused less each other method, paired by case: mean and {CONFIDENCE:.0%} bootstrap interval.",
        "",
        *markdown_table(("fused less", *heads), cells),
    ]


def interval(differences: np.ndarray, decimals: int) -> str:
    """Mean of paired differences and its percentile bootstrap interval; no interval of one case."""
    mean = f"{differences.mean():+.{decimals}f}"
    if len(differences) < 2:
        return mean
    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return f"{mean} ({found.low:+.{decimals}f} to {found.high:+.{decimals}f})"
