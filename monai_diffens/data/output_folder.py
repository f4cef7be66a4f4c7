"""The folder that results go to: whole files only, room for them, leftovers of killed runs."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from monai_diffens.files import PART, folder_whole_or_absent, whole_or_absent
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import InputRejected

__all__ = [
    "check_output_folder",
    "check_room",
    "folder_whole_or_absent",
    "remove_leftovers",
    "stamp",
    "whole_or_absent",
]

PROBE_BYTES = 1 << 20  # written where the system cannot reserve space without writing
LEFTOVER_AGE_S = 3600.0  # a file that is being written changes every few seconds


def check_output_folder(folder: Path, size: int = PROBE_BYTES) -> None:
    """Reserve and give back room for a file in the folder, or in the nearest folder above it that exists.

    Args:
        folder: need not exist; it is not made.
        size: of the largest file to come, bytes.

    Raises:
        InputRejected: the folder cannot be written, or has no room for the file (disk, quota, limit).
    """
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(folder), prefix=PART) as file:
            if hasattr(os, "posix_fallocate"):  # counts quotas and limits, and writes nothing
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            else:
                file.write(b"\0" * min(size, PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise InputRejected(say("unwritable", name=folder, why=error.strerror)) from error


def check_room(folder: Path, sizes: Sequence[int]) -> list[str]:
    """Refuse to begin when the largest result has no room; return warnings when all together may have none.

    Args:
        folder: as :func:`check_output_folder`.
        sizes: of the results to come, bytes, at most.

    Raises:
        InputRejected: as :func:`check_output_folder`.
    """
    if not sizes:
        return []
    check_output_folder(folder, max(sizes))
    free, need = shutil.disk_usage(_existing(folder)).free, sum(sizes)
    return [say("little_room", need=need / 1e9, free=free / 1e9)] if free < need else []


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that killed runs left in the folder; return how many.

    Only files that nobody wrote to for an hour: another run may be at work in the same folder.
    """
    removed = 0
    for part in folder.glob(f"{PART}*"):
        with suppress(OSError):  # another run removed it first
            if part.is_symlink() or time.time() - part.stat().st_mtime <= LEFTOVER_AGE_S:
                continue
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()
            removed += 1
    return removed


def stamp(path: Path) -> tuple[int, int] | None:
    """Tell one writing of a file from the next; None where there is no file."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(p for p in (folder, *folder.absolute().parents) if p.exists() or p.is_symlink())
