"""What a NIfTI header says: where the volume lies in millimetres, and fields that contradict the format.

Parts of a header that are not used decide nothing. No voxel is read. Affines are (4, 4) float64, voxel index
to RAS+.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np

from monai_diffens.messages import say

MOST_AXES = 7


def check_header(raw: nib.Nifti1Header) -> None:
    """Refuse sizes and offsets that no NIfTI file can have, and that nibabel lets pass.

    Args:
        raw: as stored, nothing mended.

    Raises:
        ValueError: the message says which field holds what.
    """
    if int(raw["sizeof_hdr"]) != raw.sizeof_hdr:
        raise ValueError(f"a header of {int(raw['sizeof_hdr'])} bytes")
    axes = int(raw["dim"][0])
    if not 1 <= axes <= MOST_AXES:
        raise ValueError(f"{axes} axes")
    sizes = [int(size) for size in raw["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise ValueError(f"an axis of {min(sizes)} voxels")
    offset, least = float(raw["vox_offset"]), int(raw.single_vox_offset)
    if not offset >= least or offset != int(offset):
        raise ValueError(f"the voxels begin at byte {offset:g}, not at {least} or later")
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if np.isfinite(slope) and slope != 0 and not np.isfinite(inter):
        raise ValueError(f"an intercept of {inter:g}")


def mended_fields(raw: nib.Nifti1Header, read: nib.Nifti1Header, source: str) -> list[str]:
    """Say what nibabel read otherwise than it is stored, where that can show in a result.

    Args:
        raw: as stored.
        read: as nibabel reads it.
        source: which part of the header gave the affine.
    """
    used = ["bitpix", "sform_code", "qform_code"]
    changed = [(name, raw[name].item(), read[name].item()) for name in used]
    if source != "sform":
        pairs = zip(raw["pixdim"][:4].tolist(), read["pixdim"][:4].tolist(), strict=True)
        changed += [(f"pixdim[{axis}]", was, now) for axis, (was, now) in enumerate(pairs)]
        # 0 is what many programs write for 1 here
        changed = [each for each in changed if each[0] != "pixdim[0]" or each[1] != 0]
    slope: Any = raw["scl_slope"]
    if np.isinf(slope):
        changed.append(("scl_slope", float(slope), 1.0))
    return [
        say("mended", field=name, was=f"{was:g}", now=f"{now:g}")
        for name, was, now in changed
        if was != now and not (np.isnan(was) and np.isnan(now))
    ]


FORMS_DIFFER_MM = 0.1  # sform and qform place some corner further apart than this
SHEAR_COSINE = 1e-4  # cosine between two axes above this: sheared (0.01 mm over 100 mm)
QUATERNION_ROUNDING = 2e-6  # how much longer than 1 single precision makes a quaternion's square
THICK_RATIO = 1.05  # the slice axis' spacing is at least this times the next largest
_UNITS = {1: "meter", 2: "mm", 3: "micron"}
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


def read_geometry(header: nib.Nifti1Header, raw: nib.Nifti1Header) -> Geometry:
    """Read the geometry from a header.

    Only the part that gives the affine decides: the sform where its code is set, else the qform, else the
    spacing alone.

    Args:
        header: as nibabel reads it.
        raw: as stored: nibabel turns a spacing of 0 into 1.

    Returns:
        The geometry, in millimetres.

    Raises:
        ValueError: the affine is zero, singular or not finite; the message says why.
    """
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    source: Source = "sform" if sform_code > 0 else "qform" if qform_code > 0 else "spacing"
    spacing = raw["pixdim"][1:4]
    if source != "sform" and not (np.isfinite(spacing).all() and spacing.all()):
        raise ValueError(f"spacing {' x '.join(f'{s:g}' for s in spacing)}")
    if source == "qform" and float(raw["pixdim"][0]) not in (-1, 0, 1):
        raise ValueError(f"qfac {float(raw['pixdim'][0]):g}, which tells left from right")
    affine = header.get_sform() if source == "sform" else header.get_base_affine()
    if source == "qform":
        affine = qform_affine(header)
    affine = np.array(affine, dtype=float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError(f"the {source} is zero or not finite")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise ValueError(f"the {source} is singular")

    unit = _UNITS.get(int(header["xyzt_units"]) & 7, "unknown")  # the other bits tell the unit of time
    affine[:3] *= _UNITS_MM[unit]
    sheared, apart = is_sheared(affine), 0.0
    if sform_code > 0 and qform_code > 0:
        apart = _forms_apart(header) * _UNITS_MM[unit]
    differ = not apart <= FORMS_DIFFER_MM  # not a number counts as differing
    warnings = [
        line
        for told, line in (
            (source == "spacing", say("no_form")),
            (sheared, say("sheared")),
            (differ and np.isfinite(apart), say("forms_differ", mm=apart)),
            (differ and not np.isfinite(apart), say("qform_unusable")),
            (unit == "unknown", say("unit_unknown")),
            (_UNITS_MM[unit] != 1, say("unit_converted", unit=unit)),
        )
        if told
    ]
    kept = 0 if sheared or differ else qform_code
    return Geometry(affine, source, 2 if source == "spacing" else sform_code, kept, warnings)


def qform_affine(header: nib.Nifti1Header) -> np.ndarray:
    """The affine (4, 4) of a header's qform, voxel index to the header's unit.

    A quaternion that is too long by the rounding of single precision is brought to length 1, as NIfTI's own
    library does.

    Raises:
        ValueError: it is longer, or not finite.
    """
    b, c, d = (float(header[f"quatern_{letter}"]) for letter in "bcd")
    length = b * b + c * c + d * d
    if not length <= 1 + QUATERNION_ROUNDING:
        raise ValueError("the qform's quaternion is impossible")
    unit = 1 / max(1.0, length) ** 0.5
    a = max(0.0, 1 - length) ** 0.5
    turn = nib.quaternions.quat2mat(np.array([a, b * unit, c * unit, d * unit]))
    spacing = np.array(header["pixdim"][1:4], dtype=float)
    spacing[2] *= -1 if float(header["pixdim"][0]) < 0 else 1
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of a (4, 4) affine are not at right angles, so that no qform can hold it."""
    axes = np.asarray(affine, dtype=float)[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > SHEAR_COSINE)


def slice_axis(zooms: np.ndarray) -> int | None:
    """Return the axis (0, 1, 2) whose spacing stands out as the largest, or None where none does."""
    order = np.argsort(zooms)
    return int(order[2]) if zooms[order[2]] >= THICK_RATIO * zooms[order[1]] else None


def _forms_apart(header: nib.Nifti1Header) -> float:
    """Return how far sform and qform set a corner apart, in the header's unit; NaN for a damaged qform."""
    try:
        difference = header.get_sform() - qform_affine(header)
    except ValueError:
        return float("nan")
    shape = header.get_data_shape()[:3]
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in shape))]).T
    with np.errstate(all="ignore"):
        return float(np.linalg.norm((difference @ corners)[:3], axis=0).max())
