"""Which files a run is asked to work on; the one place that knows what kinds of input there are."""

from __future__ import annotations

import logging
import os
from os import PathLike
from pathlib import Path

from monai_diffens.data.dicom.series import DicomSeries, find_series
from monai_diffens.data.writer import case_name
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import NIFTI_ENDINGS, InputRejected

__all__ = ["BIDS_CONTRASTS", "find_inputs"]

log = logging.getLogger("monai_diffens")

BIDS_CONTRASTS = ("T1w", "T2w", "PDw", "T2starw", "FLAIR")


def find_inputs(
    input: str | PathLike[str], output_dir: Path, suffix: str
) -> tuple[list[Path], list[DicomSeries], list[str]]:
    """Find what there is to work on.

    Returns:
        NIfTI files, sorted; where there are none, DICOM series; and a line for each kind of DICOM file that
        could not be taken.

    Raises:
        InputRejected: nothing is there.
    """
    if input is None or not str(input):
        raise InputRejected(say("no_input"))
    path = Path(str(input))
    if os.path.isfile(path):  # unlike Path.is_file, False for a name that the system cannot look up
        return [path], [], []
    if not os.path.isdir(path):
        raise InputRejected(say("input_missing", name=path))
    here = _niftis(path, "*")
    if (path / "dataset_description.json").is_file() or (not here and path.name.startswith(("sub-", "ses-"))):
        patterns = ("sub-*/anat/*", "sub-*/ses-*/anat/*", "ses-*/anat/*", "anat/*")
        found = [
            file
            for pattern in patterns
            for file in _niftis(path, pattern)
            if case_name(file).rsplit("_", 1)[-1] in BIDS_CONTRASTS
        ]
    else:
        found = here
        if path.resolve() == output_dir.resolve():
            own = tuple(f"{case_name(file)}_{suffix}" for file in here)
            found = [file for file in here if not case_name(file).startswith(own)]
    if found:
        return sorted(found), [], []
    series, problems = find_series(path, output_dir)
    for one in series:
        if one.is_result:
            log.info(say("dicom_result", name=one.name))
    series = [one for one in series if not one.is_result]
    if not series and not problems:
        raise InputRejected(say("no_cases", name=path))
    return [], series, problems


def _niftis(folder: Path, pattern: str) -> list[Path]:
    return [
        file
        for file in folder.glob(pattern)
        if file.name.lower().endswith(NIFTI_ENDINGS) and file.name[0] != "." and not file.is_dir()
    ]
