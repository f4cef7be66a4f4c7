"""The gate of DICOM series: is this one complete stack of MR slices, and where does it lie?

As ``transforms/input_gate.py`` for NIfTI; positions in the messages are millimetres along the slices' normal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_diffens.data.dicom.headers import ENHANCED_MR, MR_IMAGE, Header, numbers, text
from monai_diffens.data.dicom.reader import read_voxels
from monai_diffens.data.dicom.series import DicomSeries
from monai_diffens.data.dicom.stack import Stack, listed, orientation, stack_of
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import CheckedVolume
from monai_diffens.transforms.nifti_geometry import slice_axis
from monai_diffens.transforms.plausibility import CT_CUT, check_extent, check_range

__all__ = ["MR_IMAGE", "LoadedSeries", "check_headers", "check_series", "load_series"]

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
