"""The input gate: is this file a brain MR volume that can be worked on, and where does it lie?

How a file is opened and its voxels are seen is in ``nifti_file.py``, the wording in ``messages.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_file import CT_CUT, open_nifti
from monai_diffens.transforms.nifti_header import Source, slice_axis


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
        sha256: of the file's bytes, as they were checked; "" of a DICOM series.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    zooms: tuple[float, float, float]
    slice_axis: int | None
    affine_from: Source | Literal["dicom"]
    warnings: tuple[str, ...] = ()
    sha256: str = ""


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
    with open_nifti(path, volume) as file:
        shape, geometry, stored = file.shape, file.geometry, file.stored_shape
        zooms = nib.affines.voxel_sizes(geometry.affine)
        check_extent(path.name, zooms, shape)
        count = math.prod(stored[3:])
        notes = [say("picked", volume=volume, count=count, shape=stored)] if count > 1 else []
        notes += [say("squeezed", shape=stored)] if count == 1 and len(stored) > 3 else []
        seen = file.voxel_range((volume or 0) if count > 1 else 0)
        notes += file.notes
    if seen.bad and not fill_nan:
        raise InputRejected(say("non_finite", name=path.name, count=seen.bad))
    notes += [say("behind", count=seen.behind)] if seen.behind else []
    notes += geometry.warnings + ([say("filled", count=seen.bad)] if seen.bad else [])
    if not mask:
        notes += check_range(path.name, seen.low, seen.high, seen.below / math.prod(shape), force=force)
    geometry.affine.flags.writeable = False
    x, y, z = (float(zoom) for zoom in zooms)
    return CheckedVolume(
        path,
        shape,
        geometry.affine,
        (x, y, z),
        slice_axis(zooms),
        geometry.source,
        tuple(notes),
        file.sha256,
    )


EXTENT_MM = (1.0, 2000.0)  # sides of a plausible volume: outside, the unit of length is wrong
CT_FRACTION = 0.05  # below CT_CUT: air at -1000 HU fills far more of a CT of a head


def check_extent(name: str, zooms: NDArray[np.floating], shape: Sequence[int]) -> None:
    """Reject a volume whose unit of length must be wrong.

    Args:
        name: of the case, for the message.
        zooms: (3,) spacing in mm.
        shape: (X, Y, Z).

    Raises:
        InputRejected: one of its sides is no head's.
    """
    for extent in zooms * np.asarray(shape):
        if not EXTENT_MM[0] <= extent <= EXTENT_MM[1]:
            raise InputRejected(say("extent", name=name, extent=extent))


def check_range(name: str, low: float, high: float, below: float, *, force: bool = False) -> list[str]:
    """Check the range of the voxels' values.

    Args:
        name: of the case, for the message.
        low: the least value.
        high: the greatest value.
        below: fraction of the voxels below :data:`CT_CUT`.
        force: accept values that do not look like MR.

    Returns:
        Warnings, one line each.

    Raises:
        InputRejected: constant, unlike MR, or nothing above zero.
    """
    if low >= high:  # above where no voxel was finite
        raise InputRejected(say("constant", name=name, value=low if low == high else 0))
    seen = {"percent": 100 * below, "cut": CT_CUT, "low": low}
    if below >= CT_FRACTION and not force:
        raise InputRejected(say("not_mr", name=name, **seen))
    if high <= 0:  # intensities are scaled by what is above zero
        raise InputRejected(say("not_positive", name=name, high=high))
    return [say("forced", **seen)] if below >= CT_FRACTION else []
