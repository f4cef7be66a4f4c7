"""A result as a derived DICOM series beside the NIfTI file: whole or absent, marked as synthetic.

Headers are after DICOM PS3.3: MR Image IOD (A.4), General Image and its derivation attributes (C.7.6.1), SOP
Common with Contributing Equipment (C.12.1). SyntheticData (0008,001C) would say it too, but validators and
archives of before 2022 take it for an error. Private attributes are not taken over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_diffens.data.dicom.reader import MR_IMAGE, pydicom, quiet_pydicom, read_header
from monai_diffens.data.dicom.series import MODEL_NAME
from monai_diffens.data.load_scan import DICOM_FILES
from monai_diffens.data.writer import output_path
from monai_diffens.files import folder_whole_or_absent, package_version

MANUFACTURER = "monai-diffens"
NOTICE = "synthetic - not for primary diagnosis"
LONGEST_LO = 64  # characters of a Long String
LONGEST_IS = 2**31 - 1

PATIENT_GROUPS = (0x0010, 0x0012)  # all of the Patient, Patient Study and Clinical Trial modules
STUDY = """
    StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber IssuerOfAccessionNumberSequence
    StudyDescription ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName ConsultingPhysicianIdentificationSequence
    PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
    NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
    RequestingService RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence
    ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence
    AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID ServiceEpisodeDescription
    ReasonForVisit ReasonForVisitCodeSequence SpecificCharacterSet TimezoneOffsetFromUTC
""".split()
SERIES = """
    FrameOfReferenceUID PositionReferenceIndicator PatientPosition BodyPartExamined Laterality ProtocolName
    RequestAttributesSequence AnatomicRegionSequence
    LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
""".split()
ACQUISITION = """
    AcquisitionDate AcquisitionTime AcquisitionDateTime AcquisitionNumber
    ContrastBolusAgent ContrastBolusAgentSequence ContrastBolusRoute ContrastBolusAdministrationRouteSequence
    ContrastBolusVolume ContrastBolusStartTime ContrastBolusStopTime ContrastBolusTotalDose
    ContrastBolusIngredient ContrastBolusIngredientConcentration ContrastFlowRate ContrastFlowDuration
    MRAcquisitionType MagneticFieldStrength ImagedNucleus ImagingFrequency ReceiveCoilName TransmitCoilName
""".split()
CONTRAST = """
    ScanningSequence SequenceVariant ScanOptions SequenceName AngioFlag RepetitionTime EchoTime EchoNumbers
    EchoTrainLength InversionTime FlipAngle NumberOfAverages DiffusionBValue
""".split()
# Must be there, empty where not known.
TYPE_2 = """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber
    ReferringPhysicianName PositionReferenceIndicator ScanOptions MRAcquisitionType RepetitionTime EchoTime
    EchoTrainLength
""".split()
EQUIPMENT = """
    Manufacturer InstitutionName InstitutionAddress StationName InstitutionalDepartmentName
    ManufacturerModelName DeviceSerialNumber SoftwareVersions
