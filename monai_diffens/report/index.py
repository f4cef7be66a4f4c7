"""The index of a run: every result in the output folder with its figures, and what has none, and why."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from monai_diffens.data.case_list import CaseList
from monai_diffens.files import whole_or_absent
from monai_diffens.messages import say
from monai_diffens.report.figures import SCALES, by_plane, duration, percent
from monai_diffens.report.page import render

log = logging.getLogger("monai_diffens")

HEAD = 1 << 16  # bytes of a page that are searched
CARD = re.compile(r'<script type="application/json" id="card">(.*?)</script>', re.S)
PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*")
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
SECTIONS = {  # key of index.json: title
    "Rejected": "Rejected",
    "Failed": "Failed",
    "NothingToDo": "Nothing to do",
    "Unreadable": "Unreadable",
    "LeftOut": "Left out",
}


class Cell(NamedTuple):
    """One cell of a row."""

    text: str  # what is shown
    order: float | str | None  # what the column is sorted by; None comes last


class Row(NamedTuple):
    """A result in the table."""

    case: str  # its name
    report: str | None  # file name of its page, if it has one
    picture: str | None  # data URI of its thumbnail, if it has one
    cells: list[Cell]  # as many as there are COLUMNS
    warnings: list[str]  # lines
    version: str  # of the software, and start of the weights' hash


COLUMNS = ("agreement", "spread", "fusion weights", "voxels / mm", "steps", "time")


def write_index(cases: CaseList, scale: str = "range") -> Path | None:
    """Write ``index.html`` and ``index.json`` into the folder of the results.

    Results of earlier runs that lie there are listed too, from their JSON files. A JSON file that is damaged
    or not ours is named in the log and in the index, and left as it is. The results are there already, so
    nothing here is an error: where the index cannot be written, the log says so.

    Args:
        cases: of the run, after its last case.
        scale: what figures are relative to, a key of :data:`~monai_diffens.report.figures.SCALES`.

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
            facts = _facts(sidecar)
            entry = _entry(facts, sidecar, result, suffix)
            rows.append(_row(entry, facts, folder))
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
            (path, page(rows, without, scale)),
        ):
            with whole_or_absent(file_path) as file:
                file.write(text.encode(errors="replace"))
    except OSError as error:
        log.warning(say("no_index", why=error.strerror))
        return None
    return path


def page(rows: list[Row], without: dict[str, list[str]], scale: str = "range") -> str:
    """The page of the index.

    Args:
        rows: of the table.
        without: reasons by the keys of ``SECTIONS``.
        scale: as :func:`write_index`.
    """
    used = [i for i in range(len(COLUMNS)) if any(row.cells[i].order is not None for row in rows)]
    return render(
        "index.html",
        ["theme.js", "index.js"],
        title="Results",
        rows=[row._replace(cells=[row.cells[i] for i in used]) for row in rows],
        columns=[COLUMNS[i] for i in used],
        warned=sum(bool(row.warnings) for row in rows),
        sections=[(SECTIONS[name], reasons) for name, reasons in without.items() if reasons],
        scale=SCALES[scale].long,
    )


def _facts(sidecar: Path) -> dict[str, Any]:
    """A result's JSON file.

    Raises:
        ValueError: it is none of ours; as OSError, TypeError and RecursionError.
    """
    if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
        raise ValueError("no plain file, or far too large")
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    if not isinstance(facts, dict):
        raise TypeError("no JSON object")
    return facts


def _entry(facts: dict[str, Any], sidecar: Path, result: Path, suffix: str) -> dict[str, Any]:
    """What a result's JSON file says, briefly."""
    stem = sidecar.name.removesuffix(".json")
    report = sidecar.with_name(stem + ".html")
    return {
        "Case": stem.removesuffix(f"_{suffix}"),
        "Result": result.name,
        "Report": report.name if report.is_file() else None,
        **{key: facts[key] for key in SIDECAR_KEYS if key in facts},
    }


def _row(entry: dict[str, Any], facts: dict[str, Any], folder: Path) -> Row:
    """A result's row of the table; raises TypeError, LookupError and the like for a foreign record."""
    card = read_card(folder / entry["Report"]) if entry["Report"] else {}
    agreement, spread = entry.get("Consistency"), entry.get("Spread")
    sampling = facts.get("Sampling", {})
    steps, samples = sampling.get("num_steps"), sampling.get("num_samples", 1)
    warnings = entry.get("Warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(line, str) for line in warnings):
        raise TypeError("warnings that are no lines")
    cells = [_share(agreement and agreement["MeanAbsoluteDifference"]), _share(spread and spread["Mean"])]
    weights = by_plane(entry.get("PlaneWeights", {}))
    cells.append(
        _text(", ".join(f"{plane}\N{NO-BREAK SPACE}{share:.2f}" for plane, share in weights.items()))
    )
    arrow = " \N{RIGHTWARDS ARROW} "
    cells.append(_text(arrow.join(card[name] for name in ("Before", "After") if card.get(name))))
    passes = None if steps is None else float(steps)
    cells.append(Cell("-" if steps is None else f"{steps}" + f", {samples} samples" * (samples != 1), passes))
    seconds = card.get("Seconds")
    cells.append(Cell("-" if seconds is None else duration(seconds), seconds))
    return Row(
        entry["Case"],
        entry["Report"],
        card.get("Picture"),
        cells,
        warnings,
        f"{entry['GeneratedBy'][0]['Version']}, {entry.get('WeightsSHA256', 'unknown')[:8]}",
    )


def _share(value: Any) -> Cell:
    return Cell(percent(value), float(value)) if value is not None else Cell("-", None)


def _text(text: str) -> Cell:
    return Cell(text or "-", text or None)


def read_card(page: Path) -> dict[str, Any]:
    """What a page of a case tells the index; nothing that is absent or not of its kind.

    Returns:
        Of ``Picture`` (data URI), ``Before`` and ``After`` (voxels in mm) and ``Seconds`` those that it has.
    """
    try:
        with page.open("rb") as file:
            head = file.read(HEAD).decode("utf-8", errors="replace")
        match = CARD.search(head)
        card = json.loads(match[1]) if match else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    known: dict[str, Any] = {}
    if isinstance(image := card.get("Picture"), str) and PICTURE.fullmatch(image):
        known["Picture"] = image
    for name in ("Before", "After"):
        if isinstance(text := card.get(name), str):
            known[name] = text[:80]
    seconds = card.get("Seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < 1e7:
        known["Seconds"] = float(seconds)
    return known
