"""The gate of DICOM series: is this one complete, even, straight stack of MR slices, and where does it lie?

As ``transforms/input_gate.py`` for NIfTI; positions in the messages are millimetres along the slices' normal.
Headers hold rounded numbers: positions are taken for even where an even stack, rounded as these are written,
gives just these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.optimize import linprog

from monai_diffens.data.dicom.reader import (
    ENHANCED_MR,
    MR_IMAGE,
    Header,
    numbers,
    read_voxels,
    resolution,
    text,
)
from monai_diffens.data.dicom.series import DicomSeries
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import CheckedVolume, check_extent, check_range
from monai_diffens.transforms.nifti_file import CT_CUT
from monai_diffens.transforms.nifti_header import slice_axis

SAME_PLACE_MM = 0.01  # slices closer than this lie in one place
STEP_TOLERANCE = 0.01  # of the slice distance, or
EVEN_MM = 0.01  # of a slice off its place
STRAIGHT_MM = 0.1  # a slice may lie this far off the line through the stack
TILT = 1e-3  # sine of the angle between that line and the slices' normal
COARSEST_COSINE = 0.01  # steps of direction cosines beyond this are no rounding
LISTED = 5  # positions that a message lists


@dataclass(frozen=True, eq=False)
class Stack:
    """The geometry of a series.

    Attributes:
        order: (N,) indices of the images along the slices' normal.
        affine: (4, 4), voxel index (column, row, slice) to RAS+ mm.
        shape: (columns, rows, slices).
        spacing: distance of the slices, mm.
        thickness: of the slices by their headers, mm; None where they do not tell.
        notes: one line each.
    """

    order: np.ndarray
    affine: np.ndarray
    shape: tuple[int, int, int]
    spacing: float
    thickness: float | None
    notes: tuple[str, ...] = ()

    @property
    def normal(self) -> np.ndarray:
        """(3,) direction of the slice axis, RAS+."""
        step = self.affine[:3, 2]
        return np.asarray(step / np.linalg.norm(step))


def stack_of(name: str, headers: Sequence[Header]) -> Stack:
    """Arrange images that are alike.

    Args:
        name: of the series, for the messages.
        headers: with usable numbers in Rows, Columns, PixelSpacing and the two attributes of place.

    Raises:
        InputRejected: slices are missing, double, uneven or not straight, or there is one alone.
    """
    row, column, tilt = orientation(name, headers)
    normal = np.cross(row, column)
    origins = np.stack([numbers(header, "ImagePositionPatient") for header in headers])
    order = np.argsort(origins @ normal, kind="stable")
    origins = origins[order]
    columns, rows = (int(numbers(headers[0], side)[0]) for side in ("Columns", "Rows"))
    if len(order) < 2:
        raise InputRejected(say("not_3d", name=name, dims=2, shape=(columns, rows)))
    written = resolution(headers, "ImagePositionPatient")
    start, step, rounded = _line(
        name, origins, normal, tilt, written if written.shape == (3,) else np.zeros(3)
    )
    spacing = float(np.linalg.norm(step))
    notes = [say("dicom_rounded", mm=float(written.max()))] if rounded else []

    affine = np.eye(4)
    between_rows, between_columns = np.median([numbers(h, "PixelSpacing") for h in headers], axis=0)
    affine[:3] = np.stack([row * between_columns, column * between_rows, step, start], axis=1)
    affine[:2] *= -1  # DICOM's patient axes point left and back, RAS+ right and front
    notes += _ends(headers)
    return Stack(order, affine, (columns, rows, len(order)), spacing, _thickness(headers), tuple(notes))


def orientation(name: str, headers: Sequence[Header]) -> tuple[np.ndarray, np.ndarray, float]:
    """Directions along a row and along a column, orthonormal, and how far off those written may be."""
    written = np.median([numbers(header, "ImageOrientationPatient") for header in headers], axis=0)
    row, column = written.reshape(2, 3)
    off = max(TILT, 2 * min(resolution(headers, "ImageOrientationPatient").max(initial=0), COARSEST_COSINE))
    if np.abs(np.array([row @ row - 1, column @ column - 1, row @ column])).max() > off:
        raise InputRejected(say("dicom_position", name=name, attribute="ImageOrientationPatient"))
    u, _, v = np.linalg.svd(np.stack([row, column]), full_matrices=False)
    row, column = u @ v  # the nearest orthonormal pair
    return row, column, float(off)


def listed(places: Sequence[float] | np.ndarray) -> str:
    """The first positions, for a message."""
    return _joined([f"{place:.4g}" for place in sorted(places)])


def _line(
    name: str, origins: np.ndarray, normal: np.ndarray, tilt: float, written: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """First position, step from slice to slice, and whether the positions had to be taken for rounded."""
    places = origins @ normal
    steps = np.diff(places)
    same = steps < SAME_PLACE_MM
    if same.any():
        double = np.unique(np.round(places[1:][same], 2))
        raise InputRejected(say("dicom_duplicates", name=name, count=int(same.sum()), places=listed(double)))
    usual = float(np.median(steps))
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    uneven = np.abs(steps - usual) > max(EVEN_MM, STEP_TOLERANCE * usual)
    line = origins[0] + np.arange(len(origins))[:, None] * step
    off = np.linalg.norm(origins - line, axis=1).max()
    leaning = np.linalg.norm(np.cross(step, normal)) > tilt * np.linalg.norm(step)
    crooked = leaning or off > max(STRAIGHT_MM, STEP_TOLERANCE * usual)
    if not uneven.any() and not crooked:
        return origins[0], step, False
    fitted = _unrounded(origins, written)
    if fitted is not None:
        start, step = fitted
        allowed = tilt + np.linalg.norm(written) / np.linalg.norm(origins[-1] - origins[0])
        if np.linalg.norm(np.cross(step, normal)) <= allowed * np.linalg.norm(step):
            return start, normal * (step @ normal), True
    if uneven.any():
        pairs = [f"{a:.4g} to {b:.4g}" for a, b in zip(places[:-1][uneven], places[1:][uneven], strict=True)]
        raise InputRejected(say("dicom_gap", name=name, mm=usual, places=_joined(pairs)))
    raise InputRejected(say("dicom_crooked", name=name))


def _unrounded(origins: np.ndarray, written: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Start and step of an even stack that has these origins when rounded to ``written``; None if none."""
    count = len(origins)
    sides = np.stack([np.ones(count), np.arange(count)], axis=1)
    bounds = np.block([[sides, -np.ones((count, 1))], [-sides, -np.ones((count, 1))]])
    lines = np.zeros((2, 3))
    for axis in range(3):
        p = origins[:, axis]
        fit = linprog([0, 0, 1], bounds, np.r_[p, -p], bounds=[(None, None)] * 3)  # least greatest distance
        if not fit.success or fit.x[2] > written[axis] / 2 * (1 - 1e-6) + 1e-6:
            return None
        lines[:, axis] = fit.x[:2]
    return lines[0], lines[1]


