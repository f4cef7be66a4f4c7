"""From what a user typed as input to the list of scans to work on, one scan a case."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_diffens.contrasts import image_name
from monai_diffens.data.case_list import CaseList, Spacing
from monai_diffens.data.dicom.series import DicomSeries, find_series, is_dicom
from monai_diffens.data.dicom.study import Wanted, find_structural, kind_warnings
from monai_diffens.data.output_folder import is_ours
from monai_diffens.files import NIFTI_ENDINGS, case_name
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import CheckedVolume, check_volume
from monai_diffens.transforms.nifti_file import CHECKED
from monai_diffens.transforms.target_grid import check_factors, is_fine, spacing_factors

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


class CaseFolder(CaseList):
    """The cases of one run over a NIfTI file, a DICOM series or a folder, and what became of them.

    A folder gives every ``.nii`` and ``.nii.gz`` directly inside; hidden files are left out, and so are the
    run's own earlier results where it writes into its input folder. A BIDS folder (it holds
    ``dataset_description.json``, or it is itself named ``sub-*`` or ``ses-*`` and holds no NIfTI directly)
    gives the anatomical contrasts (``BIDS_CONTRASTS``) of every subject and session instead.
    Links that lead out of the folder are rejected.

    A folder without any of these gives every structural DICOM series in it and below, except this package's
    own results (so that automatic routing cannot run in a circle); ``series`` names others, or some of them.
    A case is then named after the series' number, its cleaned description and a hash of its UID.

    A NIfTI case is named after its file. A mask in a folder of masks has the name of its scan,
    ``<case>.nii.gz`` for a DICOM series.

    ``input`` is a NIfTI file, or a folder of NIfTI files or of DICOM series; the other arguments are those of
    :class:`CaseList`. With a ``target_spacing``, scans whose slices are too far apart are rejected, and
    scans that already reach it are left alone: there is nothing to do for them, which is no failure.
    """

    _series: dict[Path, DicomSeries]  # by name, which stands for the path; filled by find

    def find(self) -> list[Path]:
        """Files, or names of series."""
        files, series, self.problems, self.left_out = find_inputs(
            self.input, self.output_dir, self.suffix, self.reading.series
        )
        self._series = {Path(one.name): one for one in series}
        return [*files, *self._series]

    def is_single(self, paths: Sequence[Path]) -> bool:
        """A file, or a folder of one series and nothing that could not be taken."""
        lone_series = len(self._series) == 1 and not self.problems
        return lone_series or not Path(str(self.input)).is_dir()

    def names(self, path: Path) -> tuple[str, str]:
        """Name of a case, and that of its file."""
        return case_name(path), path.name

    def check_place(self, path: Path) -> None:
        """Raise InputRejected for a link out of the folder; of series that was checked as they were found."""
        folder = Path(str(self.input)).resolve()
        if path not in self._series and not path.resolve().is_relative_to(folder):
            raise InputRejected(say("outside", name=path.name))

    def inputs(self, path: Path) -> dict[str, list[Path]]:
        """The scan's files, and its mask."""
        series = self._series.get(path)
        found = {"image": [path] if series is None else list(series.paths)}
        mask = self._mask(path)
        return found if mask is None else found | {"mask": [mask]}

    def _mask(self, path: Path) -> Path | None:
        case, told = self.names(path)
        return self.mask_of(
            f"{case}.nii.gz" if path in self._series else path.name, told, self.is_single([path])
        )

    def examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any], float] | None:
        """Check one scan: ``{"image": path, "case": name, "warnings": [line, ...], "checked": hashes}``.

        Of a DICOM series ``image`` is the list of its files, in the order of their positions. With a mask
        also ``"mask": path``.
        """
        series = self._series.get(path)
        image, checked = self.check_scan(series or path)
        warnings = [*checked.warnings, *(() if series is None else kind_warnings(series))]
        case, _ = self.names(path)
        hashes, mask = {"image": checked.sha256, **self.sidecars(path)}, self._mask(path)
        if mask is not None:
            hashes["mask"] = check_volume(mask, mask=True).sha256
        finer = 1.0
        if spacing is not None:
            factors = spacing_factors(checked.affine, spacing)
            if is_fine(factors):
                log.info(_nothing_to_do(checked, spacing))
                return None
            warnings += check_factors(factors, spacing, path.name)
            finer = float(np.maximum(factors, 1).prod())
        item: dict[str, Any] = {"image": image, "case": case, "warnings": warnings, CHECKED: hashes}
        return (item if mask is None else item | {"mask": str(mask)}), math.prod(checked.shape) * finer


def _nothing_to_do(checked: CheckedVolume, target: Sequence[float]) -> str:
    spacing, wanted = (" x ".join(f"{value:.3g}" for value in values) for values in (checked.zooms, target))
    return say("nothing_to_do", name=checked.path.name, spacing=spacing, target=wanted)
