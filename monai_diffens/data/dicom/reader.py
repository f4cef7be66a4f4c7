"""Reading the voxels of a DICOM series: pydicom, and ITK for compressions that need a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_diffens.data.dicom.headers import FRAME, Header, numbers, quiet_pydicom
from monai_diffens.messages import InputRejected, say

__all__ = ["read_voxels"]

itk, _ = optional_import("itk", allow_namespace_pkg=True)
pydicom, _ = optional_import("pydicom")

RLE = "1.2.840.10008.1.2.5"
DEFLATED = "1.2.840.10008.1.2.1.99"
ALLOCATED = (8, 16, 32)
FACTORS = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
LARGEST_FACTOR = 1e30


def read_voxels(name: str, files: Sequence[Path], headers: Sequence[Header]) -> np.ndarray:
    """(columns, rows, images) float32: stored values times rescale slope plus intercept, image by image.

    Args:
        name: of the series, for the messages.
        files: one an image; a multi-frame file once for each of its frames.
        headers: of the images.

    Raises:
        InputRejected: pixels cannot be read, or their length contradicts the header.
    """
    columns, rows = (int(numbers(headers[0], side)[0]) for side in ("Columns", "Rows"))
    for attribute, _ in FACTORS:  # lost in some slices it would make these of another brightness
        if len({attribute in header for header in headers}) > 1:
            raise InputRejected(say("dicom_header", name=name, attribute=attribute))
    planes: list[np.ndarray] = []
    held: tuple[Path | None, np.ndarray, bool] = (None, np.zeros(0), False)  # a file's frames are read once
    for file, header in zip(files, headers, strict=True):
        if held[0] != file:
            held = file, *_frames(name, file, rows, columns)
            if len(held[1]) != files.count(file):  # frames that no header tells of would be left out
                raise InputRejected(say("dicom_header", name=name, attribute="NumberOfFrames"))
        _, frames, rescaled = held
        slope, intercept = (1.0, 0.0) if rescaled else (_factor(name, header, *each) for each in FACTORS)
        planes.append(frames[header.get(FRAME, 0)] * np.float32(slope) + np.float32(intercept))
    return np.stack(planes, axis=-1).swapaxes(0, 1)


def _factor(name: str, header: Header, attribute: str, default: float) -> float:
    if attribute not in header:
        return default
    values = numbers(header, attribute)
    bad = values.shape != (1,) or abs(values[0]) > LARGEST_FACTOR
    if bad or (attribute == "RescaleSlope" and abs(values[0]) < 1 / LARGEST_FACTOR):
        raise InputRejected(say("dicom_header", name=name, attribute=attribute))
    return float(values[0])


def _frames(name: str, file: Path, rows: int, columns: int) -> tuple[np.ndarray, bool]:
    """(frames, rows, columns) float32, and whether the rescale slope and intercept are in them already."""
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(file, force=True)
            syntax = _syntax(dataset)
            if syntax.is_compressed and syntax not in (RLE, DEFLATED) and not dataset.get("NumberOfFrames"):
                return _decompressed(file).reshape(-1, rows, columns), True
            if not syntax.is_encapsulated:
                _check_pixels(name, dataset, syntax.is_little_endian)
            values = np.asarray(dataset.pixel_array).reshape(-1, rows, columns)
        return values.astype(np.float32), False
    except InputRejected:
        raise
    except Exception as error:  # pydicom's and ITK's are of many kinds; their texts name files and values
        raise InputRejected(say("dicom_pixels", name=name)) from error


def _syntax(dataset: Any) -> Any:
    """Transfer syntax; set where a file without a beginning does not tell it."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian
    return dataset.file_meta.TransferSyntaxUID


def _check_pixels(name: str, dataset: Any, little_endian: bool) -> None:
    """Refuse pixels whose length or kind contradicts the header: they would be read as another image."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in ALLOCATED or not 0 < stored <= allocated:
        raise InputRejected(say("dicom_header", name=name, attribute="BitsAllocated"))
    if dataset.get("HighBit") not in (None, stored - 1):
        raise InputRejected(say("dicom_header", name=name, attribute="HighBit"))
    frames = int(dataset.get("NumberOfFrames") or 1)
    needed = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * frames * allocated // 8
    found = len(dataset.PixelData)
    if found != needed + needed % 2 and found != needed:
        raise InputRejected(say("dicom_length", name=name, found=found, needed=needed))
    # pydicom sets the bits beyond those that the header says are used to 0
    signed = int(dataset.PixelRepresentation)
    kind = f"{'<' if little_endian else '>'}{'i' if signed else 'u'}{allocated // 8}"
    values = np.frombuffer(dataset.PixelData[:needed], kind)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    if values.min() < low or values.max() >= high:
        raise InputRejected(say("dicom_header", name=name, attribute="BitsStored"))


def _decompressed(file: Path) -> np.ndarray:
    """One slice as ITK decompresses and rescales it."""
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
    reader.Update()
    return np.array(itk.array_view_from_image(reader.GetOutput()))
