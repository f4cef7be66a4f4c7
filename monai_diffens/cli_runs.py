"""What ``diffens sr``, ``translate`` and ``check`` do, and what they print."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_diffens.cli_options import SOME_FAILED, plain
from monai_diffens.files import NIFTI_ENDINGS
from monai_diffens.messages import Console, InputRejected, is_watched, say, tell

if TYPE_CHECKING:
    from monai_diffens.data.case_list import CaseList
    from monai_diffens.engines.case_evaluator import CaseEnd

__all__ = ["PAGE", "plan_cases", "run_cases"]

PAGE = "index.html"

log = logging.getLogger("monai_diffens")


def run_cases(
    task: str,
    root: Path,
    scan: Path,
    output_dir: Path,
    options: Mapping[str, Any],
    quiet: bool = False,
    json_lines: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Run a bundle's inference and tell what became of it; return 0, or 1 where a case has no result.

    Args:
        task: "sr" or "translate".
        root: folder of the bundle.
        scan: what it works on.
        output_dir: where results go.
        options: checked, by id.
        quiet: tell errors alone.
        json_lines: print a JSON object for each case as it ends, and one at the end.
        workers: processes of this machine that share the cases; this one alone when None.
        scheduler: of a dask cluster whose workers share the cases.

    Raises:
        InputRejected: the input is not there, or the folder cannot be written; workers cannot be had.
        OptionError: as :func:`~monai_diffens.inference.run_inference`, and BundleRejected.
    """
    _must_exist(scan)
    _must_be_writable(output_dir)
    from monai_diffens.inference import Interrupted, open_inference, run_inference, told_status
    from monai_diffens.workers import Crew, absolute, check_workers, job_of, workers_of

    began = time.perf_counter()
    given = {**options, "input": plain(scan), "output_dir": plain(output_dir)}
    shared = workers is not None or scheduler is not None
    if shared:
        check_workers(workers, scheduler)
        given = absolute(given)
    workflow = open_inference(root, given)
    bar = is_watched(sys.stderr) and not quiet and not json_lines
    out = sys.stdout  # that of the run is not shown

    def on_end(end: CaseEnd) -> None:
        if json_lines:
            told = {"case": end.case, "status": "done" if end.failure is None else "failed"}
            tell(json.dumps(told | {"reason": end.failure, "seconds": round(end.seconds, 2)}), out)

    if shared:
        Crew(job_of(root, given), workers_of(workers, scheduler), on_end, bar).take_over(workflow)
    try:
        with _told_on_stderr(logging.ERROR if quiet else logging.WARNING):
            cases, status = run_inference(workflow, on_end, bar)
    except InputRejected as error:  # none can be worked on
        tell(str(error), sys.stderr)
        return SOME_FAILED
    except Interrupted as stopped:
        return told_status(stopped)
    page = output_dir / PAGE
    summary = {
        "done": len(cases.items) - len(cases.failures),
        "skipped": len(cases.skipped),
        "nothing_to_do": len(cases.fine),
        "rejected": [entry.reason for entry in cases.rejected],
        "failed": list(cases.failures.values()),
        "status": status,
        "seconds": round(time.perf_counter() - began, 2),
        "page": str(page.resolve()) if page.is_file() else None,
    }
    if json_lines:
        tell(json.dumps(summary))
    elif not quiet:
        steps = workflow.parser.get_parsed_content("num_steps")
        tell("\n".join(_three_lines(task, summary, cases, steps)))
    return status


def plan_cases(
    root: Path, scan: Path, output_dir: Path | None, options: Mapping[str, Any], json_lines: bool = False
) -> int:
    """Print what would be done to each case, and write nothing; return 0, or 1 where one is rejected.

    Args:
        root: folder of the bundle.
        scan: what it would work on.
        output_dir: its results count as there already; None for none.
        options: checked, by id.
        json_lines: print a JSON object a case.

    Raises:
        InputRejected: the input is not there.
    """
    _must_exist(scan)
    from monai_diffens.inference import find_cases, open_inference

    for told in study_lines(scan, json_lines):
        tell(told)
    with tempfile.TemporaryDirectory() as nowhere:
        where = {"input": plain(scan), "output_dir": plain(output_dir or Path(nowhere))}
        try:
            with _told_on_stderr(logging.CRITICAL):  # warnings and rejections are told in their place
                cases = find_cases(open_inference(root, {**options, **where}))
        except InputRejected as error:
            tell(str(error), sys.stderr)
            return SOME_FAILED
        for line in _planned(cases):
            tell(json.dumps(line) if json_lines else _told(line))
    return SOME_FAILED if cases.rejected else 0


