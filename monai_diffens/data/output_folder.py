"""The folder that results go to: room in it, leftovers of killed runs, and results that are there already."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_diffens.files import PART
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_file import open_nifti, sha256_of_open

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


VOXELS = "VoxelSHA256"  # in a record: of the result's voxels
LARGEST_RECORD = 1 << 20  # bytes


class Verdict(Enum):
    """What a result that may be there is worth."""

    ABSENT = auto()
    SAME = auto()
    DIFFERS = auto()  # of other inputs, options or weights
    DAMAGED = auto()
    FOREIGN = auto()  # no result of this program, or of another user


class Earlier(NamedTuple):
    """A verdict, and what differs, as "num_steps 1, now 50"."""

    verdict: Verdict
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What decides a result beside its inputs.

    Attributes:
        parameters: options of the run, as :class:`~monai_diffens.transforms.describe.DescribeResultd` notes
            them.
        weights_file: ``<weights_file>.sha256`` beside it holds the hash of the weights.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights_file: str | PathLike[str] | None = None

    def weights_sha256(self) -> str | None:
        """Hash of the weights; None where it is not noted."""
        try:
            return Path(f"{self.weights_file}.sha256").read_text(encoding="utf-8").split()[0]
        except (OSError, ValueError, IndexError):
            return None


def earlier_result(
    result: Path, maps: Sequence[Path], inputs: Mapping[str, str], recipe: Recipe | None = None
) -> Earlier:
    """Look at a result of an earlier run.

    Args:
        result: where it would lie; its JSON file lies beside it.
        maps: that belong to it.
        inputs: name -> SHA-256 of what it would be made of now.
        recipe: what it would be made with now; not compared when None.
    """
    if not result.is_file() or not all(path.is_file() for path in maps):
        return Earlier(Verdict.ABSENT)
    if not os.access(result, os.R_OK):  # another user's, who alone may read it
        return Earlier(Verdict.FOREIGN)
    record = record_of(result)
    voxels = _voxels_sha256(result)
    if voxels is None or any(_voxels_sha256(path) is None for path in maps):
        return Earlier(Verdict.DAMAGED)
    if record is None:
        return Earlier(Verdict.DAMAGED if is_ours(result) else Verdict.FOREIGN)
    if record.get(VOXELS, voxels) != voxels:  # a run was ended between the record and its result
        return Earlier(Verdict.DAMAGED)
    found = record.get("InputSHA256")
    differences = [] if found == dict(inputs) else ["the input"]
    if recipe is not None:
        before, now = (
            record.get("Sampling") or {},
            json.loads(json.dumps(dict(recipe.parameters), default=str)),
        )
        differences += [
            f"{name} {json.dumps(before[name])}, now {json.dumps(now[name])}"
            for name in now
            if name in before and before[name] != now[name]
        ]
        if record.get("WeightsSHA256") != recipe.weights_sha256():
            differences.append("the weights")
    return Earlier(Verdict.DIFFERS if differences else Verdict.SAME, tuple(differences))


def record_of(result: Path) -> dict[str, Any] | None:
    """A result's JSON file; None where it is missing, damaged or not of this program."""
    path = result.with_name(result.name.removesuffix(".nii.gz") + ".json")
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_RECORD:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and record.get("Synthetic") is True
    return record if ours and isinstance(record.get("Sampling", {}), dict) else None


def sha256_of_scan(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, of their hashes in order, so that names and order do not count.

    Raises:
        OSError: a file cannot be read.
    """
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(sha256_of_open(file))
    return digests[0] if len(digests) == 1 else sha256("".join(sorted(digests)).encode()).hexdigest()


def sha256_of_thickness(millimeters: float) -> str:
    """SHA-256 of a slice thickness: it decides a result, and a scan's JSON sidecar tells it."""
    return sha256(f"{millimeters:g}".encode()).hexdigest()


def sha256_of_voxels(volume: NDArray[np.float32]) -> str:
    """SHA-256 of a result's voxels (X, Y, Z), as its file holds them."""
    return sha256(np.asarray(volume, "<f4").tobytes("F")).hexdigest()


def _voxels_sha256(path: Path) -> str | None:
    """SHA-256 of the voxels of a whole result; None for a damaged one."""
    digest = sha256()
    try:
        with open_nifti(path) as file:
            return None if file.voxel_range(0, digest).bad else digest.hexdigest()
    except InputRejected:
        return None


def is_ours(path: Path) -> bool:
    """Whether a file is a volume that this program wrote, by its header."""
    try:
        with open_nifti(path) as file:
            return file.is_result
    except InputRejected:
        return False
