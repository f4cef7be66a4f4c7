"""The gate of DICOM series: is this one complete stack of MR slices, and where does it lie?

As ``transforms/input_gate.py`` for NIfTI; positions in the messages are millimetres along the slices' normal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_diffens.data.dicom.reader import DicomStackReader
from monai_diffens.data.dicom.series import ALIKE, DicomSeries
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import CheckedVolume
from monai_diffens.transforms.nifti_geometry import slice_axis
from monai_diffens.transforms.plausibility import CT_CUT, check_extent, check_range

__all__ = ["MR_IMAGE", "check_series"]

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # classic MR Image Storage, one slice a file
SAME_PLACE_MM = 0.01  # slices closer than this lie in one place
STEP_TOLERANCE = 0.01  # of the slice distance; headers round positions
STRAIGHT_MM = 0.1  # a slice may lie this far off the line through the stack
TILT = 1e-3  # sine of the angle between that line and the slices' normal
LISTED = 5  # positions that a message lists
PLACE = {"PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}  # and how many numbers


def check_series(series: DicomSeries, *, force: bool = False) -> tuple[list[Path], CheckedVolume]:
    """Check one series, headers and voxels.

    Args:
        series: of :func:`find_series`.
        force: accept values that do not look like MR (nothing else is overridden).

    Returns:
        Its files in the order of their position along the slices' normal, and the volume they make: axes
        X, Y, Z are columns, rows and slices.

    Raises:
        InputRejected: it is not one complete stack of MR slices; positions along the normal are listed.
    """
    _check_kind(series)
    _check_alike(series)
    first = series.headers[0]
    row, column = np.split(_numbers(first, "ImageOrientationPatient"), 2)
    if np.abs(np.array([row @ row - 1, column @ column - 1, row @ column])).max() > TILT:
        raise InputRejected(say("dicom_position", name=series.name, attribute="ImageOrientationPatient"))
    normal = np.cross(row, column)
    origins = np.stack([_numbers(header, "ImagePositionPatient") for header in series.headers])
    order = np.argsort(origins @ normal, kind="stable")
    origins, places = origins[order], (origins @ normal)[order]
    name, count = series.name, len(order)
    if count < 2:
        raise InputRejected(say("not_3d", name=name, dims=2, shape=(first.Columns, first.Rows)))
    spacing = _check_steps(name, places)
    step = (origins[-1] - origins[0]) / (count - 1)
    off = np.linalg.norm(origins - origins[0] - np.arange(count)[:, None] * step, axis=1).max()
    tilt = np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step)
    if off > max(STRAIGHT_MM, STEP_TOLERANCE * spacing) or tilt > TILT:
        raise InputRejected(say("dicom_crooked", name=name))

    affine = np.eye(4)
    between_rows, between_columns = (float(value) for value in first.PixelSpacing)
    affine[:3] = np.stack([row * between_columns, column * between_rows, step, origins[0]], axis=1)
    affine[:2] *= -1  # DICOM's patient axes point left and back, RAS+ right and front
    shape = (int(first.Columns), int(first.Rows), count)
    zooms = nib.affines.voxel_sizes(affine)
    check_extent(name, zooms, shape)
    files = [series.files[index] for index in order]
    notes = _thickness_notes(first, spacing) + _check_voxels(name, files, shape, force)
    affine.flags.writeable = False
    x, y, z = (float(zoom) for zoom in zooms)
    return files, CheckedVolume(
        Path(name), shape, affine, (x, y, z), slice_axis(zooms), "dicom", tuple(notes)
    )


def _check_kind(series: DicomSeries) -> None:
    """Single-frame grey MR images with a position, else reject."""
    name = series.name
    for header in series.headers:
        modality = str(header.get("Modality", ""))
        if modality != "MR":
            known = modality if modality.isalnum() and len(modality) <= 5 else "unknown"
            raise InputRejected(say("dicom_modality", name=name, modality=known))
        if (header.get("NumberOfFrames") or 1) != 1:
            raise InputRejected(say("dicom_frames", name=name))
        grey = header.get("SamplesPerPixel") == 1 and header.get("PhotometricInterpretation") == "MONOCHROME2"
        if header.get("SOPClassUID") != MR_IMAGE or not grey:
            raise InputRejected(say("dicom_class", name=name))
        for attribute, length in PLACE.items():
            values = _numbers(header, attribute)
            if values.shape != (length,) or (attribute == "PixelSpacing" and values.min() <= 0):
                raise InputRejected(say("dicom_position", name=name, attribute=attribute))


def _numbers(header: Any, attribute: str) -> np.ndarray:
    """(N,) finite numbers of an attribute; (0,) where it holds none."""
    try:
        values = np.atleast_1d(np.array(header.get(attribute), float))
    except (TypeError, ValueError):
        return np.zeros(0)
    return values if np.isfinite(values).all() else np.zeros(0)


def _check_alike(series: DicomSeries) -> None:
    """Reject a mix; the positions told are of the slices unlike the most common kind."""
    for attribute, tolerance in ALIKE.items():
        kinds = [_kind(header, attribute, tolerance) for header in series.headers]
        usual = series.headers[kinds.index(Counter(kinds).most_common(1)[0][0])]
        odd = [header for header in series.headers if _differ(header, usual, attribute, tolerance)]
        if odd:
            row, column = np.split(_numbers(usual, "ImageOrientationPatient"), 2)
            normal = np.cross(row, column)
            raise InputRejected(
                say(
                    "dicom_mixed",
                    name=series.name,
                    attribute=attribute,
                    count=len(odd),
                    total=len(kinds),
                    places=_listed([float(_numbers(h, "ImagePositionPatient") @ normal) for h in odd]),
                )
            )


def _kind(header: Any, attribute: str, tolerance: float | None) -> Any:
    if tolerance is None:
        return str(header.get(attribute) or "")
    return tuple(np.round(_numbers(header, attribute) / tolerance).astype(int).tolist())


def _differ(one: Any, other: Any, attribute: str, tolerance: float | None) -> bool:
    """Whether two slices differ; not by rounding alone, which puts close values on two sides of an edge."""
    if tolerance is None:
        return _kind(one, attribute, None) != _kind(other, attribute, None)
    a, b = _numbers(one, attribute), _numbers(other, attribute)
    return a.shape != b.shape or bool((np.abs(a - b) > tolerance).any())


def _check_steps(name: str, places: np.ndarray) -> float:
    """Distance of the slices in mm; reject duplicates, gaps and uneven steps."""
    steps = np.diff(places)
    same = steps < SAME_PLACE_MM
    if same.any():
        places = np.unique(np.round(places[1:][same], 2))
        raise InputRejected(say("dicom_duplicates", name=name, count=int(same.sum()), places=_listed(places)))
    usual = float(np.median(steps))
    off = np.abs(steps - usual) > max(SAME_PLACE_MM, STEP_TOLERANCE * usual)
    if off.any():
        pairs = [f"{a:.4g} to {b:.4g}" for a, b in zip(places[:-1][off], places[1:][off], strict=True)]
        raise InputRejected(say("dicom_gap", name=name, mm=usual, places=_joined(pairs)))
    return usual


def _listed(places: Sequence[float] | np.ndarray) -> str:
    return _joined([f"{place:.4g}" for place in sorted(places)])


def _joined(parts: list[str]) -> str:
    more = len(parts) - LISTED
    return ", ".join(parts[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _thickness_notes(header: Any, spacing: float) -> list[str]:
    thickness = _numbers(header, "SliceThickness")
    if thickness.shape != (1,) or not 0.1 * spacing < abs(thickness[0] - spacing) or thickness[0] <= 0:
        return []
    return [say("dicom_thickness", thickness=thickness[0], spacing=spacing)]


def _check_voxels(name: str, files: list[Path], shape: tuple[int, int, int], force: bool) -> list[str]:
    try:
        voxels = DicomStackReader.voxels(files)
    except RuntimeError as error:  # ITK's text names the file and its folder
        raise InputRejected(say("dicom_pixels", name=name)) from error
    if voxels.shape != shape:
        raise InputRejected(say("dicom_pixels", name=name))
    below = float((voxels < CT_CUT).mean())
    return check_range(name, float(voxels.min()), float(voxels.max()), below, force=force)
