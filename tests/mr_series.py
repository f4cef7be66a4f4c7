"""Writing a conformant MR series, as a scanner would, from a NIfTI volume."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

PATIENT_NAME = "Müller^Änne"
TO_LPS = np.diag([-1.0, -1.0, 1.0])


def study() -> dict[str, Any]:
    """What the series of one examination hold alike."""
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": PATIENT_NAME,
        "PatientID": "PID-4711",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19610217",
        "PatientSex": "F",
        "PatientAge": "061Y",
        "PatientWeight": 61.5,
        "EthnicGroup": "",
        "StudyInstanceUID": generate_uid(),
        "StudyDate": "20220301",
        "StudyTime": "101112.5",
        "StudyID": "S1",
        "StudyDescription": "MRT Schädel",
        "AccessionNumber": "ACC-99",
        "ReferringPhysicianName": "Dr^House",
        "FrameOfReferenceUID": generate_uid(),
        "PositionReferenceIndicator": "",
    }


def series(image: nib.Nifti1Image, slope: float = 1.0, **changes: Any) -> list[pydicom.Dataset]:
    """One dataset a slice of the last axis.

    Args:
        image: (X, Y, Z), values at least 0; its X axis gives columns, Y rows.
        slope: rescale slope, left out when 1.
        changes: attributes of every slice, such as those of :func:`study`.
    """
    axes = TO_LPS @ image.affine[:3]
    spacing = np.linalg.norm(axes[:, :3], axis=0)
    stored = np.rint(image.get_fdata() / slope).astype("<u2")
    uid = generate_uid()
    common = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "BodyPartExamined": "BRAIN",
        "SeriesInstanceUID": uid,
        "SeriesNumber": 4,
        "SeriesDescription": "t1_tse_tra",
        "PatientPosition": "HFS",
        "Manufacturer": "ACME",
        "ManufacturerModelName": "Scanner 3000",
        "InstitutionName": "Uniklinik",
        "SoftwareVersions": "VB17",
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 500,
        "EchoTime": 8.7,
        "EchoTrainLength": 1,
        "SliceThickness": f"{spacing[2]:.6g}",
        "SpacingBetweenSlices": f"{spacing[2]:.6g}",
        "PixelSpacing": [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"],
        "ImageOrientationPatient": [f"{v:.12f}" for v in (axes[:, :2] / spacing[:2]).ravel(order="F")],
        "AcquisitionNumber": 1,
        "Rows": image.shape[1],
        "Columns": image.shape[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        **({} if slope == 1 else {"RescaleSlope": slope, "RescaleIntercept": 0, "RescaleType": "US"}),
        **study(),
        **changes,
    }
    slices = []
    for number in range(image.shape[2]):
        one = pydicom.Dataset()
        for keyword, value in common.items():
            setattr(one, keyword, value)
        one.SOPInstanceUID = generate_uid()
        one.InstanceNumber = number + 1
        one.ImagePositionPatient = [f"{v:.10g}" for v in axes[:, 3] + number * axes[:, 2]]
        one.PixelData = stored[..., number].tobytes(order="F")
        slices.append(one)
    return slices


def write(slices: list[pydicom.Dataset], folder: Path, name: Callable[[int], str] | None = None) -> Path:
    """Write them in files whose names tell nothing about their order, unless ``name`` gives others."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(slices):
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / (name(number) if name else f"{PATIENT_NAME}{(number * 7) % 100:03d}-{number}")
        one.save_as(path, enforce_file_format=True)
    return folder


def thick_head(
    affine: np.ndarray | None = None, shape: tuple[int, int, int] = (24, 28, 8)
) -> nib.Nifti1Image:
    """A made-up head of 5 mm slices."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    values = np.rint(900 * np.clip(1 - sum(g**2 for g in grid), 0, 1)).astype(np.int16)
    values[:4, :4, 1] = 77  # not the same from all sides
    return nib.Nifti1Image(values, np.diag([1, 1, 5, 1.0]) if affine is None else affine)


def result_name(slices: list[pydicom.Dataset]) -> str:
    """What results of a series are called; its description must hold plain words only."""
    one = slices[0]
    digits = sha256(one.SeriesInstanceUID.encode()).hexdigest()[:8]
    return f"{one.SeriesNumber}-{one.SeriesDescription}-{digits}"
