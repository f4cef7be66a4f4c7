"""Where a NIfTI volume lies: its affine in millimetres, and what about it a user must be told.

Pure functions on headers: no voxel is read. Affines are (4, 4) float64, voxel index to RAS+.
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np

from monai_diffens.messages import say

__all__ = ["Geometry", "is_sheared", "read_geometry", "slice_axis"]

FORMS_DIFFER_MM = 0.1  # sform and qform place some corner further apart than this
SHEAR_COSINE = 1e-4  # cosine between two axes above this: sheared (0.01 mm over 100 mm)
THICK_RATIO = 1.05  # the slice axis' spacing is at least this times the next largest
_UNITS_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}

Source = Literal["sform", "qform", "spacing"]


class Geometry(NamedTuple):
    """What a header says about position.

    Attributes:
        affine: (4, 4) float64, voxel index to RAS+ millimetres.
        source: which part of the header it came from; "spacing" where neither form is set.
        sform_code: the code that a result in this space keeps (2, "aligned", where the file set neither).
        qform_code: likewise; 0 where the qform differs from the affine or cannot hold it.
        warnings: one line each.
    """

    affine: np.ndarray
    source: Source
    sform_code: int
    qform_code: int
    warnings: list[str]


def read_geometry(image: nib.Nifti1Image, header_bytes: bytes) -> Geometry:
    """Read the geometry of an opened image.

    Args:
        image: the image, as nibabel opened it.
        header_bytes: the file's first 348 (NIfTI-1) or 540 (NIfTI-2) bytes, decompressed: nibabel turns a
            spacing of 0 into 1 while it reads, so only the bytes tell.

    Returns:
        The geometry, in millimetres.

    Raises:
        ValueError: the affine is zero, singular or not finite; the message says why.
    """
    header = image.header
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    source: Source = "sform" if sform_code > 0 else "qform" if qform_code > 0 else "spacing"
    spacing = type(header)(header_bytes[: header.sizeof_hdr], check=False)["pixdim"][1:4]
    if source != "sform" and not (np.isfinite(spacing).all() and spacing.all()):
        raise ValueError(f"spacing {' x '.join(f'{s:g}' for s in spacing)}")
    try:
        header.get_qform()
    except Exception as error:  # of several kinds; MONAI's reader looks at it even where the sform is used
        raise ValueError("the qform's quaternion is impossible") from error
    affine = np.array(image.affine, dtype=float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        raise ValueError(f"the {source} is zero or not finite")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise ValueError(f"the {source} is singular")

    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    affine[:3] *= _UNITS_MM[unit]
    sheared, apart = is_sheared(affine), _forms_apart(image) * _UNITS_MM[unit]
    differ = not apart <= FORMS_DIFFER_MM  # not a number counts as differing
    warnings = [
        line
        for told, line in (
            (source == "spacing", say("no_form")),
            (sheared, say("sheared")),
            (differ, say("forms_differ", mm=apart)),
            (unit == "unknown", say("unit_unknown")),
            (_UNITS_MM[unit] != 1, say("unit_converted", unit=unit)),
        )
        if told
    ]
    kept = 0 if sheared or differ else qform_code
    return Geometry(affine, source, 2 if source == "spacing" else sform_code, kept, warnings)


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of a (4, 4) affine are not at right angles, so that no qform can hold it."""
    axes = np.asarray(affine, dtype=float)[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > SHEAR_COSINE)


def slice_axis(zooms: np.ndarray) -> int | None:
    """Return the axis (0, 1, 2) whose spacing stands out as the largest, or None where none does."""
    order = np.argsort(zooms)
    return int(order[2]) if zooms[order[2]] >= THICK_RATIO * zooms[order[1]] else None


def _forms_apart(image: nib.Nifti1Image) -> float:
    """Return how far sform and qform set a corner apart, in the header's unit; 0 where one is unset."""
    header = image.header
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return 0.0
    difference = header.get_sform() - header.get_qform()
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in image.shape[:3]))]).T
    return float(np.linalg.norm((difference @ corners)[:3], axis=0).max())
