"""DICOM series in a folder, or in one multi-frame file.

Series are told apart by their Series Instance UID, wherever their files lie. A series is named after its
number, its cleaned description and a hash of its UID, never after its files or folders, which often carry a
patient's name.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from monai_diffens.data.dicom.files import FoundFiles, find_files, holds_dicom, is_dicom, name_pattern, named
from monai_diffens.data.dicom.headers import Header, has_pydicom, image_headers, number, text
from monai_diffens.messages import InputRejected, say

__all__ = [
    "MODEL_NAME",
    "DicomSeries",
    "FoundSeries",
    "cleaned",
    "find_series",
    "holds_dicom",
    "is_dicom",
    "only_series",
    "series_of_files",
]

log = logging.getLogger("monai_diffens")

MODEL_NAME = "Diff-Ensembler"  # what results hold as ManufacturerModelName
LONGEST_TEXT = 40  # characters of a cleaned description
HASH_DIGITS = 8
# Attributes whose parts are taken out of a description.
IDENTIFIERS = """
    PatientName PatientBirthName OtherPatientNames PatientID OtherPatientIDs PatientBirthDate
    AccessionNumber StudyID IssuerOfPatientID StudyDate
    ReferringPhysicianName PerformingPhysicianName OperatorsName InstitutionName
""".split()
LONG_PART = 4  # characters from which a part is taken out of the middle of a word too
LONG_NUMBER = 5  # digits: a date or a patient's number


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The images that share a Series Instance UID.

    Attributes:
        uid: that UID.
        files: one an image; a multi-frame file once for every frame.
        headers: of the images, in their order.
        doubt: why slices of it may be missing, one line, or "".
    """

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Header, ...]
    doubt: str = ""

    @property
    def name(self) -> str:
        """Number, cleaned description and 8 digits of the SHA-256 of the UID: ``4-t1_tra-0a1b2c3d``.

        The hash keeps two patients' results apart that go to one folder.
        """
        parts = [str(self.number or ""), self.description or "series"]
        return "-".join([*filter(None, parts), sha256(self.uid.encode()).hexdigest()[:HASH_DIGITS]])

    @property
    def paths(self) -> list[Path]:
        """Its files, each once."""
        return list(dict.fromkeys(self.files))

    @property
    def number(self) -> int | None:
        """Series Number, where there is one above 0."""
        value = number(self.headers[0], "SeriesNumber")
        return int(value) if value is not None and 0 < value < 1e9 else None

    @property
    def description(self) -> str:
        """Series Description, else the protocol's name, cleaned; "" where both are empty."""
        header = self.headers[0]
        return cleaned(header, "SeriesDescription") or cleaned(header, "ProtocolName")

    @property
    def study(self) -> str:
        """Study Instance UID, or ""."""
        return text(self.headers[0], "StudyInstanceUID")

    @property
    def is_result(self) -> bool:
        """Whether this package wrote it."""
        return all(text(header, "ManufacturerModelName") == MODEL_NAME for header in self.headers)


class FoundSeries(NamedTuple):
    """What :func:`find_series` found.

    Attributes:
        series: sorted by study, number and name.
        problems: a line for each kind of file that could not be taken and belongs to no series found.
        notes: a line for each kind of file that was left out on purpose.
    """

    series: list[DicomSeries]
    problems: list[str]
    notes: list[str]


@dataclass
class _Sorted:
    """Files of a folder as their headers were read."""

    images: dict[str, list[tuple[Path, Header]]] = field(default_factory=lambda: defaultdict(list))
    damaged: list[Path] = field(default_factory=list)
    no_image: list[Path] = field(default_factory=list)


def find_series(folder: Path) -> FoundSeries:
    """Find the DICOM series in a folder and in the folders below, or in one file.

    Files are known by their content, whatever their names, with the preamble or without. Left out and
    counted: hidden files, files that hold no image (reports, presentation states, a DICOMDIR), files of other
    kinds. Files that may be slices and cannot be read put the series beside them in doubt.

    Raises:
        InputRejected: DICOM files are there, and pydicom is not.
    """
    files = find_files(folder)
    read = _read(files.dicom)
    series = [_series(uid, images) for uid, images in read.images.items()]
    broken = _Doubts(series)
    broken.add("dicom_damaged", [*files.doubtful, *read.damaged])
    broken.add("dicom_outside", files.outside)
    broken.add_closed(files.closed)
    series = [
        replace(one, doubt=doubt.format(name=one.name)) if (doubt := broken.of.get(one.uid)) else one
        for one in series
    ]
    series.sort(key=lambda one: (one.study, one.number or 0, one.name))
    return FoundSeries(series, broken.lines, _notes(files, read))


def series_of_files(files: Sequence[Path]) -> DicomSeries:
    """The one series that these files are.

    Raises:
        InputRejected: one cannot be read, or they are of several series.
    """
    read = _read(files)
    if read.damaged or read.no_image:
        raise InputRejected(say("dicom_damaged", files=named([*read.damaged, *read.no_image])))
    if len(read.images) != 1:
        raise InputRejected(say("dicom_several", count=len(read.images)))
    return _series(*next(iter(read.images.items())))


