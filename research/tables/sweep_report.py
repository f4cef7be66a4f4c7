"""Tables and the distortion-realism figure of a sweep, written from its CSV alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from research.studies.sweep import KEYS, row_key
from research.studies.tables import read_table
from research.tables.markdown import markdown_table
from research.tables.paired_differences import paired_differences

METRICS = {
    "psnr": "PSNR box",
    "psnr_brain": "PSNR brain",
    "ssim": "SSIM box",
    "psnr_matched": "PSNR matched",
    "ssim_brain": "SSIM brain",
    "ms_ssim": "MS-SSIM box (3 scales)",
    "hfen": "HFEN",
    "inter_slice": "inter-slice",
    "sharpness": "sharpness",
    "fid": "FID",
    "mmd": "MMD",
    "psnr_label": "PSNR lesions",
    "ssim_label": "SSIM lesions",
    "consistency": "consistency",
    "seconds": "s",
}
SUMMARY = {"psnr_brain": 2, "ssim_brain": 3, "sharpness": 2}  # metric -> decimals
MATCHED = "PSNR matched: after the one factor that minimises the result's squared error inside the brain."
REFERENCE_SHARPNESS = 0.9

Curve = list[dict[str, float]]


class Point(NamedTuple):
    """What was run: one method at one point of the dial."""

    setting: str
    method: str
    num_steps: int
    restart: str
    gain: str = "1"

    @property
    def label(self) -> str:
        """Heading of a column."""
        if not self.num_steps:
            return self.method
        restart = f" from {self.restart}" if self.restart else ""
        return f"{self.method} {self.num_steps}{restart}" + (
            f", gain {self.gain}" if self.gain != "1" else ""
        )


Means = Mapping[Point, dict[str, float]]


def mean_rows(rows: Iterable[Mapping[str, str]]) -> dict[Point, dict[str, float]]:
    """Mean of every metric over the cases that have it."""
    table = with_keys(rows)
    given = [metric for metric in METRICS if metric in table]
    table[given] = table[given].apply(pd.to_numeric)
    by = [key for key in KEYS if key != "case"]
    means = table.groupby(by, sort=False)[given].mean()
    return {
        Point(setting, method, int(steps), restart, gain): values.dropna().to_dict()
        for (setting, method, steps, restart, gain), values in means.iterrows()
    }


def with_keys(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Rows of a sweep's table, all of whose keys are there (:func:`row_key`); what is empty is missing."""
    keyed = [{**row, **dict(zip(KEYS, row_key(row), strict=True))} for row in rows]
    table = pd.DataFrame(keyed, columns=None if keyed else KEYS)
    figures = table.columns.difference(KEYS)
    table[figures] = table[figures].replace("", None)
    return table


def curve(means: Means, setting: str, method: str) -> Curve:
    """Best points of one method over the dial, by rising sharpness and falling PSNR.

    The dial has two knobs, passes and gain; a point that another one beats in both sharpness and PSNR is no
    user's choice and left out.
    """
    points = [value for key, value in means.items() if (key.setting, key.method) == (setting, method)]
    best: Curve = []
    for point in sorted(points, key=lambda point: -point["sharpness"]):
        if not best or point["psnr_brain"] > best[0]["psnr_brain"]:
            best.insert(0, point)
    return best


def at_sharpness(points: Curve, metric: str, sharpness: float = REFERENCE_SHARPNESS) -> float | None:
    """Metric interpolated along a curve at a sharpness; None where the curve does not reach it."""
    positions = [point["sharpness"] for point in points]
    if len(points) < 2 or not positions[0] <= sharpness <= positions[-1]:
        return None
    return float(np.interp(sharpness, positions, [point[metric] for point in points]))