def _joined(parts: list[str]) -> str:
    more = len(parts) - LISTED
    return ", ".join(parts[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _thickness(headers: Sequence[Header]) -> float | None:
    found = [numbers(header, "SliceThickness") for header in headers]
    if any(value.shape != (1,) for value in found):
        return None
    values = np.concatenate(found)
    value = float(np.median(values))
    if value <= 0 or np.ptp(values) > STEP_TOLERANCE * value:
        return None
    return value


def _ends(headers: Sequence[Header]) -> list[str]:
    """A warning where headers tell of more images than there are: a missing end leaves no gap."""
    told = np.concatenate([numbers(header, "InstanceNumber") for header in headers])
    if len(told) == len(headers) == len(set(told)) and told.min() > 1 and np.ptp(told) == len(told) - 1:
        return [say("dicom_first", number=int(told.min()))]
    totals = {tuple(numbers(header, "ImagesInAcquisition")) for header in headers}
    total = totals.pop() if len(totals) == 1 else ()
    if len(total) == 1 and total[0] > len(headers):
        return [say("dicom_fewer", count=len(headers), total=int(total[0]))]
    return []


# Attribute -> how far two slices of one stack may differ in it; None: not at all.
ALIKE: dict[str, float | None] = {
    "StudyInstanceUID": None,
    "PatientID": None,
    "FrameOfReferenceUID": None,
    "Rows": None,
    "Columns": None,
    "PixelSpacing": 1e-3,
    "ImageOrientationPatient": 2e-3,
    "EchoTime": 0.01,
}
PLACE = {"PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}  # and how many numbers
LARGEST_SIDE = 4096  # pixels
FARTHEST_MM = 1e5


@dataclass(frozen=True, eq=False)
class LoadedSeries:
    """A series as it was read, once.

    Attributes:
        voxels: (columns, rows, slices) float32, rescaled.
        stack: where they lie.
        files: in the order of the slices, each once.
    """

    voxels: np.ndarray
    stack: Stack
    files: list[Path]


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
    loaded = load_series(series)
    voxels, stack = loaded.voxels, loaded.stack
    if not np.isfinite(voxels).all():
        raise InputRejected(say("dicom_header", name=series.name, attribute="RescaleSlope"))
    below = float((voxels < CT_CUT).mean())
    notes = [*stack.notes, *check_range(series.name, *_range(voxels), below, force=force)]
    stack.affine.flags.writeable = False
    x, y, z = (float(zoom) for zoom in nib.affines.voxel_sizes(stack.affine))
    return loaded.files, CheckedVolume(
        Path(series.name),
        stack.shape,
        stack.affine,
        (x, y, z),
        slice_axis(np.array([x, y, z])),
        "dicom",
        tuple(notes),
    )


def load_series(series: DicomSeries) -> LoadedSeries:
    """Read a series whose headers are sound.

    Raises:
        InputRejected: they are not, or the pixels cannot be read.
    """
    stack = check_headers(series)
    files = [series.files[index] for index in stack.order]
    voxels = read_voxels(series.name, files, [series.headers[index] for index in stack.order])
    return LoadedSeries(voxels, stack, list(dict.fromkeys(files)))


def check_headers(series: DicomSeries) -> Stack:
    """Check a series by its headers alone.

    Raises:
        InputRejected: as :func:`check_series`, but for what only the pixels tell.
    """
    if series.doubt:
        raise InputRejected(series.doubt)
    for header in series.headers:
        _check_kind(series.name, header)
    _check_alike(series)
    stack = stack_of(series.name, series.headers)
    check_extent(series.name, nib.affines.voxel_sizes(stack.affine), stack.shape)
    return stack


def _range(voxels: np.ndarray) -> tuple[float, float]:
    return float(voxels.min()), float(voxels.max())


def _check_kind(name: str, header: Header) -> None:
    """Grey MR images with a size and a position, else reject."""
    modality = text(header, "Modality")
    if modality != "MR":
        known = modality if modality.isalnum() and len(modality) <= 5 else "unknown"
        raise InputRejected(say("dicom_modality", name=name, modality=known))
    kind = text(header, "SOPClassUID")
    if kind != ENHANCED_MR and not np.isin(numbers(header, "NumberOfFrames"), (0, 1)).all():
        raise InputRejected(say("dicom_frames", name=name))
    grey = header.get("SamplesPerPixel") == 1 and text(header, "PhotometricInterpretation") == "MONOCHROME2"
    if kind not in (MR_IMAGE, ENHANCED_MR) or not grey:
        raise InputRejected(say("dicom_class", name=name))
    for side in ("Rows", "Columns"):
        size = numbers(header, side)
        if size.shape != (1,) or size[0] != int(size[0]) or not 0 < size[0] <= LARGEST_SIDE:
            raise InputRejected(say("dicom_header", name=name, attribute=side))
    for attribute, length in PLACE.items():
        values = numbers(header, attribute)
        usable = values.shape == (length,) and np.abs(values).max() <= FARTHEST_MM
        if not usable or (attribute == "PixelSpacing" and values.min() <= 0):
            raise InputRejected(say("dicom_position", name=name, attribute=attribute))


def _check_alike(series: DicomSeries) -> None:
    """Reject a mix; the positions told are of the slices unlike the most common kind."""
    for attribute, tolerance in ALIKE.items():
        kinds = [_kind(header, attribute, tolerance) for header in series.headers]
        usual = series.headers[kinds.index(Counter(kinds).most_common(1)[0][0])]
        odd = [header for header in series.headers if _differ(header, usual, attribute, tolerance)]
        if odd:
            normal = np.cross(*orientation(series.name, [usual])[:2])
            raise InputRejected(
                say(
                    "dicom_mixed",
                    name=series.name,
                    attribute=attribute,
                    count=len(odd),
                    total=len(kinds),
                    places=listed([float(numbers(each, "ImagePositionPatient") @ normal) for each in odd]),
                )
            )


def _kind(header: Header, attribute: str, tolerance: float | None) -> Any:
    if tolerance is None:
        return text(header, attribute)
    return tuple(np.round(numbers(header, attribute) / tolerance).astype(int).tolist())


def _differ(one: Header, other: Header, attribute: str, tolerance: float | None) -> bool:
    """Whether two slices differ; not by rounding alone, which puts close values on two sides of an edge."""
    if tolerance is None:
        return _kind(one, attribute, None) != _kind(other, attribute, None)
    a, b = numbers(one, attribute), numbers(other, attribute)
    return a.shape != b.shape or bool((np.abs(a - b) > tolerance).any())