def only_series(folder: Path) -> DicomSeries:
    """The one DICOM series in a folder and below.

    Raises:
        InputRejected: there is none, or several, or a file that cannot be taken.
    """
    series, problems, notes = find_series(folder)
    for line in notes:
        log.warning(line)
    if problems:
        raise InputRejected(problems[0])
    if len(series) != 1:
        raise InputRejected(say("dicom_several", count=len(series)))
    return series[0]


def cleaned(header: Header, attribute: str) -> str:
    """A text of a header as part of a file name: letters, digits, ``+`` and ``_``, without identifiers.

    Words that are part of a patient's or physician's name or of a number of theirs are taken out, and so are
    numbers of five digits or more.
    """
    parts = {
        spelt
        for name in IDENTIFIERS
        for part in re.split(r"[\W_]+", text(header, name))
        for spelt in _spellings(part)
        if len(spelt) > 1
    }
    words = [
        word
        for word in re.split(r"[\W_]+", _ascii(text(header, attribute).replace("*", "star"), keep="+"))
        if word and not _identifies(word, parts)
    ]
    return "_".join(words).replace(PLUS, "+")[:LONGEST_TEXT].strip("_")


PLUS = "plus0"  # stands for "+" while words are split


def _ascii(value: str, keep: str = "") -> str:
    decomposed = unicodedata.normalize("NFKD", value.replace("ß", "ss"))
    plain = decomposed.encode("ascii", "ignore").decode()
    return plain.replace("+", PLUS) if keep else plain


def _spellings(part: str) -> set[str]:
    """A name as it is written without accents: ``Müller`` is ``muller`` and ``mueller``."""
    low = part.casefold()
    long = low.translate({ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue", ord("ø"): "oe", ord("å"): "aa"})
    return {_ascii(low), _ascii(long)}


def _identifies(word: str, parts: Iterable[str]) -> bool:
    low = word.casefold()
    return bool(re.search(rf"\d{{{LONG_NUMBER},}}", low)) or any(
        part == low or (len(part) >= LONG_PART and part in low) for part in parts
    )


def _read(files: Iterable[Path]) -> _Sorted:
    read = _Sorted()
    for file in files:
        if not has_pydicom:
            raise InputRejected(say("no_pydicom"))
        try:
            headers = image_headers(file)
        except Exception:  # pydicom's complaints on damaged files are of many kinds, and quote the header
            read.damaged.append(file)
            continue
        if not headers:
            read.no_image.append(file)
        for header in headers:
            read.images[text(header, "SeriesInstanceUID")].append((file, header))
    return read


def _series(uid: str, images: Sequence[tuple[Path, Header]]) -> DicomSeries:
    return DicomSeries(uid, tuple(file for file, _ in images), tuple(header for _, header in images))


class _Doubts:
    """Which series may lack slices because of files that cannot be read."""

    def __init__(self, series: Sequence[DicomSeries]) -> None:
        self.of: dict[str, str] = {}  # UID -> line
        self.lines: list[str] = []
        self.folders: dict[Path, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.spread: dict[str, set[Path]] = defaultdict(set)
        for one in series:
            for file in set(one.files):
                self.folders[file.parent][one.uid].add(name_pattern(file))
                self.spread[one.uid].add(file.parent)

    def add(self, key: str, files: Sequence[Path]) -> None:
        """Doubt the series that lie beside these files; of several those whose files are named alike."""
        alone: list[Path] = []
        doubted: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            owners = self.folders.get(file.parent, {})
            alike = [uid for uid, patterns in owners.items() if name_pattern(file) in patterns]
            for uid in alike or owners:
                doubted[uid].append(file)
            if not owners:
                alone.append(file)
        self._tell(key, doubted, alone)

    def add_closed(self, closed: Sequence[Path]) -> None:
        """The same for folders that cannot be listed: series right above them, or spread over their like."""
        alone: list[Path] = []
        doubted: dict[str, list[Path]] = defaultdict(list)
        for folder in closed:
            owners = [
                uid
                for uid, places in self.spread.items()
                if folder.parent in places
                or (len(places) > 1 and any(place.parent == folder.parent for place in places))
            ]
            for uid in owners:
                doubted[uid].append(folder)
            if not owners:
                alone.append(folder)
        self._tell("dicom_closed", doubted, alone)

    def _tell(self, key: str, doubted: dict[str, list[Path]], alone: Sequence[Path]) -> None:
        for uid, paths in doubted.items():
            self.of.setdefault(uid, "{name}: " + say(key, files=named(paths)))
        if alone:
            self.lines.append(say(key, files=named(alone)))


def _notes(files: FoundFiles, read: _Sorted) -> list[str]:
    notes = {"dicom_no_image": read.no_image, "dicom_hidden": files.hidden}
    lines = [say(key, files=named(paths)) for key, paths in notes.items() if paths]
    if files.dicom and files.others:
        lines.append(say("dicom_others", files=named(files.others)))
    return lines
