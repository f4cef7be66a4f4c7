"""Where the slices of a series lie: one even, straight stack, or a line that says why not.

Positions in the messages are millimetres along the slices' normal. Headers hold rounded numbers: positions
are taken for even where an even stack, rounded as these are written, gives just these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from monai_diffens.data.dicom.headers import Header, numbers, resolution
from monai_diffens.messages import InputRejected, say

__all__ = ["Stack", "listed", "orientation", "stack_of"]

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
