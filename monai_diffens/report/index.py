"""The index of a run: every result in the output folder with its figures, and what has none, and why."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from monai_diffens.data.case_list import CaseList
from monai_diffens.data.output_folder import whole_or_absent
from monai_diffens.report.case_report import NOTICE, SCALES
from monai_diffens.report.page import page, table

SIDECAR_KEYS = (
    "SynthesizedFrom",
    "GeneratedBy",
    "WeightsSHA256",
    "Consistency",
    "Spread",
    "PlaneWeights",
    "Warnings",
)


def write_index(cases: CaseList, scale: str = "range") -> Path | None:
    """Write ``index.html`` and ``index.json`` into the folder of the results.

    Results of earlier runs that lie there are listed too, from their JSON files.

    Args:
        cases: of the run, after its last case.
        scale: what figures are relative to, a key of :data:`~monai_diffens.report.case_report.SCALES`.

    Returns:
        Path of the page; None, and nothing written, where the folder holds no result.
    """
    folder, suffix = cases.output_dir, cases.suffix
    entries = [
        entry
        for sidecar in sorted(folder.glob(f"*_{suffix}.json"))
        if (entry := _entry(sidecar, suffix)) is not None
    ]
    if not entries:
        return None
    without = {
        "Rejected": [found.reason for found in cases.rejected],
        "Failed": list(cases.failures.values()),
        "NothingToDo": [path.name for path in cases.fine],
    }
    path = folder / "index.html"
    for file_path, text in (
        (
            folder / "index.json",
            json.dumps({"Synthetic": True, "Cases": entries, **without}, indent=1) + "\n",
        ),
        (path, _page(entries, without, SCALES[scale][1])),
    ):
        with whole_or_absent(file_path) as file:
            file.write(text.encode())
    return path


def _entry(sidecar: Path, suffix: str) -> dict[str, Any] | None:
    """What a result's JSON file says, briefly; None where the result itself is missing."""
    stem = sidecar.name.removesuffix(".json")
    result = sidecar.with_name(stem + ".nii.gz")
    if not result.is_file():
        return None
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    report = sidecar.with_name(stem + ".html")
    return {
        "Case": stem.removesuffix(f"_{suffix}"),
        "Result": result.name,
        "Report": report.name if report.is_file() else None,
        **{key: facts[key] for key in SIDECAR_KEYS if key in facts},
    }


def _page(entries: list[dict[str, Any]], without: dict[str, list[str]], scale: str) -> str:
    heads = ("case", "agreement", "spread", "weights", "version", "warnings")
    lines = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for entry in entries:
        name = escape(entry["Case"])
        link = f'<a href="{escape(entry["Report"])}">{name}</a>' if entry["Report"] else name
        agreement, spread = entry.get("Consistency"), entry.get("Spread")
        weights = entry.get("PlaneWeights", {})
        cells = (
            f"{agreement['MeanAbsoluteDifference']:.4%}" if agreement else "-",
            f"{spread['Mean']:.3%}" if spread else "-",
            ", ".join(f"{plane} {share:.2f}" for plane, share in weights.items()) or "-",
            f"{entry['GeneratedBy'][0]['Version']}, {entry.get('WeightsSHA256', 'unknown')[:8]}",
            "; ".join(entry.get("Warnings", [])) or "none",
        )
        lines.append(f"<tr><td>{link}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    body = [
        f"<p>{len(entries)} results.</p><table>" + "\n".join(lines) + "</table>",
        "<p><small>Agreement: mean |result sliced thick again - scan|; spread: mean of the spread map; both "
        f"relative to {scale}. Version: of the software, and start of the weights' SHA-256.</small></p>",
    ]
    for title, reasons in zip(("Rejected", "Failed", "Nothing to do"), without.values(), strict=True):
        if reasons:
            body += [f"<h2>{title}</h2>", table([(reason,) for reason in reasons], ("in this run",))]
    return page("Results", body, NOTICE)
