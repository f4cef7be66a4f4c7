"""Figures of a sweep and the cost of training, written into a bundle's model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.studies.baselines import REGRESSION, VOLUME_DIFFUSION
from research.studies.tables import read_table
from research.tables.markdown import markdown_table, replace_block
from research.tables.sweep_report import mean_rows

RESULTS, COST = "results", "training cost"
SHOWN = {
    "psnr_brain": "PSNR / dB",
    "psnr_matched": "PSNR matched / dB",
    "ssim_brain": "SSIM",
    "hfen": "HFEN",
    "inter_slice": "inter-slice",
    "sharpness": "sharpness",
}

# Defaults of Green Algorithms (Lannelongue et al., Advanced Science 2021, doi:10.1002/advs.202100707):
# power of one processor core, and of memory, overhead of a computing centre, emission of the world's grids.
WATT_CORE = 12.0
WATT_GIGABYTE = 0.3725
GIGABYTES = 4
OVERHEAD = 1.67
GRAM_KWH = 475


def write_card(
    table: str | Path, bundle_root: str | Path, num_steps: int, restart: float | None, gain: float = 1.0
) -> None:
    """Put the figures of the baselines and of every fusion at one dial setting where users look.

    Args:
        table: CSV of :class:`~research.studies.sweep.DialSweep`.
        bundle_root: its ``docs/README.md`` and ``configs/metadata.json`` are rewritten. Where the
            metadata has ``training_cost``, the card tells that too.
        num_steps: passes of the setting shown (the bundle's default).
        restart: its restart.
        gain: its gain of the residual.

    Raises:
        ValueError: when the table holds no such setting, or the card lacks marker lines.
    """
    dial = (num_steps, "" if restart is None else str(restart), f"{gain:g}")
    rows = read_table(Path(table))
    means = {
        (point.setting, point.method): values
        for point, values in mean_rows(rows).items()
        if point.num_steps == 0 or point[2:] == dial
    }
    if not any(method == "calibrated" for _, method in means):
        raise ValueError(
            f"{table} holds no calibrated row of {num_steps} passes, restart {restart} and gain {gain:g}"
        )
    shown = {name: head for name, head in SHOWN.items() if all(name in values for values in means.values())}
    cases = sorted({row["case"] for row in rows})
    lines = [
        f"Means over {len(cases)} test volumes ({', '.join(cases)}), {num_steps} passes, restart {restart}, "
        + (f"gain {gain:g}, " if gain != 1 else "")
        + "inside the brain; data range 1 on volumes scaled by the truth's 99.5th foreground percentile.",
        "",
        *markdown_table(
            ("setting", "method", *shown.values()),
            [(*names, *(f"{values[name]:.3f}" for name in shown)) for names, values in means.items()],
        ),
    ]

    metadata = Path(bundle_root) / "configs" / "metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["eval_metrics"] = {
        f"{setting}, {method}": {name: round(values[name], 4) for name in shown}
        for (setting, method), values in means.items()
        if method in ("cubic", REGRESSION, VOLUME_DIFFUSION, "mean", "calibrated")
    }
    metadata.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")

    card = Path(bundle_root) / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    text = replace_block(text, RESULTS, lines)
    if costs := content.get("training_cost"):
        text = replace_block(text, COST, cost_lines(costs))
    card.write_text(text, encoding="utf-8")


def cost_lines(costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown table of what training the shipped weights took.

    Args:
        costs: file in ``models`` -> {"device": one processor core in words, "core_hours": time on it}.
    """
    watt = (WATT_CORE + GIGABYTES * WATT_GIGABYTE) * OVERHEAD
    rows = []
    for file, cost in costs.items():
        energy = cost["core_hours"] * watt / 1000
        figures = (f"{cost['core_hours']:.1f}", f"{energy:.3f}", f"{energy * GRAM_KWH:.0f}")
        rows.append((f"`models/{file}`", cost["device"], *figures))
    return markdown_table(("weights", "device", "core hours", "energy / kWh", "CO2e / g"), rows)
