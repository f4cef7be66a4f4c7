"""The cases of a translation run: any subset of contrasts each, by names in folders or by a data list."""

from __future__ import annotations

import difflib
import itertools
import json
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_diffens.contrasts import CONTRASTS, TARGET, contrast_of, image_name
from monai_diffens.data.case_list import CaseList, Reading, Results, Spacing
from monai_diffens.data.dicom.series import DicomSeries, holds_dicom, only_series
from monai_diffens.data.dicom.study import Wanted, study_cases
from monai_diffens.data.output_folder import is_ours
from monai_diffens.files import NIFTI_ENDINGS, case_name
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import CheckedVolume, check_volume
from monai_diffens.transforms.nifti_file import CHECKED
from monai_diffens.transforms.target_grid import check_factors, spacing_factors

log = logging.getLogger("monai_diffens")

RESULT = "desc-synthetic"  # in the name of every result of ours
# Folders that may hold a case's files, below the one that was given.
FOLDERS = (".", "anat", "*", "*/anat", "*/ses-*", "*/ses-*/anat")
LARGEST_LIST = 64 << 20  # bytes


@dataclass
class ContrastFiles:
    """Files of one case.

    Attributes:
        case: its name.
        folder: where its files lie.
        files: contrast -> NIfTI file or DICOM series.
        unknown: names of files that are no contrast known here.
        problem: why the case cannot be worked on, one line, or "".
        notes: lines to be told with the result.
        left_out: lines on what lies there and is not worked on.
    """

    case: str
    folder: Path
    files: dict[str, Path | DicomSeries] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_contrasts(input: str | os.PathLike[str], series: Wanted = None) -> list[ContrastFiles]:
    """Return the cases of a folder of case folders, of one case folder or of a data list, sorted by name.

    A contrast is told by a file's name, see :mod:`~monai_diffens.contrasts`; a folder of such a
    name holds one DICOM series of the contrast. Files that name different BIDS subjects or sessions are
    different cases, though they lie in one folder. A data list is a JSON file: a list of objects (or
    ``{"testing": [...]}``, as MONAI's are) of contrast to path, with an optional ``case``; paths, of files or
    folders of one DICOM series, are relative to it.

    A case is named after the BIDS entities that its files share; else after its folder, where it lies below
    the one that was given, and what its files' names share; of DICOM series alone, after the first of them,
    since folders of DICOM often carry a patient's name.

    Where no name tells a contrast, a folder of DICOM gives a case of each study,
    :func:`~monai_diffens.data.dicom.study.study_cases`; with ``series``, of the series that it names.

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
    for pattern in FOLDERS if series is None else ():
        for folder in [path] if pattern == "." else sorted(path.glob(pattern)):
            if folder.is_dir() and (files := [file for file in _listing(folder) if _may_be_scan(file)]):
                found += _from_folder(folder, files, path)
    if not found:
        found = [
            ContrastFiles(one.case, path, dict(one.files), [], one.problem, one.notes, one.left_out)
            for one in study_cases(path, series)
        ]
    if not found:
        raise InputRejected(say("no_cases", name=path))
    return sorted(found, key=lambda case: case.case)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputRejected(say("unreadable", name=folder.name, why=error.strerror)) from error


def _may_be_scan(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return contrast_of(path) is not None and holds_dicom(path)
    return path.name.lower().endswith(NIFTI_ENDINGS) and path.is_file()


def _from_folder(folder: Path, files: Sequence[Path], root: Path) -> list[ContrastFiles]:
    """The cases of one folder: one, unless names tell different subjects or sessions."""
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    unnamed: list[Path] = []
    for file in files:
        if RESULT in file.name and file.is_file() and is_ours(file):
            log.info(say("own_result", name=file.name))
            continue
        entities = image_name(file).entities
        who = entities.get("sub", ""), entities.get("ses", "")
        (groups[who] if any(who) else unnamed).append(file)
    if len(groups) > 1:
        cases = [_from_files(folder, group, root) for group in groups.values()]
        return cases + ([_from_files(folder, unnamed, root)] if unnamed else [])
    every = [*next(iter(groups.values()), []), *unnamed]
    return [_from_files(folder, sorted(every), root)] if every else []


def _take(case: ContrastFiles, contrast: str, path: Path) -> None:
    """Note a contrast's file, or the series in its folder, or why there is none."""
    try:
        case.files[contrast] = only_series(path) if os.path.isdir(path) else path
    except InputRejected as error:
        case.problem = str(error)


def _from_files(folder: Path, files: Sequence[Path], root: Path) -> ContrastFiles:
    case = ContrastFiles("", folder)
    rests = []
    for file in files:
        told = contrast_of(file)
        if told is None or RESULT in file.name:
            case.unknown.append(file.name)
            continue
        contrast, rest = told
        if contrast in case.files:
            twice = {"one": case.files[contrast].name, "other": file.name, "contrast": contrast}
            case.problem = say("contrast_twice", **twice)
        _take(case, contrast, file)
        if not file.is_dir():
            rests.append(rest)
    case.case = _series_alone(case) or case_name(_case_of(folder, rests, root))
    owner = folder.parent.name if folder.name == "anat" else folder.name
    others = [file.name for file in files if owner.startswith("sub-") and _subject(file) not in (None, owner)]
    if others:
        case.problem = say("other_subject", name=others[0], folder=owner)
    elif _one_file_twice(case):
        case.problem = say("same_file", names=", ".join(case.files))
    if not case.files and not case.problem:
        case.problem = say(
            "no_contrast", name=case.case, found=", ".join(case.unknown), expected=", ".join(CONTRASTS)
        )
    return case