""".split()


def derived_headers(
    sources: Sequence[Any],
    affine: np.ndarray,
    shape: Sequence[int],
    *,
    unit: float,
    window: Sequence[float],
    model: str,
    new_contrast: bool = False,
) -> Iterator[Any]:
    """One header a slice, without pixels.

    Args:
        sources: full headers of all source images (``pydicom.Dataset``).
        affine: (4, 4) of the result, voxel index to RAS+ mm; the last axis runs through the slices.
        shape: (columns, rows, slices).
        unit: source units of one stored unit.
        window: least and greatest stored value to show.
        model: name of the model.
        new_contrast: leave out what describes the source's contrast.

    Yields:
        ``pydicom.Dataset`` of Explicit VR Little Endian, 16 bits unsigned.
    """
    common = _common(sources, model, unit, new_contrast)
    # back to DICOM's axes: left, back, head
    axes = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(affine, dtype=float)[:3]
    spacing = np.linalg.norm(axes[:, :3], axis=0)
    common.ImageOrientationPatient = _decimals((axes[:, :2] / spacing[:2]).T.ravel())
    common.PixelSpacing = _decimals([spacing[1], spacing[0]])
    common.SliceThickness = common.SpacingBetweenSlices = _decimals([spacing[2]])[0]
    common.Columns, common.Rows = int(shape[0]), int(shape[1])
    low, high = (round(float(value)) for value in window)
    common.WindowWidth = max(1, high - low)
    common.WindowCenter = (low + high) // 2
    for number in range(int(shape[2])):
        header = pydicom.Dataset(common)  # shares the elements; only new ones are added
        header.SOPInstanceUID = pydicom.uid.generate_uid(prefix=None)
        header.InstanceNumber = number + 1
        header.ImagePositionPatient = _decimals(axes[:, 3] + number * axes[:, 2])
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        yield header


def _common(sources: Sequence[Any], model: str, unit: float, new_contrast: bool) -> Any:
    """What all images of the result hold alike."""
    first, now = sources[0], datetime.now()
    version = package_version()
    header = pydicom.Dataset()
    for group in PATIENT_GROUPS:
        for element in first.group_dataset(group):
            header[element.tag] = deepcopy(element)
    _copy(first, header, STUDY + SERIES)
    _copy(first, header, (keyword for keyword in ACQUISITION if _uniform(sources, keyword)))

    header.SOPClassUID = MR_IMAGE
    header.Modality = "MR"
    header.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    header.SeriesInstanceUID = pydicom.uid.generate_uid(prefix=None)
    header.SeriesNumber = _series_number(first)
    mark = f"[synthetic, {model} {version}]"
    told = str(first.get("SeriesDescription") or "")
    header.SeriesDescription = f"{told[: LONGEST_LO - len(mark) - 1].strip()} {mark}".strip()[:LONGEST_LO]
    header.ImageComments = f"{NOTICE}; for research use only"
    header.DerivationDescription = (
        f"{NOTICE}; computed by the model {model} {version} ({MODEL_NAME}) from all {len(sources)} images "
        f"of the source series; stored values times {unit:.6g} are the source's units; research use only"
    )
    header.SourceImageSequence = [_source(source) for source in sources]
    if not new_contrast:
        header.DerivationCodeSequence = [_code("113085", "Spatial resampling")]
    header.SeriesDate = header.ContentDate = header.InstanceCreationDate = now.strftime("%Y%m%d")
    header.SeriesTime = header.ContentTime = header.InstanceCreationTime = now.strftime("%H%M%S")

    header.Manufacturer, header.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    header.DeviceSerialNumber = model
    header.SoftwareVersions = version
    header.ContributingEquipmentSequence = [*_equipment(first), _ours(model, version, now)]

    header.ScanningSequence, header.SequenceVariant = "RM", "NONE"  # RM: research mode
    if not new_contrast:
        _copy(first, header, (keyword for keyword in CONTRAST if _uniform(sources, keyword)))
    for keyword in TYPE_2:
        header.setdefault(keyword, None)
    if not header.get("BodyPartExamined"):
        header.setdefault("Laterality", None)  # then it cannot be told that no side is needed
    if not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = pydicom.uid.generate_uid(prefix=None)

    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.BurnedInAnnotation = "NO"
    return header


def _copy(source: Any, target: Any, keywords: Iterable[str]) -> None:
    for keyword in keywords:
        if keyword in source:
            target[keyword] = deepcopy(source[keyword])


def _uniform(sources: Sequence[Any], keyword: str) -> bool:
    """Whether an attribute has one value in the whole source series."""
    return all(source.get(keyword) == sources[0].get(keyword) for source in sources)


def _decimals(values: Iterable[float]) -> list[Any]:
    """Decimal Strings: at most 16 characters each."""
    return [pydicom.valuerep.DSfloat(float(value), auto_format=True) for value in values]


def _series_number(source: Any) -> int:
    """The source's with 01 behind it, so that the result is listed next to it."""
    number = source.get("SeriesNumber")
    derived = int(number) * 100 + 1 if isinstance(number, int) else 1
    return derived if 0 < derived <= LONGEST_IS else 1


def _code(value: str, meaning: str) -> Any:
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _source(source: Any) -> Any:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
    item.SpatialLocationsPreserved = "NO"
    return item


def _equipment(source: Any) -> list[Any]:
    """The scanner, and what the source itself names as having contributed."""
    items = [deepcopy(item) for item in source.get("ContributingEquipmentSequence") or []]
    if source.get("Manufacturer"):
        scanner = pydicom.Dataset()
        _copy(source, scanner, EQUIPMENT)
        scanner.PurposeOfReferenceCodeSequence = [_code("109101", "Acquisition Equipment")]
        items.insert(0, scanner)
    return items


def _ours(model: str, version: str, now: datetime) -> Any:
    item = pydicom.Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = MANUFACTURER, MODEL_NAME, version
    item.DeviceSerialNumber = model
    item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = f"Image synthesis by {model}; {NOTICE}"
    return item


LARGEST = 2**16 - 1
COARSEST = 255  # with fewer grey values than this, one source unit is too coarse a step
FULL = 2**15 - 1  # the greatest value where the source's own unit does not serve
WINDOW_PERCENTILES = (1.0, 99.5)


