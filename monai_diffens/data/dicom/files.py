"""Which files of a folder are DICOM, and which may have been: nothing that is left out goes uncounted.

File and folder names may hold a patient's name: messages show them by :func:`masked`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FoundFiles", "find_files", "holds_dicom", "is_dicom", "masked", "name_pattern", "named"]

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
