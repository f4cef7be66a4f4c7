"""Figures of a sweep, written into a bundle's model card and metadata: nothing is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path

from monai_diffens.apps.sweep_report import mean_rows
from monai_diffens.engines.subset_sweep import REGRESSION
from monai_diffens.engines.tables import read_table

BEGIN, END = "<!-- results -->", "<!-- /results -->"
SHOWN = {
    "psnr_brain": "PSNR / dB",
    "psnr_matched": "PSNR matched / dB",
    "ssim_brain": "SSIM",
    "hfen": "HFEN",
    "inter_slice": "inter-slice",
    "sharpness": "sharpness",
}


def write_card(
    table: str | Path, bundle_root: str | Path, num_steps: int, restart: float | None, gain: float = 1.0
) -> None:
    """Put the figures of the baselines and of every fusion at one dial setting where users look.

    Args:
        table: CSV of :class:`~monai_diffens.engines.sweep.DialSweep`.
        bundle_root: its ``docs/README.md`` and ``configs/metadata.json`` are rewritten.
        num_steps: passes of the setting shown (the bundle's default).
        restart: its restart.
        gain: its gain of the residual.

    Raises:
        ValueError: when the table holds no such setting, or the card lacks the two marker lines.
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
        BEGIN,
        f"Means over {len(cases)} test volumes ({', '.join(cases)}), {num_steps} passes, restart {restart}, "
        + (f"gain {gain:g}, " if gain != 1 else "")
        + "inside the brain; data range 1 on volumes scaled by the truth's 99.5th foreground percentile.",
        "",
        "| setting | method | " + " | ".join(shown.values()) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for (setting, method), values in means.items():
        figures = " | ".join(f"{values[name]:.3f}" for name in shown)
        lines.append(f"| {setting} | {method} | {figures} |")
    lines.append(END)

    card = Path(bundle_root) / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{card} lacks the lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    card.write_text(before + "\n".join(lines) + after, encoding="utf-8")

    metadata = Path(bundle_root) / "configs" / "metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["eval_metrics"] = {
        f"{setting}, {method}": {name: round(values[name], 4) for name in shown}
        for (setting, method), values in means.items()
        if method in ("cubic", REGRESSION, "mean", "calibrated")
    }
    metadata.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
