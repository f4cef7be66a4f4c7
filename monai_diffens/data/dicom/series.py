"""DICOM series in a folder, or in one multi-frame file: nothing that is left out goes uncounted.

Series are told apart by their Series Instance UID, wherever their files lie. A series is named after its
number, its cleaned description and a hash of its UID. File and folder names may hold a patient's name:
messages show them by :func:`masked`.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from monai_diffens.data.dicom.reader import Header, has_pydicom, image_headers, number, text
from monai_diffens.messages import InputRejected, say

PREAMBLE = 128
DICOM_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
OTHER_ENDINGS = (
    ".bmp .bval .bvec .cfg .csv .db .doc .docx .exe .gif .gz .htm .html .inf .ini .jpeg .jpg .js .json .lnk "
    ".lock .log .md .nii .pdf .png .py .tif .tiff .tsv .txt .xml .yaml .yml .zip"
).split()
VALUE_TYPES = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV"
).split()
# Parts of file names that say nothing of a patient.
PLAIN_WORDS = frozenset("dcm dicom dic echo ima image im img i mr mri rec s ser series slice sl".split())
LONGEST_NUMBER = 3  # digits behind the leading zeros: a longer one may be a date or a patient's number
LISTED = 3  # names that a message lists


@dataclass
class FoundFiles:
    """What lies in a folder and in the folders below.

    Attributes:
        dicom: files that begin as DICOM does, with the preamble or without, sorted.
        doubtful: files among them that may be what is left of one: empty, unreadable, without a beginning.
        closed: folders that could not be listed.
        outside: links, to files or folders, that lead out of the folder.
        hidden: hidden DICOM files, which are not looked at.
        others: files that are something else.
    """

    dicom: list[Path] = field(default_factory=list)
    doubtful: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)
    outside: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_files(folder: Path) -> FoundFiles:
    """Sort the files of a folder and of those below; links to folders are not followed.

    A single file may be given too.
    """
    found = FoundFiles()
    if not folder.is_dir():
        (found.dicom if is_dicom(folder) else found.others).append(folder)
        return found
    root = folder.resolve()

    def note(error: OSError) -> None:
        found.closed.append(Path(error.filename or folder))

    for here, folders, names in os.walk(folder, onerror=note):
        links = [Path(here, name) for name in folders if Path(here, name).is_symlink()]
        found.outside += [link for link in links if _leads_out(link, root) and holds_dicom(link)]
        folders[:] = sorted(name for name in folders if name[0] != ".")
        _sort(sorted(Path(here, name) for name in names), root, found)
    found.dicom.sort()
    return found


def is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM does, with the preamble of 128 bytes or without; False if unreadable."""
    try:
        start = _start(file)
    except OSError:
        return False
    return _is_start(start)


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM file lies directly in a folder."""
    try:
        return any(is_dicom(file) for file in folder.iterdir() if file.name[0] != "." and file.is_file())
    except OSError:
        return False


def name_pattern(file: Path) -> str:
    """A file's name with every number as ``#``: files of one export have one pattern."""
    return re.sub(r"\d+", "#", file.name)


def masked(path: Path) -> str:
    """The name of a file or folder as a message may show it: what could name a patient is a ``*``."""

    def plain(match: re.Match[str]) -> str:
        part = match[0]
        short = part.isdigit() and len(part.lstrip("0")) <= LONGEST_NUMBER
        return part if short or part.casefold() in PLAIN_WORDS else "*"

    stem = path.name
    ending = next((end for end in (*DICOM_ENDINGS, *OTHER_ENDINGS) if stem.lower().endswith(end)), "")
    stem, ending = stem[: len(stem) - len(ending)], stem[len(stem) - len(ending) :]
    shown = re.sub(r"\d+|[^\W\d_]+|[^\w.-]+", plain, stem)
    return re.sub(r"(\*[.-]?)+\*", "*", shown)[:40] + ending


def named(paths: Sequence[Path]) -> str:
    """Count and masked names of files, for a message."""
    more = len(paths) - LISTED
    listed = ", ".join(masked(path) for path in paths[:LISTED])
    return f"{len(paths)} ({listed}{f' and {more} more' if more > 0 else ''})"


def _sort(files: list[Path], root: Path, found: FoundFiles) -> None:
    """Sort the files of one folder; what is doubtful depends on what lies beside it."""
    dicom: list[Path] = []
    unknown: list[tuple[Path, bytes | None]] = []
    for file in files:
        hidden = file.name[0] == "."
        try:
            if not (file.is_file() or file.is_symlink()):
                continue  # a pipe or a device
            if not hidden and _leads_out(file, root):
                if is_dicom(file) or not file.exists():
                    found.outside.append(file)
                continue
            start = _start(file)
        except OSError:
            start = None
        if start is not None and _is_start(start):
            (found.hidden if hidden else dicom).append(file)
        elif not hidden:
            unknown.append((file, start))
    patterns = {name_pattern(file) for file in dicom}
    for file, start in unknown:
        if dicom:
            doubtful = _may_have_been(file, start, patterns)
        else:
            doubtful = start is None or file.suffix.lower() in DICOM_ENDINGS
        (found.doubtful if doubtful else found.others).append(file)
    found.dicom += dicom


def _may_have_been(file: Path, start: bytes | None, patterns: set[str]) -> bool:
    """Whether a file beside DICOM files, which does not begin as one, may be one that was damaged."""
    ending = file.suffix.lower()
    if ending in DICOM_ENDINGS or name_pattern(file) in patterns:
        return True
    if ending in OTHER_ENDINGS or (
        start and start.isascii() and start.decode().replace("\n", " ").isprintable()
    ):
        return False  # a note, a list: no slice begins with text
    return start is None or not start.strip(b"\0") or len(start) < PREAMBLE


def _leads_out(path: Path, root: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link in a circle
        return True


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(PREAMBLE + 4)


def _is_start(start: bytes) -> bool:
    """Whether bytes are the preamble and its mark, or the first element of a header without them."""
    if start[PREAMBLE:] == b"DICM":
        return True
    if len(start) < 8:
        return False
    group, element = start[:2], start[2:4]
    if group in (b"\x02\x00", b"\x08\x00") and element[1] <= 1:
        small = int.from_bytes(start[4:8], "little") <= 1 << 10
    elif group in (b"\x00\x02", b"\x00\x08") and element[0] <= 1:
        small = int.from_bytes(start[4:8], "big") <= 1 << 10
    else:
        return False
    return small or start[4:6] in VALUE_TYPES


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
