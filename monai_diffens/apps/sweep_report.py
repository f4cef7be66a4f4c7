"""Tables and the distortion-realism figure of a sweep, written from its CSV alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_diffens.engines.sweep import read_table

METRICS = {
    "psnr": "PSNR box",
    "psnr_brain": "PSNR brain",
    "ssim": "SSIM box",
    "psnr_matched": "PSNR matched",
    "ssim_brain": "SSIM brain",
    "hfen": "HFEN",
    "inter_slice": "inter-slice",
    "sharpness": "sharpness",
    "psnr_label": "PSNR lesions",
    "ssim_label": "SSIM lesions",
    "consistency": "consistency",
    "seconds": "s",
}
SUMMARY = {"psnr_brain": 2, "ssim_brain": 3, "sharpness": 2}  # metric -> decimals
MATCHED = "PSNR matched: after the one factor that minimises the result's squared error inside the brain."
REFERENCE_SHARPNESS = 0.9

Curve = list[dict[str, float]]


def mean_rows(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str, int, str], dict[str, float]]:
    """Mean of every metric over the cases that have it, by (setting, method, num_steps, restart)."""
    groups: dict[tuple[str, str, int, str], list[Mapping[str, str]]] = {}
    for row in rows:
        key = (row["setting"], row["method"], int(row["num_steps"]), row["restart"])
        groups.setdefault(key, []).append(row)
    means: dict[tuple[str, str, int, str], dict[str, float]] = {}
    for key, group in groups.items():
        values = {metric: [float(row[metric]) for row in group if row.get(metric)] for metric in METRICS}
        means[key] = {metric: float(np.mean(given)) for metric, given in values.items() if given}
    return means


def curve(means: Mapping[tuple[str, str, int, str], dict[str, float]], setting: str, method: str) -> Curve:
    """Points of one method over the dial, by rising sharpness."""
    points = [value for (where, who, _, _), value in means.items() if (where, who) == (setting, method)]
    return sorted(points, key=lambda point: point["sharpness"])


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
        table: CSV of :class:`~monai_diffens.engines.sweep.DialSweep`.
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
            markdown_row(("method", "passes", "restart", *shown.values())),
        ]
        lines.append(markdown_row(["---"] * (3 + len(shown))))
        for (where, method, steps, restart), values in means.items():
            if where == setting:
                figures = (
                    f"{values[metric]:.{4 if metric == 'consistency' else 3}f}" if metric in values else "-"
                    for metric in shown
                )
                lines.append(markdown_row((method, str(steps), restart or "-", *figures)))
        lines += ["", *_at_reference(means, setting)]
    lines += ["", f"Every case stands in [{table.name}]({table.name})."]
    report = table.with_suffix(".md")
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw_curves(means, pictured or settings, picture)
    return report


def summary(
    means: Mapping[tuple[str, str, int, str], dict[str, float]], settings: Sequence[str]
) -> list[str]:
    """One table of all settings: a row a setting, a column a method and dial point."""
    points = list(dict.fromkeys((who, steps, restart) for _, who, steps, restart in means))
    heads = [
        f"{who} {steps}{f' from {restart}' if restart else ''}" if steps else who
        for who, steps, restart in points
    ]
    lines = [markdown_row(("setting", *heads)), markdown_row(["---"] * (1 + len(points)))]
    for setting in settings:
        cells = []
        for point in points:
            values = means.get((setting, *point))
            cells.append(
                "-" if values is None else " / ".join(f"{values[m]:.{n}f}" for m, n in SUMMARY.items())
            )
        lines.append(markdown_row((setting, *cells)))
    return lines


def draw_curves(
    means: Mapping[tuple[str, str, int, str], dict[str, float]], settings: Sequence[str], path: Path
) -> None:
    """Figure: one row a setting; PSNR and SSIM inside the brain against sharpness, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(settings), 2, figsize=(11, 3.8 * len(settings)), squeeze=False, layout="constrained"
    )
    methods = list(dict.fromkeys(method for _, method, _, _ in means))
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


def _at_reference(means: Mapping[tuple[str, str, int, str], dict[str, float]], setting: str) -> list[str]:
    found = []
    for method in dict.fromkeys(who for where, who, _, _ in means if where == setting):
        points = curve(means, setting, method)
        psnr, ssim = at_sharpness(points, "psnr_brain"), at_sharpness(points, "ssim_brain")
        if psnr is not None and ssim is not None:
            found.append(f"{method} {psnr:.2f} dB / {ssim:.3f}")
    text = "; ".join(found) or "no curve reaches it"
    return [f"At sharpness {REFERENCE_SHARPNESS} (PSNR / SSIM inside the brain, along each curve): {text}."]


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
