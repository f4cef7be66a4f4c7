"""Reading DICOM headers and voxels, in silence: pydicom's warnings and errors quote values and paths.

An image's header is a plain dictionary of the attributes that are asked for. Of a multi-frame file each frame
is an image: its header is the file's with that of the frame's functional groups laid over it. Voxels come by
pydicom, and by ITK for compressions that need a decoder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_diffens.messages import InputRejected, say

pydicom, has_pydicom = optional_import("pydicom")

Header = dict[str, Any]

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # classic MR Image Storage, one slice a file
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"  # many slices a file
FRAME = "frame"  # of an image of a multi-frame file: which one, from 0

ATTRIBUTES = """
    SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID
    PatientName PatientBirthName OtherPatientNames PatientID OtherPatientIDs PatientBirthDate
    AccessionNumber StudyID IssuerOfPatientID
    ReferringPhysicianName PerformingPhysicianName OperatorsName InstitutionName
    StudyDate StudyDescription SeriesDescription ProtocolName SequenceName SeriesNumber InstanceNumber
    Modality Manufacturer ManufacturerModelName ImageType ImagesInAcquisition
    Rows Columns SamplesPerPixel PhotometricInterpretation NumberOfFrames
    BitsAllocated BitsStored HighBit PixelRepresentation RescaleSlope RescaleIntercept
    PixelSpacing ImageOrientationPatient ImagePositionPatient SliceThickness SpacingBetweenSlices
    EchoTime RepetitionTime InversionTime FlipAngle ScanningSequence SequenceVariant ScanOptions
    EchoTrainLength MRAcquisitionType DiffusionBValue ContrastBolusAgent AngioFlag
""".split()
SEQUENCES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ContrastBolusAgentSequence
""".split()
# Attribute of a classic header: where enhanced MR keeps it (functional group, attribute).
GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
}


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Neither validate values nor warn of them: pydicom quotes values and paths, such as a name."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def read_header(file: Path) -> Any:
    """Read a file's whole header without its pixels, as a ``pydicom.Dataset``."""
    with quiet_pydicom():
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        header.decode()  # values are converted when first looked at: now, while all is quiet
        return header


def image_headers(file: Path) -> list[Header]:
    """Headers of the images in a file: none where it holds no image, several of a multi-frame file.

    Raises:
        Exception: of many kinds, where the file cannot be read or does not tell its class and series.
    """
    with quiet_pydicom():
        dataset = pydicom.dcmread(
            file, stop_before_pixels=True, force=True, specific_tags=[*ATTRIBUTES, *SEQUENCES]
        )
        header = {name: value for name in ATTRIBUTES if (value := _value(dataset, name)) is not None}
        kind = text(header, "SOPClassUID") or str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        if kind and "Rows" not in header and kind not in (MR_IMAGE, ENHANCED_MR):
            return []  # a report, a presentation state, a DICOMDIR, which is of no series
        if not (text(header, "SOPClassUID") and text(header, "SeriesInstanceUID")):
            raise ValueError("neither class nor series")
        if "ContrastBolusAgent" not in header and _value(dataset, "ContrastBolusAgentSequence"):
            header["ContrastBolusAgent"] = "coded"
        frames = _value(dataset, "PerFrameFunctionalGroupsSequence")
        if not frames:
            return [header]
        shared = next(iter(_value(dataset, "SharedFunctionalGroupsSequence") or []), None)
        common = header | _functional(shared)
        return [common | _functional(each) | {FRAME: place} for place, each in enumerate(frames)]


def numbers(header: Header, attribute: str) -> np.ndarray:
    """(N,) finite numbers of an attribute; (0,) where it holds none."""
    try:
        values = np.atleast_1d(np.array(header.get(attribute), float)).ravel()
    except (TypeError, ValueError):
        return np.zeros(0)
    return values if np.isfinite(values).all() else np.zeros(0)


def number(header: Header, attribute: str) -> float | None:
    """The one finite number of an attribute, or None."""
    values = numbers(header, attribute)
    return float(values[0]) if values.shape == (1,) else None


def text(header: Header, attribute: str) -> str:
    """An attribute as text, several values separated by a backslash; "" where it is missing."""
    value = header.get(attribute)
    if value is None:
        return ""
    several = isinstance(value, MutableSequence | tuple)  # a person's name can be iterated too
    return ("\\".join(map(str, value)) if several else str(value)).strip()


def resolution(headers: Sequence[Header], attribute: str) -> np.ndarray:
    """(N,) steps of an attribute's numbers as they are written, the finest among the headers; 0: not rounded.

    ``12.5`` has a step of 0.1, and so has ``12.0`` where another header says ``12.5``. Numbers that were not
    read from text have none.
    """
    steps: list[np.ndarray] = []
    for header in headers:
        value: Any = header.get(attribute)
        values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        steps.append(np.array([_step(each) for each in values]))
    return np.min(steps, axis=0) if len({step.shape for step in steps}) == 1 else np.zeros(0)


def _step(value: Any) -> float:
    written = str(getattr(value, "original_string", None) or "").strip().lower()
    if not written:
        return 1.0 if isinstance(value, int) else 0.0
    mantissa, _, exponent = written.partition("e")
    try:
        return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))
    except (ValueError, OverflowError):
        return 0.0


def _functional(groups: Any) -> Header:
    """Classic attributes of the functional groups of a frame."""
    found: Header = {}
    for name, (sequence, attribute) in GROUPS.items():
        item = next(iter(_value(groups, sequence) or []), None)
        value = _value(item, attribute)
        if value is not None:
            found[name] = value
    return found


def _value(dataset: Any, name: str) -> Any:
    """Value of an attribute; None where there is none, "unusable" where it cannot be decoded."""
    if dataset is None:
        return None
    try:
        value = dataset.get(name)
        return None if value is None or value == "" else value
    except Exception:  # pydicom's complaints on damaged values are of many kinds, and quote them
        return "unusable"


itk, _ = optional_import("itk", allow_namespace_pkg=True)

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
