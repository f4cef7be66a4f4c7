"""The index of a run: every result in the output folder with its figures, and what has none, and why."""

from __future__ import annotations

import json
import logging
from html import escape
from pathlib import Path
from typing import Any

from monai_diffens.data.case_list import CaseList
from monai_diffens.data.output_folder import whole_or_absent
from monai_diffens.messages import say
from monai_diffens.report.case_report import NOTICE, SCALES
from monai_diffens.report.page import page, table

log = logging.getLogger("monai_diffens")

LARGEST_SIDECAR = 1 << 20  # bytes; ours have a few thousand
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

    Results of earlier runs that lie there are listed too, from their JSON files. A JSON file that is damaged
    or not ours is named in the log and in the index, and left as it is. The results are there already, so
    nothing here is an error: where the index cannot be written, the log says so.

    Args:
        cases: of the run, after its last case.
        scale: what figures are relative to, a key of :data:`~monai_diffens.report.case_report.SCALES`.

    Returns:
        Path of the page; None, and nothing written, where the folder holds no result or has no room.
    """
    folder, suffix = cases.output_dir, cases.suffix
    entries, rows, unreadable = [], [], []
    for sidecar in sorted(folder.glob(f"*_{suffix}.json")):
        result = sidecar.with_name(sidecar.name.removesuffix(".json") + ".nii.gz")
        if not result.is_file():
            continue
        try:
            entry = _entry(sidecar, result, suffix)
            rows.append(_row(entry))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            unreadable.append(say("foreign_record", name=sidecar.name))
            log.warning(unreadable[-1])
            log.debug("details", exc_info=error)
        else:
            entries.append(entry)
    if not entries and not unreadable:
        return None
    without = {
        "Rejected": [found.reason for found in cases.rejected],
        "Failed": list(cases.failures.values()),
        "NothingToDo": [path.name for path in cases.fine],
        "Unreadable": unreadable,
        "LeftOut": cases.left_out,
    }
    path = folder / "index.html"
    content = {"Synthetic": True, "Cases": entries, **without}
    try:
        for file_path, text in (
            (folder / "index.json", json.dumps(content, indent=1) + "\n"),
            (path, _page(rows, without, SCALES[scale][1])),
        ):
            with whole_or_absent(file_path) as file:
                file.write(text.encode(errors="replace"))
    except OSError as error:
        log.warning(say("no_index", why=error.strerror))
        return None
    return path


def _entry(sidecar: Path, result: Path, suffix: str) -> dict[str, Any]:
    """What a result's JSON file says, briefly.

    Raises:
        ValueError: it is none of ours; as OSError, RecursionError and those of :func:`_row`.
    """
    stem = sidecar.name.removesuffix(".json")
    if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
        raise ValueError("no plain file, or far too large")
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    if not isinstance(facts, dict):
        raise TypeError("no JSON object")
    report = sidecar.with_name(stem + ".html")
    return {
        "Case": stem.removesuffix(f"_{suffix}"),
        "Result": result.name,
        "Report": report.name if report.is_file() else None,
        **{key: facts[key] for key in SIDECAR_KEYS if key in facts},
    }


def _row(entry: dict[str, Any]) -> str:
    """A result's row of the table; raises TypeError, LookupError and the like for a foreign record."""
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
    return f"<tr><td>{link}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _page(rows: list[str], without: dict[str, list[str]], scale: str) -> str:
    heads = ("case", "agreement", "spread", "weights", "version", "warnings")
    lines = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>", *rows]
    body = [
        f"<p>{len(rows)} results.</p><table>" + "\n".join(lines) + "</table>",
        "<p><small>Agreement: mean |result sliced thick again - scan|; spread: mean of the spread map; both "
        f"relative to {scale}. Version: of the software, and start of the weights' SHA-256.</small></p>",
    ]
    for title, reasons in zip(
        ("Rejected", "Failed", "Nothing to do", "Unreadable", "Left out"), without.values(), strict=True
    ):
        if reasons:
            body += [f"<h2>{title}</h2>", table([(reason,) for reason in reasons], ("in this run",))]
    return page("Results", body, NOTICE)
