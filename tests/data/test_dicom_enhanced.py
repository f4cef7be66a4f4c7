"""Enhanced multi-frame MR: its frames are slices like others."""

import mr_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.dicom.gate import check_series, load_series
from monai_diffens.data.dicom.reader import ENHANCED_MR
from monai_diffens.data.dicom.series import find_series
from monai_diffens.data.dicom.study import study_table
from monai_diffens.data.dicom.writer import SaveDicomSeriesd
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.messages import InputRejected

TILTED = np.eye(4)
TILTED[:3, :3] = nib.eulerangles.euler2mat(z=0.3, x=-0.2) @ np.diag([0.9, 1.1, 5])
TILTED[:3, 3] = (12, -34, 5.5)
HEAD = mr_series.thick_head(TILTED)


def item(**attributes) -> Sequence:
    """A sequence of one item."""
    one = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return Sequence([one])


def enhanced(slices: list[pydicom.Dataset], order: list[int]) -> pydicom.Dataset:
    """One multi-frame dataset of the slices of a classic series, in this order."""
    whole = pydicom.Dataset()
    first = slices[0]
    moved = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime")
    for element in first:
        if element.keyword not in (*moved, "SpacingBetweenSlices", "PixelData", "ScanningSequence"):
            whole.add(element)
    whole.SOPClassUID, whole.NumberOfFrames = ENHANCED_MR, len(order)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=first.ImageOrientationPatient)
    shared.PixelMeasuresSequence = item(
        PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness, SpacingBetweenSlices=5
    )
    shared.MREchoSequence = item(EffectiveEchoTime=8.7)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number in order:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=slices[number].ImagePositionPatient)
        frame.PixelValueTransformationSequence = item(RescaleSlope=number + 1, RescaleIntercept=-2)
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.PixelData = b"".join(slices[number].PixelData for number in order)
    return whole


def write(dataset: pydicom.Dataset, folder):
    folder.mkdir(parents=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(folder / "multi.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def multi():
    return enhanced(mr_series.series(HEAD), [3, 0, 7, 1, 2, 5, 4, 6])


def test_frames_in_any_order_are_one_stack(multi, tmp_path):
    (series,), problems, _ = find_series(write(multi, tmp_path / "in"))
    files, checked = check_series(series)
    assert problems == [] and [file.name for file in files] == ["multi.dcm"]
    np.testing.assert_allclose(checked.affine, TILTED, atol=1e-6)
    expected = HEAD.get_fdata() * np.arange(1, 9) - 2  # each frame has its own slope
    np.testing.assert_array_equal(load_series(series).voxels, expected)
    assert load_series(series).stack.thickness == 5


@pytest.mark.parametrize("single", [True, False], ids=["file", "folder"])
def test_from_the_file_to_the_derived_series(multi, tmp_path, single):
    folder = write(multi, tmp_path / "in")
    (one,) = CaseFolder(folder / "multi.dcm" if single else folder, tmp_path / "out", target_spacing=1).items
    loaded = LoadScand()(one)
    np.testing.assert_allclose(loaded["image"].affine, TILTED, atol=1e-6)
    loaded["pred"] = MetaTensor(loaded["image"].clip(0), meta=dict(loaded["image"].meta))
    SaveDicomSeriesd(output_dir=tmp_path / "out", model="m")(loaded)
    (back,) = find_series(tmp_path / "out").series
    assert back.is_result and check_series(back)[1].shape == (24, 28, 8)
    header = pydicom.dcmread(back.files[0])
    assert header.SourceImageSequence[0].ReferencedSOPClassUID == ENHANCED_MR
    assert "PerFrameFunctionalGroupsSequence" not in header and header.SOPClassUID != ENHANCED_MR


def test_it_has_a_row_in_the_table(multi, tmp_path):
    (row,) = study_table(write(multi, tmp_path / "in"))
    assert row.slices == 8 and row.verdict == "structural" and row.thickness == 5 and row.contrast == "T1w"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda multi: setattr(multi, "NumberOfFrames", 9),
        lambda multi: setattr(multi, "NumberOfFrames", 7),
        lambda multi: multi.PerFrameFunctionalGroupsSequence.pop(),
        lambda multi: delattr(multi, "PerFrameFunctionalGroupsSequence"),
        lambda multi: delattr(multi.SharedFunctionalGroupsSequence[0], "PlaneOrientationSequence"),
        lambda multi: delattr(multi.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence"),
        lambda multi: setattr(multi, "PixelData", multi.PixelData[:-100]),
        lambda multi: setattr(
            multi.PerFrameFunctionalGroupsSequence[4],
            "PlanePositionSequence",
            multi.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence,
        ),
    ],
)
def test_frames_that_make_no_stack_are_refused_in_one_line(multi, tmp_path, spoil):
    spoil(multi)
    (series,), *_ = find_series(write(multi, tmp_path / "in"))
    with pytest.raises(InputRejected) as stop:
        check_series(series)
    assert len(str(stop.value).splitlines()) == 1
