"""A NIfTI file before anything is believed of it: is it one, is it whole, and what is in its voxels?

Whatever a damaged file makes a reader raise becomes one :class:`InputRejected` with one line. Voxels are
streamed in blocks, so the cost is one decompression and a few megabytes, whatever the size of the volume.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import nibabel as nib
import numpy as np
from nibabel.imageglobals import logger as nibabel_logger

from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_geometry import Geometry, read_geometry
from monai_diffens.transforms.plausibility import CT_CUT

__all__ = ["NIFTI_ENDINGS", "VoxelRange", "has_nifti_name", "open_nifti", "voxel_range"]

NIFTI_ENDINGS = (".nii.gz", ".nii")
BLOCK = 1 << 20  # voxels read at a time
TAIL_BLOCKS = 64  # blocks of bytes after the last voxel that are read to reach the checksum
SIGNATURES = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"CDF", "a MINC or NetCDF file"),
    (0, b"NRRD", "an NRRD file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x1f\x8b", "a gzip archive"),
)

T = TypeVar("T")


class VoxelRange(NamedTuple):
    """What was seen of a volume's voxels, in the header's scaled units.

    Attributes:
        low: least finite value.
        high: greatest finite value.
        below: number of voxels below :data:`~monai_diffens.transforms.plausibility.CT_CUT`.
        bad: number of NaN, infinite and too large values, which the others leave out.
    """

    low: float
    high: float
    below: int
    bad: int


def has_nifti_name(path: Path) -> bool:
    """Whether a file is named as a NIfTI volume."""
    return bool(_ending(path))


def open_nifti(path: Path, volume: int | None) -> tuple[nib.Nifti1Image, tuple[int, int, int], Geometry]:
    """Open a file without its voxels.

    Args:
        path: of a NIfTI volume.
        volume: which of several along a fourth axis, counted from 0; a 3D file has no need of it.

    Returns:
        The image, its shape (X, Y, Z) in voxels without further axes, and where it lies.

    Raises:
        InputRejected: it is no NIfTI volume, damaged, not 3D, or its geometry cannot be used.
    """
    head = _header_bytes(path)
    was_disabled, nibabel_logger.disabled = nibabel_logger.disabled, True
    try:
        image = nib.load(path)
    except Exception as error:  # nibabel's complaints on a bad header are of many kinds: all mean damage
        why = (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), path.name)
        raise _reject("header", path, why=why) from error
    finally:
        nibabel_logger.disabled = was_disabled
    if not isinstance(image, nib.Nifti1Image):
        raise _reject("wrong_type", path, kind="a CIFTI file")
    shape = _shape_3d(path, image.shape, volume)
    try:
        return image, shape, read_geometry(image, head)
    except ValueError as error:
        raise _reject("affine", path, why=error) from error


def voxel_range(path: Path, image: nib.Nifti1Image, shape: tuple[int, int, int], volume: int) -> VoxelRange:
    """Stream the voxels of one volume once, to the file's end.

    Args:
        path: of the file.
        image: as opened by :func:`open_nifti`.
        shape: (X, Y, Z) of the volume.
        volume: which of several, counted from 0.

    Raises:
        InputRejected: the file is damaged, or its voxels are not real numbers.
    """
    proxy: Any = image.dataobj
    dtype, slope, inter = np.dtype(proxy.dtype), float(proxy.slope), float(proxy.inter)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise _reject("voxel_type", path, dtype=dtype)
    total = left = math.prod(shape)
    largest = float(np.finfo(np.float32).max)
    low, high, below, bad = math.inf, -math.inf, 0, 0
    opener: Callable[[Path], Any] = gzip.open if _ending(path) == ".nii.gz" else lambda p: p.open("rb")
    with opener(path) as file, np.errstate(all="ignore"):
        _reading(path, file.seek, int(proxy.offset) + volume * total * dtype.itemsize)
        while left:
            count = min(BLOCK, left)
            raw = _reading(path, file.read, count * dtype.itemsize)
            if len(raw) < count * dtype.itemsize:
                missing = left - len(raw) // dtype.itemsize
                raise _reject("corrupt", path, why=f"{missing} of {total} voxels are missing")
            left -= count
            block = np.frombuffer(raw, dtype)
            least, most = sorted(float(v) * slope + inter for v in (block.min(), block.max()))
            if not -largest <= least <= most <= largest:
                values = block * slope + inter
                block = block[np.abs(values) <= largest]
                bad += count - block.size
                if not block.size:
                    continue
                least, most = sorted(float(v) * slope + inter for v in (block.min(), block.max()))
            low, high = min(low, least), max(high, most)
            if least < CT_CUT:
                below += int((block * slope + inter < CT_CUT).sum())
        for _ in range(TAIL_BLOCKS):  # the end of a gzip file holds its checksum
            if not _reading(path, file.read, BLOCK):
                break
    return VoxelRange(low, high, below, bad)


def _reject(key: str, path: Path, **values: object) -> InputRejected:
    return InputRejected(say(key, name=path.name, **values))


def _ending(path: Path) -> str:
    return next((ending for ending in NIFTI_ENDINGS if path.name.lower().endswith(ending)), "")


def _reading(path: Path, call: Callable[[int], T], count: int) -> T:
    """Call a file's read or seek; whatever a damaged file makes it raise becomes one rejection."""
    try:
        return call(count)
    except (EOFError, zlib.error, OSError, OverflowError, ValueError) as error:
        raise _reject("corrupt", path, why=str(error).rstrip(".").lower() or "damaged") from error


def _header_bytes(path: Path) -> bytes:
    """Return the first 540 bytes, decompressed, of what certainly is a NIfTI file under the right name."""
    if not path.is_file():
        raise _reject("missing", path)
    try:
        with path.open("rb") as file:
            raw = file.read(540)
    except OSError as error:
        raise _reject("unreadable", path, why=error.strerror) from error
    if not raw:
        raise _reject("empty", path)
    zipped, head = raw[:2] == b"\x1f\x8b", raw
    if zipped and _ending(path):
        with gzip.open(path) as unzipped:
            head = _reading(path, unzipped.read, 540)
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if len(head) < 348 and sizes & {348, 540}:  # a header starts with its own size
        raise _reject("corrupt", path, why="the header is incomplete")
    if head[344:347] not in (b"n+1", b"ni1") and head[4:7] != b"n+2":
        raise _reject("wrong_type", path, kind=_file_kind(head))
    ending = ".nii.gz" if zipped else ".nii"
    if _ending(path) != ending:
        raise _reject("wrong_name", path, ending=ending)
    return head


def _shape_3d(path: Path, shape: tuple[int, ...], volume: int | None) -> tuple[int, int, int]:
    spatial, count = shape[:3], math.prod(shape[3:])
    if len(spatial) < 3 or min(spatial) < 2:
        raise _reject("not_3d", path, dims=sum(n > 1 for n in spatial), shape=shape)
    if count != 1 and (volume is None or max(shape[3:]) != count):
        raise _reject("several_volumes", path, count=count, shape=shape)
    if volume is not None and len(shape) > 3 and not 0 <= volume < count:
        raise _reject("no_such_volume", path, volume=volume, shape=shape, last=count - 1)
    x, y, z = (int(n) for n in spatial)
    return x, y, z


def _file_kind(head: bytes) -> str:
    """Say what a file is by its first bytes (540 are enough), for a user who took it for a volume."""
    for offset, magic, kind in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return kind
    text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "a text file" if text else "a file of unknown type"
