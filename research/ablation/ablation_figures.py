"""What the tables of the ablations hold, and figures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.ablation.ablation import MEAN, REFERENCE, SHIPPED

FIGURES = {"psnr_brain": "PSNR / dB", "ssim_brain": "SSIM", "hfen": "HFEN", "sharpness": "sharpness"}

Rows = Sequence[Mapping[str, str]]


def crops(samples: Rows, variant: str, setting: str, steps: str, metric: str) -> dict[str, float]:
    """A metric of every crop at one point."""
    key = (variant, setting, steps)
    return {
        row["case"]: float(row[metric])
        for row in samples
        if (row["variant"], row["setting"], row["num_steps"]) == key
    }


def relative_errors(held_out: Rows, variant: str, conditions: str) -> list[float]:
    """Relative errors of the held-out draws; the plain average's are 1."""
    if variant == MEAN:
        return [1.0]
    return [
        float(row["relative_error"])
        for row in held_out
        if (row["variant"], row["conditions"]) == (variant, conditions)
    ]


def points(samples: Rows, variant: str, at_most: int = 99) -> list[tuple[str, str]]:
    """(setting, passes) of a variant, in order; those of every variant alone with ``at_most`` 4."""
    found = {
        (row["setting"], row["num_steps"]): None
        for row in samples
        if row["variant"] == variant and (row["num_steps"] in ("1", "4") or at_most > 4)
    }
    settings = list(dict.fromkeys(setting for setting, _ in found))
    return sorted(found, key=lambda point: (settings.index(point[0]), int(point[1])))


def short(conditions: str) -> str:
    """Conditions in fewer letters."""
    return conditions.replace("ce-gadolinium_T1w", "T1ce").replace("T1w", "T1")


def draw(samples: Rows, held_out: Rows, variants: Mapping[str, str], path: Path) -> None:
    """Figure of one ablation: the error on held-out draws, and gains of samples over the plain average's.

    Gains are taken crop by crop (dots), since crops differ more from each other than variants do; lines join
    their means.
    """
    figure, axes = _axes(1, 4)
    places = np.arange(len(variants))
    subsets = list(dict.fromkeys(row["conditions"] for row in held_out))
    for number, subset in enumerate(subsets):
        means = [np.mean(relative_errors(held_out, name, subset)) for name in variants]
        axes[0][0].plot(places, means, "o-", color=f"C{4 + number}", label=short(subset))
    axes[0][0].set_ylabel("relative error, held-out draws")
    shown = points(samples, REFERENCE, at_most=4)
    for axis, metric in zip(axes[0][1:], ("psnr_brain", "ssim_brain", "hfen"), strict=True):
        for number, (setting, steps) in enumerate(shown):
            base = crops(samples, MEAN, setting, steps, metric)
            gains = []
            for name in variants:
                found = crops(samples, name, setting, steps, metric)
                gains.append([value - base[case] for case, value in found.items()])
            label = f"{short(setting)}, {steps} pass{'es' if steps != '1' else ''}"
            there = [place for place, each in zip(places, gains, strict=True) if each]
            axis.plot(there, [np.mean(each) for each in gains if each], "o-", color=f"C{number}", label=label)
            for place, each in zip(places, gains, strict=True):
                axis.plot([place] * len(each), each, ".", color=f"C{number}", alpha=0.4)
        axis.set_ylabel(f"{FIGURES[metric]}, less the plain average's")
    for axis in axes[0]:
        axis.set_xticks(places, variants.values(), rotation=25, ha="right")
    for axis in axes[0][:2]:
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def draw_steps(samples: Rows, path: Path) -> None:
    """Figure over the number of passes: a row a setting, a line a fusion."""
    settings = list(dict.fromkeys(row["setting"] for row in samples))
    figure, axes = _axes(len(settings), 4)
    for row, setting in zip(axes, settings, strict=True):
        for axis, metric in zip(row, FIGURES, strict=True):
            for name in (MEAN, REFERENCE, SHIPPED):
                steps = [each for found, each in points(samples, name) if found == setting]
                values = [np.mean(list(crops(samples, name, setting, n, metric).values())) for n in steps]
                axis.plot([int(n) for n in steps], values, "o-", label=name)
            axis.set_xscale("log", base=2)
            axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
            axis.set_ylabel(FIGURES[metric])
            axis.set_xlabel("passes")
        row[0].set_title(setting, fontsize=9, loc="left")
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _axes(rows: int, columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9 * columns, 3.9 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
