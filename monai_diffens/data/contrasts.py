"""Which contrasts of which case a run is given: by BIDS names in folders, or by a data list."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_diffens.data.bids import CONTRASTS
from monai_diffens.data.dicom.series import DicomSeries, holds_dicom, only_series
from monai_diffens.data.writer import case_name
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import NIFTI_ENDINGS, InputRejected

__all__ = ["ContrastFiles", "find_contrasts"]

RESULT = "desc-synthetic"  # in the name of every result of ours
# Folders that may hold a case's files, below the one that was given.
FOLDERS = (".", "anat", "*", "*/anat", "*/ses-*", "*/ses-*/anat")


@dataclass
class ContrastFiles:
    """Files of one case.

    Attributes:
        case: its name.
        folder: where its files lie.
        files: contrast -> NIfTI file or DICOM series.
        unknown: names of files that are no contrast known here.
        problem: why the case cannot be worked on, one line, or "".
    """

    case: str
    folder: Path
    files: dict[str, Path | DicomSeries] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    problem: str = ""


def find_contrasts(input: str | os.PathLike[str]) -> list[ContrastFiles]:
    """Return the cases of a folder of case folders, of one case folder or of a data list, sorted by name.

    A contrast is told by the end of a file's name: ``_T1w``, ``_ce-gadolinium_T1w`` (or another agent),
    ``_T2w``, ``_FLAIR``, or that alone; a folder of that name holds one DICOM series of the contrast. A
    data list is a JSON file: a list of objects (or ``{"testing": [...]}``, as MONAI's are) of contrast to
    path, with an optional ``case``; paths, of files or folders of one DICOM series, are relative to it.

    A case is named after what its files' names share, else after its folder; of DICOM series alone, after the
    first of them, since folders of DICOM often carry a patient's name.

    Raises:
        InputRejected: nothing is there.
    """
    if input is None or not str(input):
        raise InputRejected(say("no_contrast_input"))
    path = Path(str(input))
    if os.path.isfile(path):
        if path.suffix.lower() != ".json":
            raise InputRejected(say("not_a_case", name=path.name))
        return _from_list(path)
    if not os.path.isdir(path):
        raise InputRejected(say("input_missing", name=path))
    found = []
    for pattern in FOLDERS:
        for folder in [path] if pattern == "." else sorted(path.glob(pattern)):
            files = [
                file
                for file in (sorted(folder.iterdir()) if folder.is_dir() else [])
                if file.name[0] != "." and RESULT not in file.name and _may_be_scan(file)
            ]
            if files:
                found.append(_from_files(folder, files))
    if not found:
        raise InputRejected(say("no_cases", name=path))
    return sorted(found, key=lambda case: case.case)


def contrast_of(path: Path) -> tuple[str, str] | None:
    """Contrast and the rest of a file's name, or None where the name tells no known contrast."""
    stem = case_name(path)
    match = re.fullmatch(r"(?:(.*)_)?(T1w|T2w|FLAIR)", stem)
    if match is None:
        return None
    rest, contrast = match[1] or "", match[2]
    agent = re.fullmatch(r"(?:(.*)_)?ce-[A-Za-z0-9]+", rest)
    if contrast == "T1w" and agent is not None:
        return "ce-gadolinium_T1w", agent[1] or ""
    return contrast, rest


def _may_be_scan(path: Path) -> bool:
    if path.is_dir():
        return contrast_of(path) is not None and holds_dicom(path)
    return path.name.lower().endswith(NIFTI_ENDINGS) and path.is_file()


def _take(case: ContrastFiles, contrast: str, path: Path) -> None:
    """Note a contrast's file, or the series in its folder, or why there is none."""
    try:
        case.files[contrast] = only_series(path) if path.is_dir() else path
    except InputRejected as error:
        case.problem = str(error)


def _from_files(folder: Path, files: Sequence[Path]) -> ContrastFiles:
    case = ContrastFiles("", folder)
    prefixes = set()
    for file in files:
        told = contrast_of(file)
        if told is None:
            case.unknown.append(file.name)
            continue
        contrast, rest = told
        if contrast in case.files:
            twice = {"one": case.files[contrast].name, "other": file.name, "contrast": contrast}
            case.problem = say("contrast_twice", **twice)
        _take(case, contrast, file)
        if not file.is_dir():
            prefixes.add(rest)
    shared = os.path.commonprefix(sorted(prefixes)).rstrip("_")
    owner = folder.parent if folder.name == "anat" else folder
    series = _series_alone(case)
    case.case = series or case_name(shared or owner.resolve().name)
    if not case.files and not case.problem:
        case.problem = say(
            "no_contrast", name=case.case, found=", ".join(case.unknown), expected=", ".join(CONTRASTS)
        )
    return case


def _series_alone(case: ContrastFiles) -> str:
    """Name of the first series of a case of nothing but series, else ""."""
    scans = [case.files[contrast] for contrast in CONTRASTS if contrast in case.files]
    alone = scans and all(isinstance(scan, DicomSeries) for scan in scans)
    return scans[0].name if alone else ""


def _from_list(path: Path) -> list[ContrastFiles]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRejected(say("bad_list", name=path.name, why="not JSON")) from error
    if isinstance(content, dict):
        content = content.get("testing")
    if not isinstance(content, list) or not content or not all(isinstance(each, dict) for each in content):
        raise InputRejected(say("bad_list", name=path.name, why="no list of cases in it"))
    cases = []
    for number, entry in enumerate(content, start=1):
        case = ContrastFiles(f"case-{number}", path.parent)
        files = [path.parent / str(value) for name, value in entry.items() if name in CONTRASTS and value]
        for name, value in entry.items():
            if name in CONTRASTS and value:
                _take(case, name, path.parent / str(value))
        told = contrast_of(files[0]) if files and not files[0].is_dir() else None
        name = str(entry.get("case") or _series_alone(case) or (told and told[1]) or case.case)
        if entry.get("case") and (re.search(r"[/\\]", name) or name[0] == "."):
            case.problem = say("bad_case", name=repr(name))
        else:
            case.case = case_name(name)
        unknown = [key for key in entry if key not in (*CONTRASTS, "case")]
        if unknown:
            near = difflib.get_close_matches(unknown[0], CONTRASTS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(CONTRASTS)}"
            case.problem = say("unknown_contrast", name=case.case, contrast=unknown[0], hint=hint)
        elif not files and not case.problem:
            case.problem = say("no_contrast", name=case.case, found="nothing", expected=", ".join(CONTRASTS))
        cases.append(case)
    return cases
