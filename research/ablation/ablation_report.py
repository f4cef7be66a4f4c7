"""Tables and figures of the ablations, written from their CSV files; the words between them are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.ablation.ablation import MEAN, REFERENCE, SHIPPED, TABLES
from research.ablation.ablation_figures import (
    FIGURES,
    Rows,
    crops,
    draw,
    draw_steps,
    points,
    relative_errors,
)
from research.studies.tables import read_table
from research.tables.markdown import block_marks, markdown_row, replace_block

OTHER_SEEDS = {"another seed": "reference, seed 1", "a third seed": "reference, seed 2"}
DECIMALS = {"psnr_brain": 2, "ssim_brain": 3, "hfen": 3, "sharpness": 3}


class Ablation(NamedTuple):
    """One question.

    Attributes:
        title: heading.
        variants: what is compared, by name; with other words for the reference where they say more.
    """

    title: str
    variants: Mapping[str, str]


ABLATIONS = {
    "subjects": Ablation(
        "Training subjects",
        {"3 subjects": "3", "6 subjects": "6", REFERENCE: "12 (reference)"},
    ),
    "size": Ablation(
        "Size of the calibrator",
        {"half the channels": "16, 32", REFERENCE: "32, 64 (reference)", "double the channels": "64, 128"},
    ),
    "features": Ablation(
        "Feature maps",
        {REFERENCE: "without (reference)", "features": "with", "features, another seed": "with, seed 1"},
    ),
    "bias": Ablation("Bias", {REFERENCE: "with (reference)", "no bias": "without"}),
    "weights": Ablation(
        "Softmax and free weights",
        {
            REFERENCE: "free, bias (reference)",
            "no bias": "free, no bias",
            "softmax": "softmax, bias",
            "softmax, no bias": "softmax, no bias",
        },
    ),
    "live": Ablation("Cached and live experts", {REFERENCE: "cached (reference)", "live": "live"}),
}
STEPS = "steps"


def write_report(folder: str | Path) -> Path:
    """Write figures, and the tables between their marks in ``ablations.md``; it is made where missing.

    Args:
        folder: holds the tables of :class:`~research.ablation.ablation.AblationStudy`.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: when a table is empty.
    """
    folder = Path(folder)
    report = folder / "ablations.md"
    text = page(folder, report.read_text(encoding="utf-8") if report.is_file() else skeleton())
    _, held_out, samples = (read_table(folder / f"{name}.csv") for name in TABLES)
    draw_steps(samples, folder / f"{STEPS}.png")
    for name in ABLATIONS:
        draw(samples, held_out, compared(samples, name), folder / f"{name}.png")
    report.write_text(text, encoding="utf-8")
    return report


def page(folder: Path, text: str) -> str:
    """The text with the tables of a folder between its marks; what else it says is kept.

    Raises:
        ValueError: when a table is empty, or the text lacks a mark.
    """
    training, held_out, samples = (read_table(folder / f"{name}.csv") for name in TABLES)
    if not (training and held_out and samples):
        raise ValueError(f"{folder} lacks rows of an ablation: run ablate first")
    parts = {"training": training_table(training, held_out), STEPS: steps_table(samples)}
    parts |= {name: sample_table(samples, compared(samples, name)) for name in ABLATIONS}
    for name, lines in parts.items():
        text = replace_block(text, name, ["", *lines, ""])
    return text


def compared(samples: Rows, name: str) -> dict[str, str]:
    """Variants of an ablation that have samples, with what tells how large a difference is."""
    known = {row["variant"] for row in samples}
    shown = {MEAN: MEAN, **ABLATIONS[name].variants, **OTHER_SEEDS}
    return {key: label for key, label in shown.items() if key in known}


def skeleton() -> str:
    """A page with headings, figures and empty tables."""
    lines = ["# Ablations", "", *block_marks("training")]
    for name, title in {STEPS: "Passes", **{key: each.title for key, each in ABLATIONS.items()}}.items():
        lines += ["", f"## {title}", "", f"![{title}]({name}.png)", "", *block_marks(name)]
    return "\n".join(lines) + "\n"


def training_table(training: Rows, held_out: Rows) -> list[str]:
    """One row a training: its size, cost, last loss and relative error on held-out draws."""
    subsets = list(dict.fromkeys(row["conditions"] for row in held_out))
    heads = ("variant", "parameters", "iterations", "draws / s", "training / s", "last loss", *subsets)
    lines = [markdown_row(heads), markdown_row(["---"] * len(heads))]
    rows: list[Mapping[str, str]] = [{"variant": SHIPPED}, *training]
    for row in rows:
        cells = [row["variant"], row.get("parameters", "-"), row.get("iterations", "-")]
        for key, decimals in (("draw_seconds", 0), ("training_seconds", 0), ("loss", 3)):
            cells.append(f"{float(row[key]):.{decimals}f}" if key in row else "-")
        errors = (relative_errors(held_out, row["variant"], subset) for subset in subsets)
        cells += [spread(found, 3) for found in errors]
        lines.append(markdown_row(cells))
    return lines


def sample_table(samples: Rows, variants: Mapping[str, str]) -> list[str]:
    """Figures of samples: mean and standard deviation of the crops, and the difference to the reference."""
    heads = ("variant", "conditions", "passes", *FIGURES.values(), "PSNR less the reference's")
    lines = [markdown_row(heads), markdown_row(["---"] * len(heads))]
    for setting, steps in points(samples, REFERENCE, at_most=4):
        base = crops(samples, REFERENCE, setting, steps, "psnr_brain")
        for name, label in variants.items():
            found = {metric: crops(samples, name, setting, steps, metric) for metric in FIGURES}
            if not found["psnr_brain"]:
                continue
            gain = [value - base[case] for case, value in found["psnr_brain"].items()]
            cells = [spread(list(each.values()), DECIMALS[metric]) for metric, each in found.items()]
            lines.append(
                markdown_row(
                    (label, setting, steps, *cells, "-" if name == REFERENCE else spread(gain, 2, sign="+"))
                )
            )
    return lines


def steps_table(samples: Rows) -> list[str]:
    """Figures over the number of passes."""
    heads = ("variant", "conditions", "passes", *FIGURES.values())
    lines = [markdown_row(heads), markdown_row(["---"] * len(heads))]
    for name in (MEAN, REFERENCE, SHIPPED):
        for setting, steps in points(samples, name):
            found = (crops(samples, name, setting, steps, metric) for metric in FIGURES)
            cells = [
                spread(list(each.values()), DECIMALS[metric])
                for metric, each in zip(FIGURES, found, strict=True)
            ]
            lines.append(markdown_row((name, setting, steps, *cells)))
    return lines


def spread(values: Sequence[float], decimals: int, sign: str = "") -> str:
    """Mean and standard deviation, "-" of nothing."""
    if not values:
        return "-"
    mean = f"{np.mean(values):{sign}.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{decimals}f}"
