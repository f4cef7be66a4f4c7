"""Table and figure of the downstream segmentation, written from its CSV alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from research.studies.segmentation_sweep import CUBIC, REAL
from research.studies.tables import read_table
from research.tables.markdown import markdown_table

HEADS = ("conditions", "FLAIR", "passes", "restart", "Dice", "less the real FLAIR's", "each fold", "ml")
COMPARED = ("calibrated", "mean", "alternate", "3D U-Net regression", "restored spline", CUBIC)


class Segmented(NamedTuple):
    """One way to a FLAIR of one case, and what the networks of the folds made of it.

    Attributes:
        dice: (F,), a figure a fold.
        ml: (F,) segmented volume.
        truth: volume of the labels in ml.
        hd95: (F,) in mm, NaN where nothing is segmented; None of a table from before it was measured.
    """

    case: str
    setting: str
    method: str
    num_steps: int
    restart: str
    dice: NDArray[np.floating]
    ml: NDArray[np.floating]
    truth: float
    hd95: NDArray[np.floating] | None = None

    @property
    def label(self) -> str:
        """Name with its point of the dial."""
        passes = f" {self.num_steps}" if self.num_steps else ""
        return self.method + passes + (f" from {self.restart}" if self.restart else "")


def segmented_rows(table: str | Path) -> list[Segmented]:
    """Rows of the CSV of :class:`~research.studies.segmentation_sweep.SegmentationSweep`.

    Raises:
        ValueError: when the table is empty.
    """
    rows = read_table(Path(table))
    if not rows:
        raise ValueError(f"{table} holds no rows: run segment first")

    def folds(row: Mapping[str, str], figure: str) -> NDArray[np.floating]:
        count = sum(key.startswith(f"{figure}_") and key[-1].isdigit() for key in row)
        return np.array([float(row[f"{figure}_{fold}"] or "nan") for fold in range(count)])

    return [
        Segmented(
            *(row["case"], row["setting"], row["method"], int(row["num_steps"]), row["restart"]),
            *(folds(row, "dice"), folds(row, "ml"), float(row["ml_truth"])),
            folds(row, "hd95") if row.get("hd95_0") is not None else None,
        )
        for row in rows
    ]


def write_segmentation_report(table: str | Path, note: str = "") -> Path:
    """Write ``<table>.md`` and ``<table>.png`` beside the CSV of a segmentation sweep.

    Args:
        table: the CSV.
        note: what was run, in words.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: when the table is empty.
    """
    table = Path(table)
    rows = segmented_rows(table)
    cases = list(dict.fromkeys(row.case for row in rows))
    count = len(rows[0].dice)
    lines = [
        "# Lesions segmented on the real and on the synthesised FLAIR",
        "",
        f"Cases ({len(cases)}): {', '.join(cases)}. {note}".strip(),
        "",
        f"{count} networks, each trained on real FLAIR and contrast-enhanced T1w of all training subjects "
        "but those of its own fold, segment every lesion (one class: any label) on the real "
        "contrast-enhanced T1w and the FLAIR of the line. Dice: mean over the networks and its standard "
        "deviation; less the real FLAIR's: mean and standard deviation of the differences, network by "
        "network; ml: mean segmented volume.",
        "",
        f"**What this can tell.** {len(cases)} cases are {len(cases)} observations: the standard deviation "
        "is that of the training, not of patients, and too small even for that, since the networks share "
        "training subjects. A difference that is not the same in all networks and in all cases tells "
        "nothing; one that is, tells of these cases. No p-value is given, as none would mean anything.",
        "",
        f"![Dice of every network]({table.with_suffix('.png').name})",
    ]
    for case in cases:
        lines += ["", *_case_lines(_of_case(rows, case))]
    lines += ["", "## Does the learned fusion segment better?", "", *_order_lines(rows)]
    lines += ["", f"Every row stands in [{table.name}]({table.name})."]
    report = table.with_suffix(".md")
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw_dice(rows, table.with_suffix(".png"))
    return report


def draw_dice(rows: Sequence[Segmented], path: Path) -> None:
    """Figure: a panel a case; a line a condition set and method, a dot a network, a bar at their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row.case for row in rows))
    shown = [_of_case(rows, case) for case in cases]
    tall = 1.2 + 0.2 * max(map(len, shown))
    figure, axes = pyplot.subplots(
        1, len(cases), figsize=(6.5 * len(cases), tall), squeeze=False, layout="constrained"
    )
    for axis, case, chosen in zip(axes[0], cases, shown, strict=True):
        settings = list(dict.fromkeys(row.setting for row in chosen))
        labels = [row.label if row.method == REAL else f"{row.setting}: {row.label}" for row in chosen]
        for place, row in enumerate(chosen):
            colour = f"C{settings.index(row.setting)}"
            axis.plot(row.dice, [place] * len(row.dice), "o", color=colour, markersize=4, alpha=0.6)
            axis.plot(row.dice.mean(), place, "|", color=colour, markersize=14, markeredgewidth=2)
            if row.method == REAL:
                axis.axvline(row.dice.mean(), color="0.8", linewidth=1)
        axis.set_yticks(range(len(chosen)), labels, fontsize=7)
        axis.invert_yaxis()
        axis.set(title=case, xlabel="Dice")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _case_lines(rows: Sequence[Segmented]) -> list[str]:
    """Table of one case."""
    real = _real(rows)
    table = []
    for row in rows:
        less = row.dice - real.dice
        cells = [
            "-" if row is real else row.setting,
            row.method,
            str(row.num_steps or "-"),
            row.restart or "-",
        ]
        cells += [_mean_sd(row.dice), "-" if row is real else _mean_sd(less, sign="+")]
        cells += [", ".join(f"{value:.3f}" for value in row.dice), f"{row.ml.mean():.1f}"]
        if real.hd95 is not None:
            known = np.array([]) if row.hd95 is None else row.hd95[np.isfinite(row.hd95)]
            cells.append(f"{known.mean():.1f}" if known.size else "-")
        table.append(cells)
    heads = (*HEADS, "HD95 / mm") if real.hd95 is not None else HEADS
    return [f"## {rows[0].case}, labels of {rows[0].truth:.1f} ml", "", *markdown_table(heads, table)]


