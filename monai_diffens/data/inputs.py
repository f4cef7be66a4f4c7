"""Which files a run is asked to work on; the one place that knows what kinds of input there are."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from monai_diffens.data.contrast_names import image_name
from monai_diffens.data.dicom.series import DicomSeries, find_series, is_dicom
from monai_diffens.data.dicom.study import Wanted, find_structural
from monai_diffens.data.earlier_result import is_ours
from monai_diffens.files import case_name
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import NIFTI_ENDINGS, InputRejected

__all__ = ["BIDS_CONTRASTS", "Found", "find_inputs", "is_anatomical"]

log = logging.getLogger("monai_diffens")

LISTED = 5  # names that a line lists
# what goes with scans and is none itself
COMPANIONS = (".json", ".bval", ".bvec", ".tsv", ".csv", ".txt", ".md", ".html", ".pdf", ".log", "readme")
BIDS_CONTRASTS = ("T1w", "T2w", "PDw", "T2starw", "FLAIR")


class Found(NamedTuple):
    """What a run is asked to work on.

    Attributes:
        files: NIfTI files, sorted.
        series: DICOM series, where there are no NIfTI files.
        problems: a line for each kind of DICOM file that could not be taken.
        left_out: a line for each kind of other thing at the input that is not worked on.
    """

    files: list[Path]
    series: list[DicomSeries]
    problems: list[str]
    left_out: list[str]


def find_inputs(input: str | PathLike[str], output_dir: Path, suffix: str, series: Wanted = None) -> Found:
    """Find what there is to work on, and name what is left out.

    Args:
        input: what the user gave.
        output_dir: where results go: those of this run's kind are no inputs.
        suffix: of the results' names.
        series: which DICOM series, see :func:`~monai_diffens.data.dicom.study.choose`; when None the
            structural ones, where there are no NIfTI files.

    Raises:
        InputRejected: nothing is there, the folder cannot be read, or no series is structural or wanted.
    """
    if input is None or not str(input):
        raise InputRejected(say("no_input"))
    path = Path(str(input))
    if os.path.isfile(path):  # unlike Path.is_file, False for a name that the system cannot look up
        if is_dicom(path):
            return _find_dicom(path, series)
        if series is not None:
            raise InputRejected(say("series_of_dicom"))
        return Found([path], [], [], [])
    if not os.path.isdir(path):
        raise InputRejected(say("input_missing", name=path))
    try:
        here = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise InputRejected(say("unreadable", name=path.name, why=error.strerror)) from error
    niftis = [file for file in here if _is_nifti(file)]
    if (path / "dataset_description.json").is_file() or (
        not niftis and path.name.startswith(("sub-", "ses-"))
    ):
        patterns = ("sub-*/anat/*", "sub-*/ses-*/anat/*", "ses-*/anat/*", "anat/*")
        every = [file for pattern in patterns for file in path.glob(pattern) if _is_nifti(file)]
        found = [file for file in every if is_anatomical(file)]
        left_out = _counted("not_anatomical", [file for file in every if file not in set(found)])
    else:
        own = _own_results(niftis, suffix) if path.resolve() == output_dir.resolve() else set()
        found = [file for file in niftis if file not in own]
        left_out = _left_out(here, output_dir) if found else []
        if own:
            log.info(say("own_results", count=len(own)))
    if found and series is None:
        return Found(sorted(found), [], [], left_out)
    return _find_dicom(path, series)


def _find_dicom(path: Path, wanted: Wanted) -> Found:
    """The DICOM half of :func:`find_inputs`."""
    series, problems, left_out = find_series(path)
    left_out += [say("dicom_result", name=one.name) for one in series if one.is_result]
    series = [one for one in series if not one.is_result]
    if wanted is not None and not series:
        raise InputRejected(say("series_of_dicom"))
    taken, left = find_structural(series, wanted)
    if left and not taken and not problems:
        if len(left) == 1:
            raise InputRejected(say("dicom_left_only", name=left[0][0].name, kind=left[0][1]))
        kinds = ", ".join(sorted({kind for _, kind in left}))
        raise InputRejected(say("dicom_none_left", count=len(left), kinds=kinds))
    left_out += [say("dicom_left", name=one.name, kind=kind) for one, kind in left]
    if not series and not problems:
        raise InputRejected(say("no_cases", name=path))
    return Found([], taken, problems, left_out)


def is_anatomical(path: Path) -> bool:
    """Whether a BIDS name is that of an anatomical image; upper and lower case count as one."""
    last = case_name(path).rsplit("_", 1)[-1].lower()
    phase = image_name(path).entities.get("part", "mag").lower() != "mag"
    return last in (contrast.lower() for contrast in BIDS_CONTRASTS) and not phase


def _is_nifti(file: Path) -> bool:
    named = file.name.lower().endswith(NIFTI_ENDINGS) and file.name[0] != "."
    return named and not file.is_dir()


def _own_results(niftis: Sequence[Path], suffix: str) -> set[Path]:
    """Results of earlier runs among the inputs: by their names and by the mark in their headers."""
    begins = tuple(f"{case_name(file)}_{suffix}" for file in niftis)
    return {file for file in niftis if case_name(file).startswith(begins) and is_ours(file)}


def _left_out(here: Sequence[Path], output_dir: Path) -> list[str]:
    """Lines on what lies beside the NIfTI files of a folder."""
    others = [file for file in here if not file.is_dir() and not _is_nifti(file)]
    dicom = [file for file in others if is_dicom(file)]  # whose names may be a patient's
    others = [file for file in others if file not in dicom]
    others = [file for file in others if not file.name.lower().endswith(COMPANIONS)]
    folders = [folder for folder in here if folder.is_dir() and folder.resolve() != output_dir.resolve()]
    lines = _counted("not_nifti", others) + ([say("dicom_beside", count=len(dicom))] if dicom else [])
    return lines + ([say("not_looked_into", count=len(folders))] if folders else [])


def _counted(key: str, files: Sequence[Path]) -> list[str]:
    if not files:
        return []
    names = ", ".join(sorted(file.name for file in files)[:LISTED])
    more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
    return [say(key, count=len(files), names=names + more)]