def _subject(file: Path) -> str | None:
    told = image_name(file).entities.get("sub")
    return None if told is None else f"sub-{told}"


def _case_of(folder: Path, rests: Sequence[str], root: Path) -> str:
    """Name of a case: what its files' names share, with the folder's where they name no subject."""
    owner = folder.parent if folder.name == "anat" else folder
    place = owner.resolve().name
    if place.startswith("ses-"):  # every subject has one of that name
        place = f"{owner.resolve().parent.name}_{place}"
    parts = os.path.commonprefix([rest.split("_") for rest in rests])  # noqa: RUF071 (of lists)
    shared = "_".join(part for part in parts if part)
    if not shared:
        return place
    tells = re.match(r"(?i)sub-", shared) or shared.lower().startswith(place.lower())
    return shared if tells or owner.resolve() == root.resolve() else f"{place}_{shared}"


def _series_alone(case: ContrastFiles) -> str:
    """Name of the first series of a case of nothing but series, else ""."""
    scans = [case.files[contrast] for contrast in CONTRASTS if contrast in case.files]
    alone = scans and all(isinstance(scan, DicomSeries) for scan in scans)
    return scans[0].name if alone else ""


class _TwiceError(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that is there twice JSON readers keep the last in silence."""
    if len(found := dict(pairs)) < len(pairs):
        raise _TwiceError
    return found


def _from_list(path: Path) -> list[ContrastFiles]:
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise ValueError("too large")
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except (OSError, ValueError, RecursionError) as error:
        why = "a name twice in one case" if isinstance(error, _TwiceError) else "not JSON"
        raise InputRejected(say("bad_list", name=path.name, why=why)) from error
    if isinstance(content, dict):
        content = content.get("testing")
    if not isinstance(content, list) or not content or not all(isinstance(each, dict) for each in content):
        raise InputRejected(say("bad_list", name=path.name, why="no list of cases in it"))
    return [_from_entry(path, number, entry) for number, entry in enumerate(content, start=1)]


def _from_entry(path: Path, number: int, entry: Mapping[str, Any]) -> ContrastFiles:
    """One case of a data list."""
    case = ContrastFiles(f"case-{number}", path.parent)
    given = {name: value for name, value in entry.items() if name in CONTRASTS and value not in (None, "")}
    for name, value in given.items():
        if isinstance(value, str) and "\0" not in value:
            _take(case, name, path.parent / value)
        else:
            case.problem = say("bad_path", name=case.case, contrast=name, kind=type(value).__name__)
    first = next(iter(case.files.values()), None)
    told = contrast_of(first) if isinstance(first, Path) else None
    named = entry.get("case")
    named = None if named == "" else named
    name = str(_series_alone(case) or (told and told[1]) or case.case) if named is None else str(named)
    wrong = isinstance(named, bool) or not isinstance(named, str | int)
    if named is not None and (wrong or re.search(r"[/\\\0]", name) or name[0] == "."):
        case.problem = say("bad_case", name=repr(name))
    else:
        case.case = case_name(name)
    unknown = [key for key in entry if key not in (*CONTRASTS, "case")]
    if unknown:
        near = difflib.get_close_matches(unknown[0], CONTRASTS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(CONTRASTS)}"
        case.problem = say("unknown_contrast", name=case.case, contrast=unknown[0], hint=hint)
    elif _one_file_twice(case):
        case.problem = say("same_file", names=", ".join(given))
    elif not given and not case.problem:
        case.problem = say("no_contrast", name=case.case, found="nothing", expected=", ".join(CONTRASTS))
    return case


def _one_file_twice(case: ContrastFiles) -> bool:
    """Whether two contrasts are one file, by links too."""
    paths = [scan for scan in case.files.values() if isinstance(scan, Path)]
    there = [path for path in paths if os.path.exists(path)]
    found = {(at.st_dev, at.st_ino) for at in map(os.stat, there)}
    missing = {os.path.abspath(path) for path in paths if path not in there}
    return len(found) + len(missing) < len(paths)


SMALLEST_OVERLAP = 0.5


class ContrastCases(CaseList):
    """Cases with a file for each contrast they have, found by :func:`find_contrasts`.

    A missing contrast is simply absent. A case is rejected when it has none, when one of its files is bad, or
    when its files do not lie on each other. A mask in a folder of masks is named ``<case>.nii.gz``; it serves
    all contrasts of the case.

    Args:
        input: folder of case folders, one case folder, or data list (JSON).
        output_dir: where results go.
        target: the contrast that is made; it names the results.
        target_spacing: of the results in mm.
        reading: what is read, and accepted.
        results: what the run leaves in the folder; without its suffix.
        share: rank and number of processes that share the cases.
        leave_out: contrasts that are not used, as if absent.
    """

    def __init__(
        self,
        input: str | PathLike[str],
        output_dir: str | PathLike[str],
        target: str = TARGET,
        target_spacing: float | Sequence[float] | None = 1.0,
        reading: Reading | None = None,
        results: Results | None = None,
        share: tuple[int, int] = (0, 1),
        leave_out: Sequence[str] | None = None,
    ) -> None:
        named = replace(results or Results(), suffix=f"{RESULT}_{target}")
        super().__init__(input, output_dir, target_spacing, reading, named, share)
        self.target = target
        self.wanted = [name for name in CONTRASTS if name not in (leave_out or ())]

    @cached_property
    def _contrasts(self) -> dict[Path, ContrastFiles]:
        # cases of one data list share a folder: their place in the list tells them apart
        found = find_contrasts(self.input, self.reading.series)
        return {case.folder / f"{number}": case for number, case in enumerate(found, start=1)}

    def find(self) -> list[Path]:
        """A path for each case, which no file need have."""
        self.left_out = [line for case in self._contrasts.values() for line in case.left_out]
        return list(self._contrasts)

    def is_single(self, paths: Sequence[Path]) -> bool:
        """One case in the folder or list."""
        return len(paths) == 1

    def names(self, path: Path) -> tuple[str, str]:
        """Name of a case, twice."""
        case = self._contrasts[path].case
        return case, case

    def check_place(self, path: Path) -> None:
        """Raise InputRejected for a link out of the folder; a data list may name files anywhere."""
        if Path(str(self.input)).is_dir():
            root = Path(str(self.input)).resolve()
            for scan in self._contrasts[path].files.values():
                files = scan.files if isinstance(scan, DicomSeries) else [scan]
                if not all(file.resolve().is_relative_to(root) for file in files):
                    raise InputRejected(say("outside", name=scan.name))

    def inputs(self, path: Path) -> dict[str, list[Path]]:
        """Files of each contrast that is used, and the mask."""
        case = self._contrasts[path]
        found = {}
        for name in self._used(case):
            scan = case.files[name]
            found[name] = list(scan.paths) if isinstance(scan, DicomSeries) else [scan]
        mask = self._mask(case)
        return found if mask is None else found | {"mask": [mask]}

    def _used(self, case: ContrastFiles) -> list[str]:
        return [name for name in self.wanted if name in case.files]

    def _mask(self, case: ContrastFiles) -> Path | None:
        return self.mask_of(f"{case.case}.nii.gz", case.case, len(self._contrasts) == 1)

    def examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any], float]:
        """Check one case: a path for each contrast, ``sources`` (file names), and with a mask ``mask``."""
        case = self._contrasts[path]
        if case.problem:
            raise InputRejected(case.problem)
        names = self._used(case)
        if not names:
            found, expected = ", ".join(case.files), ", ".join(self.wanted)
            raise InputRejected(say("no_contrast", name=case.case, found=found, expected=expected))
        warnings = [*case.notes, *(say("contrast_ignored", file=name) for name in case.unknown)]
        if names == [self.target]:
            warnings.append(say("target_alone", target=self.target))
        images, checked = {}, {}
        for name in names:
            images[name], checked[name] = self.check_scan(case.files[name])
            told = list(checked[name].warnings)
            if spacing is not None:
                factors = spacing_factors(checked[name].affine, spacing)
                told += check_factors(factors, spacing, checked[name].path.name)
            warnings += [f"{name}: {line}" for line in told]
        first = checked[names[0]]
        for name in names[1:]:
            overlap = box_overlap(first, checked[name])
            if overlap < SMALLEST_OVERLAP:
                seen = {"one": names[0], "other": name, "percent": 100 * overlap}
                raise InputRejected(say("no_overlap", name=case.case, **seen))
        sources = [checked[name].path.name for name in names]
        hashes, mask = {name: checked[name].sha256 for name in names}, self._mask(case)
        hashes |= self.sidecars(path)
        item: dict[str, Any] = {**images, "case": case.case, "warnings": warnings, "sources": sources}
        item[CHECKED] = hashes
        if mask is not None:
            hashes["mask"] = check_volume(mask, mask=True).sha256
            item["mask"] = str(mask)
        finer = 1.0 if spacing is None else np.maximum(spacing_factors(first.affine, spacing), 1).prod()
        return item, math.prod(first.shape) * float(finer)


def box_overlap(one: CheckedVolume, other: CheckedVolume) -> float:
    """Volume shared by the boxes of two scans along the patient's axes, over the smaller box's: 0 to 1."""
    lows, highs = [], []
    for scan in (one, other):
        corners = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in scan.shape))))
        places = nib.affines.apply_affine(scan.affine, corners)
        lows.append(places.min(axis=0))
        highs.append(places.max(axis=0))
    shared = np.clip(np.minimum(*highs) - np.maximum(*lows), 0, None).prod()
    smaller = min((high - low).prod() for low, high in zip(lows, highs, strict=True))
    return float(shared / smaller)
