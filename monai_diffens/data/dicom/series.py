"""DICOM series in a folder.

Series are told apart by their Series Instance UID, wherever their files lie. A series is named after a hash
of that UID, never after its files or folders: those often carry a patient's name, and so does the header.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from monai_diffens.messages import InputRejected, say

__all__ = [
    "ALIKE",
    "MODEL_NAME",
    "DicomSeries",
    "find_series",
    "holds_dicom",
    "is_dicom",
    "only_series",
    "quiet_pydicom",
    "read_header",
    "series_name",
]

pydicom, has_pydicom = optional_import("pydicom")

MODEL_NAME = "Diff-Ensembler"  # what results hold as ManufacturerModelName

# Attribute -> how far two slices of one stack may differ in it; None: not at all.
ALIKE: dict[str, float | None] = {
    "StudyInstanceUID": None,
    "PatientID": None,
    "FrameOfReferenceUID": None,
    "Rows": None,
    "Columns": None,
    "PixelSpacing": 1e-4,
    "ImageOrientationPatient": 1e-4,
    "EchoTime": 1e-3,
}
HEADER = (
    *ALIKE,
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ManufacturerModelName",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "SliceThickness",
    "ImagePositionPatient",
)


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The images that share a Series Instance UID.

    Attributes:
        name: ``series-`` and 12 hexadecimal digits of the SHA-256 of the UID.
        files: one an image.
        headers: of the files, in their order, the attributes in :data:`HEADER` alone.
    """

    name: str
    files: tuple[Path, ...]
    headers: tuple[Any, ...]

    @property
    def is_result(self) -> bool:
        """Whether this package wrote it."""
        return any(header.get("ManufacturerModelName") == MODEL_NAME for header in self.headers)


def find_series(folder: Path, leave_out: Path | None = None) -> tuple[list[DicomSeries], list[str]]:
    """Find the DICOM series in a folder and in the folders below.

    Files are known by their content, whatever their names. Hidden files and folders, files that hold no
    image (reports, presentation states, a DICOMDIR) and links to folders are left out.

    Args:
        folder: where to look.
        leave_out: a folder below it that is not looked into.

    Returns:
        The series, sorted by name, and a line for each kind of file that could not be taken.

    Raises:
        InputRejected: DICOM files are there, and pydicom is not.
    """
    found: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    outside = damaged = 0
    for file in _dicom_files(folder, leave_out):
        if not has_pydicom:
            raise InputRejected(say("no_pydicom"))
        if not file.resolve().is_relative_to(folder.resolve()):
            outside += 1
            continue
        try:
            header = read_header(file, HEADER)
            _ = header.file_meta.MediaStorageSOPClassUID  # fails where nothing could be read
            if "Rows" in header:
                found[str(header.SeriesInstanceUID)].append((file, header))
        except Exception:  # pydicom's complaints on damaged files are of many kinds, and quote the header
            damaged += 1
    series = [
        DicomSeries(series_name(uid), *map(tuple, zip(*images, strict=True))) for uid, images in found.items()
    ]
    counts = {"dicom_outside": outside, "dicom_damaged": damaged}
    return sorted(series, key=lambda one: one.name), [say(k, count=n) for k, n in counts.items() if n]


def only_series(folder: Path) -> DicomSeries:
    """The one DICOM series in a folder and below.

    Raises:
        InputRejected: there is none, or several, or a file that cannot be taken.
    """
    series, problems = find_series(folder)
    if problems:
        raise InputRejected(problems[0])
    if len(series) != 1:
        raise InputRejected(say("dicom_several", count=len(series)))
    return series[0]


def series_name(uid: str) -> str:
    """Name of the series with this UID: always the same, and neither the UID nor the patient shows."""
    return f"series-{sha256(uid.encode()).hexdigest()[:12]}"


def is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM file lies directly in a folder."""
    return any(is_dicom(file) for file in folder.iterdir() if file.is_file() and file.name[0] != ".")


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Neither validate values nor warn of them: pydicom quotes values and paths, such as a name."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def read_header(file: Path, attributes: Sequence[str] | None = None) -> Any:
    """Read a file's header without its pixels, as a ``pydicom.Dataset``; all attributes when None."""
    with quiet_pydicom():
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=None if attributes is None else list(attributes)
        )
        header.decode()  # values are converted when first looked at: now, while all is quiet
        return header


def _dicom_files(folder: Path, leave_out: Path | None) -> list[Path]:
    files = []
    for here, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and (leave_out is None or Path(here, name).resolve() != leave_out.resolve())
        ]
        for path in (Path(here, name) for name in names if name[0] != "."):
            if path.is_file() and is_dicom(path):
                files.append(path)
    return sorted(files)