def _order_lines(rows: Sequence[Segmented]) -> list[str]:
    """Table of calibrated less the other methods at the same passes, a column a case."""
    cases = list(dict.fromkeys(row.case for row in rows))
    lines = [
        "Dice of the learned fusion (calibrated) less that of another method, network by network: mean "
        "(least to greatest). Methods without passes are compared with both points of the dial.",
        "",
    ]
    table = []
    found = {(row.case, row.setting, row.method, row.num_steps): row for row in rows}
    ours = dict.fromkeys((row.setting, row.num_steps) for row in rows if row.method == COMPARED[0])
    for setting, steps in ours:
        for method in COMPARED[1:]:
            cells = []
            for case in cases:
                us = found.get((case, setting, COMPARED[0], steps))
                them = found.get((case, setting, method, steps)) or found.get((case, setting, method, 0))
                less = None if us is None or them is None else us.dice - them.dice
                cells.append(
                    "-" if less is None else f"{less.mean():+.3f} ({less.min():+.3f} to {less.max():+.3f})"
                )
            if set(cells) != {"-"}:
                table.append((setting, str(steps), method, *cells))
    return lines + markdown_table(("conditions", "passes", "against", *cases), table)


def _of_case(rows: Sequence[Segmented], case: str) -> list[Segmented]:
    """Rows of a case; the real FLAIR, the same whatever the conditions, once."""
    found = [row for row in rows if row.case == case]
    return [row for row in found if row.method != REAL or row is _real(found)]


def _real(rows: Sequence[Segmented]) -> Segmented:
    return next(row for row in rows if row.method == REAL)


def _mean_sd(values: NDArray[np.floating], sign: str = "") -> str:
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{spread}"