def write_report(
    table: str | Path, title: str, note: str = "", pictured: Sequence[str] | None = None
) -> Path:
    """Write ``<table>.md`` and ``<table>.png`` beside a sweep's CSV.

    Args:
        table: CSV of :class:`~research.studies.sweep.DialSweep`.
        title: heading.
        note: what was run, in words.
        pictured: settings of the figure; all when None.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: when the table is empty.
    """
    table = Path(table)
    rows = read_table(table)
    if not rows:
        raise ValueError(f"{table} holds no rows: run evaluate first")
    means = mean_rows(rows)
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    picture = table.with_suffix(".png")
    lines = [
        f"# {title}",
        "",
        f"Cases ({len(cases)}): {', '.join(cases)}. {note}".strip(),
        "",
        "Intensities are scaled by the truth's 99.5th foreground percentile; the data range of PSNR and SSIM "
        "is 1. Brain figures are taken where the truth is above zero. Sharpness is the standard deviation of "
        "the Laplacian of Gaussian (1 voxel) over the truth's; consistency is the mean absolute difference "
        "between input and thick-sliced output; s is wall time."
        + (" " + MATCHED if any("psnr_matched" in values for values in means.values()) else ""),
        "",
        f"![PSNR and SSIM against sharpness]({picture.name})",
        "",
        "## PSNR / SSIM / sharpness inside the brain, mean of cases",
        "",
        *summary(means, settings),
    ]
    shown = {m: name for m, name in METRICS.items() if any(m in values for values in means.values())}
    for setting in settings:
        lines += [
            "",
            f"## {setting}, mean of cases",
            "",
            *_table_of(means, setting, shown),
            "",
            *_at_reference(means, setting),
        ]
    lines += paired_differences(rows)
    lines += ["", f"Every case stands in [{table.name}]({table.name})."]
    report = table.with_suffix(".md")
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw_curves(means, pictured or settings, picture)
    return report


def summary(means: Means, settings: Sequence[str]) -> list[str]:
    """One table of all settings: a row a setting, a column a method and dial point."""
    points = list(dict.fromkeys(point._replace(setting="") for point in means))

    def cell(point: Point) -> str:
        values = means.get(point)
        return "-" if values is None else " / ".join(f"{values[m]:.{n}f}" for m, n in SUMMARY.items())

    rows = [(setting, *(cell(point._replace(setting=setting)) for point in points)) for setting in settings]
    return markdown_table(("setting", *(point.label for point in points)), rows)


def _table_of(means: Means, setting: str, shown: Mapping[str, str]) -> list[str]:
    """Table of one setting: a row a point, a column a metric."""
    rows = []
    for point, values in means.items():
        if point.setting == setting:
            figures = (
                f"{values[metric]:.{4 if metric == 'consistency' else 3}f}" if metric in values else "-"
                for metric in shown
            )
            rows.append((point.method, str(point.num_steps), point.restart or "-", point.gain, *figures))
    return markdown_table(("method", "passes", "restart", "gain", *shown.values()), rows)


def draw_curves(means: Means, settings: Sequence[str], path: Path) -> None:
    """Figure: one row a setting; PSNR and SSIM inside the brain against sharpness, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(settings), 2, figsize=(11, 3.8 * len(settings)), squeeze=False, layout="constrained"
    )
    methods = list(dict.fromkeys(point.method for point in means))
    for row, setting in zip(axes, settings, strict=True):
        for axis, metric, label in zip(row, ("psnr_brain", "ssim_brain"), ("PSNR / dB", "SSIM"), strict=True):
            for method in methods:
                points = curve(means, setting, method)
                if points:
                    axis.plot(
                        [point["sharpness"] for point in points],
                        [point[metric] for point in points],
                        "o-" if len(points) > 1 else "s",
                        linewidth=2.5 if method == "calibrated" else 1.2,
                        label=method,
                    )
            axis.axvline(1.0, color="0.8", linewidth=1)
            axis.set(title=setting, xlabel="sharpness (1 = truth)", ylabel=f"{label} inside the brain")
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _at_reference(means: Means, setting: str) -> list[str]:
    """What the curves say at the reference, and where one ends before it, at the sharpness that all reach."""
    methods = dict.fromkeys(point.method for point in means if point.setting == setting)
    curves = {method: curve(means, setting, method) for method in methods}
    curves = {method: points for method, points in curves.items() if len(points) > 1}
    spanned = {
        method: points for method, points in curves.items() if points[0]["sharpness"] <= REFERENCE_SHARPNESS
    }
    text = _along(spanned, REFERENCE_SHARPNESS) or "no curve spans it"
    lines = [f"At sharpness {REFERENCE_SHARPNESS} (PSNR / SSIM inside the brain, along each curve): {text}."]
    reached = min((points[-1]["sharpness"] for points in curves.values()), default=REFERENCE_SHARPNESS)
    if reached < REFERENCE_SHARPNESS:
        lines += [
            "",
            f"At {reached:.2f} or sharper, the most that every curve reaches: {_along(curves, reached)}.",
        ]
    return lines


def _along(curves: Mapping[str, Curve], sharpness: float) -> str:
    """Figures at a sharpness, or of a first point that is sharper; none of a curve that ends before."""
    found = []
    for method, points in curves.items():
        at = max(sharpness, points[0]["sharpness"])
        psnr, ssim = (at_sharpness(points, metric, at) for metric in ("psnr_brain", "ssim_brain"))
        if psnr is not None and ssim is not None:
            found.append(f"{method} {psnr:.2f} dB / {ssim:.3f}")
    return "; ".join(found)
