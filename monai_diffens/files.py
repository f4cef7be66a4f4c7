"""Files: their hash, their names, and writing them whole or not at all.

Nothing but Python's own library, so that a bundle's files can be checked before anything of it is imported.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from io import BufferedWriter
from pathlib import Path
from typing import Any, BinaryIO

NIFTI_ENDINGS = (".nii.gz", ".nii")
PART = ".part-"  # how the name of what is being written begins
OWNER_FILE, OWNER_FOLDER = 0o600, 0o700  # patients' data is read by whoever wrote it, and nobody else
LONGEST_NAME = 180  # bytes; leaves room below the usual 255 for suffix, ending and the temporary name


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return digest_of(file)


def digest_of(opened: BinaryIO) -> str:
    """SHA-256 of what is left to read of an open file, hexadecimal."""
    digest = sha256()
    while block := opened.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole_or_absent(path: Path, shared: bool = False) -> Iterator[BufferedWriter]:
    """Give a file open under a temporary name beside ``path``; rename it on success, remove it on failure.

    Args:
        path: of the file; its folder is made where there is none.
        shared: for what holds nothing of a patient, the system's own permissions; else its owner alone can
            read file and folder.

    Raises:
        OSError: it could not be written; what was under ``path`` before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o777 if shared else OWNER_FOLDER)
    ending = next((e for e in NIFTI_ENDINGS if path.name.endswith(e)), path.suffix)  # readers go by it
    part = path.with_name(f"{PART}{os.getpid()}-{secrets.token_hex(4)}{ending}")
    try:
        with open(part, "xb", opener=None if shared else _for_owner) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    with suppress(OSError):  # not every system can flush a folder; the file is whole all the same
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def folder_whole_or_absent(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to write files into; rename it on success, else remove it.

    A folder that is there goes aside first, since a folder cannot replace another. Its owner alone can read
    it and the files in it.

    Raises:
        OSError: it could not be written; what was under ``folder`` before is still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=OWNER_FOLDER)
    part = folder.with_name(f"{PART}{os.getpid()}-{secrets.token_hex(4)}")
    aside = part.with_name(f"{part.name}-old")
    part.mkdir(mode=OWNER_FOLDER)
    try:
        yield part
        for path in (*part.iterdir(), part):  # after all are written: one by one takes minutes
            if path != part:
                path.chmod(OWNER_FILE)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if folder.exists():
            os.replace(folder, aside)
        try:
            os.replace(part, folder)
        except OSError:
            if aside.exists():
                os.replace(aside, folder)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_FILE)


def case_name(path: str | os.PathLike[str]) -> str:
    """Return the case name of an input file: its name without ending, safe as part of a file name."""
    stem = Path(path).name
    while ending := next((e for e in NIFTI_ENDINGS if stem.lower().endswith(e)), ""):
        stem = stem[: -len(ending)]
    name = re.sub(r"[^\w.+-]", "_", stem).lstrip(".-") or "case"
    if len(name.encode()) > LONGEST_NAME:
        name = (
            name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
            + "-"
            + sha256(stem.encode(errors="surrogateescape")).hexdigest()[:8]
        )
    return name


def case_of(meta: Mapping[str, Any]) -> str:
    """Name of a case: ``case`` where it is given, else its file's name without folder and ending.

    A folder in the name would make the same scan restore differently where it is kept elsewhere.
    """
    source = meta.get("case") or meta.get("filename_or_obj") or ""
    if isinstance(source, (list, tuple)):  # a batch of one
        source = source[0]
    return case_name(str(source))


def installed(distribution: str) -> bool:
    """Whether a distribution is installed; it is not imported, which may take seconds."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def package_version() -> str:
    """Return the installed version, "unknown" where the package runs uninstalled and does not tell."""
    import monai_diffens

    try:
        return str(getattr(monai_diffens, "__version__", None) or version("monai-diffens"))
    except PackageNotFoundError:
        return "unknown"
