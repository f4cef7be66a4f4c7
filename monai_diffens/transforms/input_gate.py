"""The input gate: is this file a brain MR volume that can be worked on, and where does it lie?

:func:`check_volume` looks at one NIfTI file and either describes it (shape in voxels, affine and spacing in
millimetres, RAS+) or raises :class:`InputRejected` with one line. Voxels are streamed in blocks, so the cost
is one decompression and a few megabytes, whatever the size of the volume. The wording is in ``messages.py``.

:class:`AffineInMillimetersd` applies the same reading of the geometry to a loaded image.

A 4D file with one volume needs no transform: ``LoadImaged(ensure_channel_first=True)`` returns
(1, X, Y, Z) for it; with ``squeeze_non_spatial_dims=True`` also for (X, Y, Z, 1, 1).
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.imageglobals import logger as nibabel_logger

from monai_diffens.transforms.messages import InputRejected, file_kind, say
from monai_diffens.transforms.nifti_geometry import Geometry, Source, read_geometry, slice_axis
from monai_diffens.transforms.plausibility import CT_CUT, check_extent, check_range

__all__ = ["NIFTI_ENDINGS", "AffineInMillimetersd", "CheckedVolume", "InputRejected", "check_volume"]

NIFTI_ENDINGS = (".nii.gz", ".nii")
BLOCK = 1 << 20  # voxels read at a time
TAIL_BLOCKS = 64  # blocks of bytes after the last voxel that are read to reach the checksum

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CheckedVolume:
    """What the gate found in an accepted file.

    Attributes:
        path: the file; the name alone of a DICOM series.
        shape: (X, Y, Z) in voxels, as stored; trailing axes of length 1 are left out.
        affine: (4, 4) float64, voxel index to RAS+ millimetres, read-only.
        zooms: spacing along X, Y, Z in millimetres, from the affine.
        slice_axis: 0, 1 or 2, the axis along which slices are thickest; None where no single axis is.
        affine_from: which part of the header the affine came from.
        warnings: one line each, without the file's name.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    zooms: tuple[float, float, float]
    slice_axis: int | None
    affine_from: Source | Literal["dicom"]
    warnings: tuple[str, ...] = ()


def check_volume(
    path: str | PathLike[str],
    *,
    force: bool = False,
    fill_nan: bool = False,
    volume: int | None = None,
    mask: bool = False,
) -> CheckedVolume:
    """Check one NIfTI file, header and voxels.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        force: accept values that do not look like MR (nothing else is overridden).
        fill_nan: accept NaN and infinite voxels, which are to be taken as 0.
        volume: of several along a fourth axis, counted from 0.
        mask: it is a mask, whose values may be constant.

    Returns:
        The accepted volume.

    Raises:
        InputRejected: the file cannot be worked on.
    """
    path = Path(path)
    image, shape, geometry = _open(path, volume)
    zooms = nib.affines.voxel_sizes(geometry.affine)
    check_extent(path.name, zooms, shape)
    count = math.prod(image.shape[3:])
    notes = [say("picked", volume=volume, count=count, shape=image.shape)] if count > 1 else []
    notes += [say("squeezed", shape=image.shape)] if count == 1 and image.ndim > 3 else []
    low, high, below, bad = _read_voxels(path, image, shape, (volume or 0) if count > 1 else 0)
    if bad and not fill_nan:
        raise _reject("non_finite", path, count=bad)
    notes += geometry.warnings + ([say("filled", count=bad)] if bad else [])
    notes += [] if mask else check_range(path.name, low, high, below / math.prod(shape), force=force)
    geometry.affine.flags.writeable = False
    x, y, z = (float(zoom) for zoom in zooms)
    return CheckedVolume(
        path, shape, geometry.affine, (x, y, z), slice_axis(zooms), geometry.source, tuple(notes)
    )


class AffineInMillimetersd(MapTransform):
    """Give loaded NIfTI images the affine that the gate reports; put it right after ``LoadImaged``.

    MONAI's reader takes micrometres for millimetres, and replaces an sform by the qform where only the qform
    agrees with the header's spacing. This reads the header again and sets ``affine``, ``original_affine``
    and, in the metadata, ``sform_code`` and ``qform_code`` to those of a result in this space
    (:class:`~monai_diffens.transforms.nifti_geometry.Geometry`). Voxels, shape (C, X, Y, Z) and type are
    untouched; items that were not loaded from a NIfTI file pass unchanged.
    """

    def __init__(self, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        """Take the keys of the loaded ``MetaTensor`` items."""
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return a copy of ``data`` with corrected affines; raises InputRejected on an unusable one."""
        out = dict(data)
        for key in self.key_iterator(out):
            path = Path(str(getattr(out[key], "meta", {}).get("filename_or_obj", "")))
            if not _ending(path) or not path.is_file():
                continue
            geometry = _open(path, 0)[-1]
            volume: MetaTensor = out[key].clone()
            volume.affine = geometry.affine
            volume.meta["original_affine"] = geometry.affine.copy()
            volume.meta["sform_code"], volume.meta["qform_code"] = geometry.sform_code, geometry.qform_code
            out[key] = volume
        return out


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
        raise _reject("wrong_type", path, kind=file_kind(head))
    ending = ".nii.gz" if zipped else ".nii"
    if _ending(path) != ending:
        raise _reject("wrong_name", path, ending=ending)
    return head


def _open(path: Path, volume: int | None) -> tuple[nib.Nifti1Image, tuple[int, int, int], Geometry]:
    """Open a file without its voxels; read its shape without trailing axes of length 1, and where it lies."""
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


def _shape_3d(path: Path, shape: tuple[int, ...], volume: int | None) -> tuple[int, int, int]:
    spatial, count = shape[:3], math.prod(shape[3:])
    if len(spatial) < 3 or min(spatial) < 2:
        raise _reject("not_3d", path, dims=sum(n > 1 for n in spatial), shape=shape)
    if count != 1 and (volume is None or max(shape[3:]) != count):
        raise _reject("several_volumes", path, count=count, shape=shape)
    if volume is not None and not 0 <= volume < count:
        raise _reject("no_such_volume", path, volume=volume, shape=shape, last=count - 1)
    x, y, z = (int(n) for n in spatial)
    return x, y, z


def _read_voxels(
    path: Path, image: nib.Nifti1Image, shape: tuple[int, int, int], volume: int
) -> tuple[float, float, int, int]:
    """Stream the voxels of one volume once; raise on damage.

    Returns:
        Minimum, maximum, number below ``CT_CUT`` and number of NaN, infinite and too large values (which the
        others leave out).
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
    return low, high, below, bad
