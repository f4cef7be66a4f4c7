"""Reading headers with pydicom, in silence: its warnings and errors quote values and paths.

An image's header is a plain dictionary of the attributes that are asked for. Of a multi-frame file each frame
is an image: its header is the file's with that of the frame's functional groups laid over it.
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

__all__ = [
    "ENHANCED_MR",
    "FRAME",
    "MR_IMAGE",
    "Header",
    "image_headers",
    "number",
    "numbers",
    "quiet_pydicom",
    "read_header",
    "resolution",
    "text",
]

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
        if not (text(header, "SOPClassUID") and text(header, "SeriesInstanceUID")):
            raise ValueError("neither class nor series")
        if "ContrastBolusAgent" not in header and _value(dataset, "ContrastBolusAgentSequence"):
            header["ContrastBolusAgent"] = "coded"
        if "Rows" not in header and text(header, "SOPClassUID") not in (MR_IMAGE, ENHANCED_MR):
            return []  # a report, a presentation state, a DICOMDIR
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