def _three_lines(task: str, summary: Mapping[str, Any], cases: CaseList, num_steps: int) -> list[str]:
    """What was done, how long it took, where the page is."""
    count = summary["done"]
    verb = {"sr": "Restored", "translate": "Translated"}[task]
    first = f"{verb} {count} {'case' if count == 1 else 'cases'} ({num_steps} step{'s' * (num_steps > 1)})"
    rest = {
        "there already": summary["skipped"],
        "with nothing to do": summary["nothing_to_do"],
        "rejected": len(summary["rejected"]),
        "failed": len(summary["failed"]),
    }
    first += "".join(f", {number} {word}" for word, number in rest.items() if number)
    seconds = summary["seconds"]
    took = f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    if count > 1:
        took += f", {seconds / count:.1f} s a case"
    where = f"Page: {summary['page']}" if summary["page"] else f"Results: {cases.output_dir.resolve()}"
    return [first, f"Took {took}", where]


def study_lines(scan: Path, json_lines: bool = False) -> list[str]:
    """The table of the series of a folder of DICOM, line by line; nothing for other input.

    Args:
        scan: what a run would be given; a folder that directly holds NIfTI files gives those alone.
        json_lines: a JSON object a series instead.
    """
    from monai_diffens.data.dicom.series import find_files
    from monai_diffens.data.dicom.study import study_table, table_text

    niftis = scan.is_dir() and any(file.name.lower().endswith(NIFTI_ENDINGS) for file in scan.iterdir())
    if niftis or not find_files(scan).dicom:
        return []
    try:
        rows = study_table(scan)
    except InputRejected:  # told with the cases
        return []
    if json_lines:
        return [json.dumps({"series": asdict(row)}) for row in rows]
    return [*table_text(rows).splitlines(), ""]


def _planned(cases: CaseList) -> list[dict[str, Any]]:
    """What would be done to each case, as plain dicts."""
    from nibabel.affines import voxel_sizes

    from monai_diffens.transforms.nifti_file import open_nifti

    lines: list[dict[str, Any]] = []
    for item in cases.items:
        line: dict[str, Any] = {"case": item["case"], "plan": "work on"}
        image = item.get("image")
        if isinstance(image, str):
            with open_nifti(Path(image), cases.reading.volume) as file:
                line["voxels"], spacing = list(file.shape), voxel_sizes(file.geometry.affine)
            line["spacing_mm"] = [round(float(side), 3) for side in spacing]
        elif image is not None:
            line["slices"] = len(image)
        if item.get("sources"):
            line["sources"] = list(item["sources"])
        lines.append(line | {"warnings": list(item["warnings"])})
    lines += [{"case": path.name, "plan": "skip, there already"} for path in cases.skipped]
    lines += [{"case": path.name, "plan": "leave, nothing to do"} for path in cases.fine]
    lines += [{"case": entry.path.name, "plan": "reject", "reason": entry.reason} for entry in cases.rejected]
    return lines


def _told(line: Mapping[str, Any]) -> str:
    """One planned case as text, its warnings below it."""
    parts = [f"{line['plan']}: {line.get('reason', line['case'])}"]
    if "voxels" in line:
        voxels, spacing = (" x ".join(f"{v:g}" for v in line[key]) for key in ("voxels", "spacing_mm"))
        parts.append(f"{voxels} voxels of {spacing} mm")
    if "slices" in line:
        parts.append(f"DICOM, {line['slices']} slices")
    parts += line.get("sources", [])
    return "\n".join([", ".join(parts), *(f"  warning: {warning}" for warning in line.get("warnings", []))])


def _must_exist(path: Path) -> None:
    try:
        there = path.exists()
    except OSError:  # a name that the system cannot look up
        there = False
    if not there:
        raise InputRejected(say("input_missing", name=path))


def _must_be_writable(folder: Path) -> None:
    """Refuse an output folder that is a file or cannot be written, before anything heavy is imported."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists() or p.is_symlink())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        why = "not a folder" if not existing.is_dir() else "no permission"
        raise InputRejected(say("unwritable", name=folder, why=why))


@contextmanager
def _told_on_stderr(level: int) -> Iterator[None]:
    """Lines of this package alone, from ``level`` on; afterwards loggers are as they were."""
    handler = logging.StreamHandler(Console(sys.stderr))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    ignite = logging.getLogger("ignite")
    before = log.handlers[:], log.propagate, log.level, ignite.level
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(level)
    ignite.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.handlers[:], log.propagate = before[:2]
        log.setLevel(before[2])
        ignite.setLevel(before[3])
