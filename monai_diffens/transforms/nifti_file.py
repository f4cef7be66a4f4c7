"""A NIfTI file before anything is believed of it: is it one, is it whole, and what is in its voxels?

A file is opened once, and never by its name again: what was checked and hashed is what is read. nibabel gets
the header's bytes and the open file, so that no rule of its own on names picks another file.

Whatever a damaged file makes a reader raise becomes one :class:`InputRejected` with one line. Voxels are
streamed in blocks, so the cost is one decompression and a few megabytes, whatever the size of the volume.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from nibabel.arrayproxy import ArrayProxy
from nibabel.imageglobals import logger as nibabel_logger
from numpy.typing import NDArray

from monai_diffens.files import NIFTI_ENDINGS
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_header import Geometry, check_header, mended_fields, read_geometry

BLOCK = 1 << 20  # voxels read at a time
TAIL_BLOCKS = 64  # blocks of bytes after the last voxel that are read to reach the checksum
CT_CUT = -100.0  # HU: what lies below it is counted, to tell a CT
PADDING = 512  # bytes after the last voxel that some programs write
RESULT_MARK = b"synthetic - Diff-Ensembler"  # begins the description in every result's header
CIFTI_INTENTS = range(3000, 3100)
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
    (0, (348).to_bytes(4, "little"), "an ANALYZE 7.5 header"),
    (0, (348).to_bytes(4, "big"), "an ANALYZE 7.5 header"),
)

T = TypeVar("T")


class VoxelRange(NamedTuple):
    """What was seen of a volume's voxels, in the header's scaled units.

    Attributes:
        low: least finite value.
        high: greatest finite value.
        below: number of voxels below :data:`~monai_diffens.transforms.nifti_file.CT_CUT`.
        bad: number of NaN, infinite and too large values, which the others leave out.
        behind: bytes of the file behind the last voxel of its header, as far as they were counted.
    """

    low: float
    high: float
    below: int
    bad: int
    behind: int


class OpenNifti:
    """A NIfTI file that is open and whose header is sound.

    Attributes:
        path: of the file.
        shape: (X, Y, Z) in voxels.
        stored_shape: all axes of the header.
        geometry: where the volume lies.
        notes: what was mended in the header, one line each.
        sha256: of the file's bytes.
        is_result: whether this program wrote it.
    """

    def __init__(self, path: Path, file: BinaryIO, volume: int | None) -> None:
        """Read the header of an open file; see :func:`open_nifti`."""
        self.path, self._file = path, file
        head = _header_bytes(path, file)
        self._bytes: Any = gzip.GzipFile(fileobj=file, mode="rb") if _zipped(head.raw) else file
        kind = nib.Nifti2Header if head.content[4:7] == b"n+2" else nib.Nifti1Header
        block = head.content[: kind.sizeof_hdr]
        was_disabled, nibabel_logger.disabled = nibabel_logger.disabled, True
        try:
            # nibabel would tell the order of bytes from the number of axes, which may be damaged
            order = ">" if int.from_bytes(block[:4], "big") == kind.sizeof_hdr else "<"
            raw = kind(block, order, check=False)
            check_header(raw)
            header = kind(block, order, check=True)
            self.stored_shape = tuple(int(n) for n in header.get_data_shape())
            dtype, offset = np.dtype(header.get_data_dtype()), int(header.get_data_offset())
            slope, inter = header.get_slope_inter()
        except Exception as error:  # nibabel's complaints on a bad header are of many kinds: all mean damage
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise _reject("header", path, why=why) from error
        finally:
            nibabel_logger.disabled = was_disabled
        if int(header["intent_code"]) in CIFTI_INTENTS:
            raise _reject("wrong_type", path, kind="a CIFTI file")
        if dtype.kind not in "uif" or dtype.itemsize > 8:
            raise _reject("voxel_type", path, dtype=dtype)
        slope, inter = (1.0 if slope is None else float(slope)), (0.0 if inter is None else float(inter))
        self._spec = (self.stored_shape, dtype, offset, slope, inter)
        self.shape = _shape_3d(path, self.stored_shape, volume)
        try:
            self.geometry: Geometry = read_geometry(header, raw)
        except ValueError as error:
            raise _reject("affine", path, why=error) from error
        self.notes = mended_fields(raw, header, self.geometry.source)
        self.is_result = bytes(header["descrip"].item()).startswith(RESULT_MARK)
        self.sha256 = sha256_of_open(file)

    def voxels(self) -> NDArray[Any]:
        """All voxels (X, Y, Z) or (X, Y, Z, N), scaled by the header's slope and intercept.

        Raises:
            InputRejected: the file is damaged.
        """
        proxy = ArrayProxy(self._bytes, self._spec, mmap=False)
        array = _reading(self.path, lambda _: np.asanyarray(proxy), 0)
        count = math.prod(self.stored_shape[3:])
        return array.reshape(self.shape if count == 1 else (*self.shape, count), order="F")

    def voxel_range(self, volume: int, digest: Any = None) -> VoxelRange:
        """Stream the voxels of one volume once, to the file's end.

        Args:
            volume: which of several, counted from 0.
            digest: of hashlib; gets the voxels' bytes as they are stored.

        Raises:
            InputRejected: the file is damaged.
        """
        path, (_, dtype, offset, slope, inter) = self.path, self._spec
        total = left = math.prod(self.shape)
        largest = float(np.finfo(np.float32).max)
        low, high, below, bad = math.inf, -math.inf, 0, 0
        file = self._bytes
        with np.errstate(all="ignore"):
            _reading(path, file.seek, offset + volume * total * dtype.itemsize)
            while left:
                count = min(BLOCK, left)
                raw = _reading(path, file.read, count * dtype.itemsize)
                if len(raw) < count * dtype.itemsize:
                    missing = left - len(raw) // dtype.itemsize
                    raise _reject("corrupt", path, why=f"{missing} of {total} voxels are missing")
                left -= count
                if digest is not None:
                    digest.update(raw)
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
            behind = 0
            for _ in range(TAIL_BLOCKS):  # the end of a gzip file holds its checksum
                if not (rest := _reading(path, file.read, BLOCK)):
                    break
                behind += len(rest)
        behind -= (math.prod(self.stored_shape[3:]) - 1 - volume) * total * dtype.itemsize
        return VoxelRange(low, high, below, bad, behind if behind > PADDING else 0)


@contextmanager
def open_nifti(path: Path, volume: int | None = None) -> Iterator[OpenNifti]:
    """Open a file without its voxels, for as long as the context lasts.

    Args:
        path: of a NIfTI volume.
        volume: which of several along a fourth axis, counted from 0; a 3D file has no need of it.

    Raises:
        InputRejected: it is no NIfTI volume, damaged, not 3D, its geometry cannot be used, or it changed
            while it was open.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that the system cannot look up
        raise _reject("missing", path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise _reject("unreadable", path, why=error.strerror) from error
    with file:
        before = os.fstat(file.fileno())
        yield OpenNifti(path, file, volume)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _reject("changed", path)


def has_nifti_name(path: Path) -> bool:
    """Whether a file is named as a NIfTI volume."""
    return bool(_ending(path))


def sha256_of_open(file: BinaryIO) -> str:
    """SHA-256 of an open file's bytes; it is then at its beginning."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _reject(key: str, path: Path, **values: object) -> InputRejected:
    return InputRejected(say(key, name=path.name, **values))


def _ending(path: Path) -> str:
    return next((ending for ending in NIFTI_ENDINGS if path.name.lower().endswith(ending)), "")


def _zipped(raw: bytes) -> bool:
    return raw[:2] == b"\x1f\x8b"


def _reading(path: Path, call: Callable[[int], T], count: int) -> T:
    """Call a file's read or seek; whatever a damaged file makes it raise becomes one rejection."""
    try:
        return call(count)
    except (EOFError, zlib.error, OSError, OverflowError, ValueError) as error:
        why = (str(error).splitlines() or ["damaged"])[0].rstrip(".").lower()
        raise _reject("corrupt", path, why=why or "damaged") from error


class _Head(NamedTuple):
    """The first bytes of a file, as they are and decompressed."""

    raw: bytes
    content: bytes


def _header_bytes(path: Path, file: BinaryIO) -> _Head:
    """Return the first 540 bytes of what certainly is a NIfTI file under the right name."""
    raw = _reading(path, file.read, 540)
    if not raw:
        raise _reject("empty", path)
    head = raw
    if _zipped(raw) and _ending(path):
        file.seek(0)
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            head = _reading(path, unzipped.read, 540)
    file.seek(0)
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if len(head) < 348 and sizes & {348, 540}:  # a header starts with its own size
        raise _reject("corrupt", path, why="the header is incomplete")
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise _reject("pair", path)
    if head[344:347] != b"n+1" and head[4:7] != b"n+2":
        raise _reject("wrong_type", path, kind=_file_kind(head))
    if head[4:7] == b"n+2" and len(head) < 540:
        raise _reject("corrupt", path, why="the header is incomplete")
    ending = ".nii.gz" if _zipped(raw) else ".nii"
    if _ending(path) != ending:
        raise _reject("wrong_name", path, ending=ending)
    return _Head(raw, head)


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


CHECKED = "checked"  # in a case's item: key -> SHA-256 of the scan that the gate accepted
SHA256 = "sha256"  # in a scan's meta: of the bytes that it was read from


class NiftiFileReader(ImageReader):
    """Reads one NIfTI file by way of :func:`~monai_diffens.transforms.nifti_file.open_nifti`.

    MONAI's own takes a file by nibabel's rules on names, takes micrometres for millimetres, and replaces an
    sform by the qform where only the qform agrees with the header's spacing. No text of a header, which may
    name a patient, goes into the metadata.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the file is named as a NIfTI volume."""
        return all(has_nifti_name(Path(str(name))) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **_: Any) -> tuple[OpenNifti, NDArray[Any]]:
        """Read header and voxels; raises InputRejected as ``open_nifti``."""
        (name,) = ensure_tuple(data)
        with open_nifti(Path(str(name)), 0) as file:
            return file, file.voxels()

    def get_data(self, img: tuple[OpenNifti, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Voxels (X, Y, Z) or (X, Y, Z, N), and the metadata that MONAI's transforms ask for."""
        file, voxels = img
        meta = {
            MetaKeys.AFFINE: file.geometry.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: file.geometry.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(file.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if voxels.ndim == 3 else -1,
            "sform_code": file.geometry.sform_code,
            "qform_code": file.geometry.qform_code,
            SHA256: file.sha256,
        }
        return np.ascontiguousarray(voxels), {str(key): value for key, value in meta.items()}