def to_stored(volume: np.ndarray, unit: float) -> tuple[np.ndarray, float]:
    """Round a volume to 16-bit integers, so that no rescale slope is needed to show it.

    MR images have no rescale slope in DICOM, and many viewers do not apply one.

    Args:
        volume: (X, Y, Z), any unit.
        unit: the preferred step: the source's rescale slope, so that equal brightness is stored alike.

    Returns:
        (X, Y, Z) uint16, int16 where a value is below 0, and the step taken: ``unit``, unless values would be
        clipped or hardly differ; then the value furthest from 0 becomes 32767.
    """
    signed = bool((np.rint(volume / unit) < 0).any())
    furthest = float(np.abs(volume).max()) if signed else float(volume.max())
    if not COARSEST <= furthest / unit <= (FULL if signed else LARGEST):
        unit = furthest / FULL if furthest > 0 else 1.0
    stored = np.rint(volume / unit)
    return stored.astype(np.int16) if signed else stored.clip(min=0).astype(np.uint16), unit


def save_series(
    volume: np.ndarray,
    affine: np.ndarray,
    sources: Sequence[Path],
    folder: Path,
    *,
    model: str,
    new_contrast: bool = False,
) -> Path:
    """Write a derived MR series, one slice of the last axis a file.

    The folder appears in one step, whole, and only its owner may read it.

    Args:
        volume: (X, Y, Z) in the source's rescaled units.
        affine: (4, 4), voxel index to RAS+ mm.
        sources: files of the source series, all of them.
        folder: made by this function; one that is there is replaced.
        model: name of the model, for the descriptions.
        new_contrast: the result shows another contrast than the source: its echo and repetition times are
            not taken over.

    Returns:
        ``folder``.

    Raises:
        ValueError: values are not finite.
        OSError: a file could not be written; ``folder`` is as it was.
    """
    if not np.isfinite(volume).all():
        raise ValueError(f"{folder.name}: the result holds NaN or infinite values, nothing was written")
    headers = [read_header(source) for source in sources]
    slopes = {float(header.get("RescaleSlope") or 1) for header in headers}
    stored, unit = to_stored(volume, slopes.pop() if len(slopes) == 1 else 1.0)
    foreground = stored[stored > 0]
    window = np.percentile(foreground, WINDOW_PERCENTILES).tolist() if foreground.size else [0.0, 1.0]
    with folder_whole_or_absent(folder) as part, quiet_pydicom():
        derived = derived_headers(
            headers, affine, stored.shape, unit=unit, window=window, model=model, new_contrast=new_contrast
        )
        for number, header in enumerate(derived, 1):
            # Fortran's order puts columns (X) next to each other and then rows (Y), as DICOM does
            header.PixelRepresentation = int(stored.dtype == np.int16)
            header.PixelData = (
                stored[..., number - 1].astype(stored.dtype.newbyteorder("<")).tobytes(order="F")
            )
            header.save_as(part / f"{number:05d}.dcm", enforce_file_format=True)
    return folder


class SaveDicomSeriesd(MapTransform):
    """Write ``pred`` as a derived DICOM series where its source is one; other cases pass.

    ``data[key]`` is a ``MetaTensor`` (1, X, Y, Z) in the source's units and axes. The series is a folder
    ``<output_dir>/<case>_<suffix>/``; ``case`` is ``data["case"]``, else the source's name in the metadata.
    Put it before :class:`~monai_diffens.data.writer.SaveVolumed`, so that a NIfTI result under its final name
    tells that the DICOM series is there too.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        output_dir: str | PathLike[str],
        model: str,
        source_key: str = "image",
        suffix: str = "sr",
        new_contrast: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        """Remember where and how to write.

        Args:
            keys: one result; each key's would take the same folder.
            output_dir: where the folders go.
            model: name of the model, for the descriptions.
            source_key: the volume that was loaded from the source series.
            suffix: of the folders' names.
            new_contrast: as of :func:`save_series`.
            allow_missing_keys: skip absent keys.
        """
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"one key is needed, got {self.keys}")
        self.output_dir, self.suffix, self.model = Path(str(output_dir)), str(suffix), model
        self.source_key, self.new_contrast = source_key, new_contrast

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Write one case; ``data`` is returned unchanged.

        Raises:
            ValueError: an item has not exactly one channel, or as :func:`save_series`.
            InputRejected: the case name could lead out of the output folder.
        """
        out = dict(data)
        for key in self.key_iterator(out):
            meta = out[self.source_key].meta
            if not meta.get(DICOM_FILES):
                continue
            volume: MetaTensor = out[key]
            if volume.ndim != 4 or volume.shape[0] != 1:
                raise ValueError(f"{key}: shape (1, X, Y, Z) is needed, got {tuple(volume.shape)}")
            case = str(out.get("case") or meta["filename_or_obj"])
            target = output_path(self.output_dir, case, self.suffix)
            save_series(
                volume.as_tensor()[0].detach().cpu().float().numpy(),
                np.asarray(volume.affine, dtype=float),
                [Path(file) for file in json.loads(meta[DICOM_FILES])],
                target.with_name(target.name.removesuffix(".nii.gz")),
                model=self.model,
                new_contrast=self.new_contrast,
            )
        return out
