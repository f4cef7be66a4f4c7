"""What is taken for a DICOM series, and what is refused with its positions; on real DICOM files."""

import os

import mr_series
import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import CTImageStorage, RLELossless
from thick_scans import stops

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.dicom.gate import check_series
from monai_diffens.data.dicom.series import find_series
from monai_diffens.messages import InputRejected

TILTED = np.eye(4)
TILTED[:3, :3] = nib.eulerangles.euler2mat(z=0.3, x=-0.4) * [0.9, 1.1, 5]
TILTED[:3, 3] = (12, -34, 5.5)


@pytest.fixture
def slices():
    """Eight slices, 5 mm apart, at 0 to 35 mm along their normal."""
    return mr_series.series(mr_series.thick_head())


def refused(slices, folder) -> str:
    """Return the line with which these slices are refused."""
    found, problems, _ = find_series(mr_series.write(slices, folder))
    assert len(found) == 1 and problems == []
    with pytest.raises(InputRejected) as stop:
        check_series(found[0])
    line = str(stop.value)
    assert line.startswith(found[0].name + ": ") and "\n" not in line
    assert all(told not in line for told in ("Müller", "4711", str(folder)))
    return line


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([0.9, 1.1, 5, 1]),
        TILTED,
        np.array([[0, 0, 5, -20], [-1.1, 0, 0, 9], [0, -0.9, 0, 8], [0, 0, 0, 1.0]]),  # sagittal
        np.array([[-0.9, 0, 0, 9], [0, 0, -5.0, 9], [0, 1.1, 0, 7], [0, 0, 0, 1]]),  # stacked to the back
    ],
    ids=["axial", "oblique", "sagittal", "coronal"],
)
def test_geometry_and_order_of_the_files(affine, tmp_path):
    image = mr_series.thick_head(affine)
    (found,), *_ = find_series(mr_series.write(mr_series.series(image), tmp_path / "in"))
    files, checked = check_series(found)
    numbers = [int(file.name.rsplit("-", 1)[1]) for file in files]
    assert numbers in (list(range(8)), list(range(7, -1, -1)))
    if numbers[0]:  # the other way round: the same places, counted from the other end
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 7], [0, 0, 0, 1]])
    np.testing.assert_allclose(checked.affine, affine, atol=1e-6)
    assert checked.shape == image.shape and checked.warnings == () and checked.slice_axis == 2
    np.testing.assert_allclose(checked.zooms, nib.affines.voxel_sizes(affine), atol=1e-6)


def test_row_27_a_gap(slices, tmp_path):
    line = refused(slices[:3] + slices[4:], tmp_path)
    assert "missing or unevenly spaced, from 10 to 20 mm along the slice axis (5 mm apart elsewhere)" in line


def test_row_27_uneven_slices(slices, tmp_path):
    slices[5].ImagePositionPatient[2] = 26.0
    assert "from 20 to 26, 26 to 30 mm along" in refused(slices, tmp_path)


def test_positions_rounded_by_the_scanner_are_no_gap(slices, tmp_path):
    for number, one in enumerate(slices):
        one.ImagePositionPatient[2] = 5 * number + 0.02 * (number % 2)
    (found,), *_ = find_series(mr_series.write(slices, tmp_path))
    assert check_series(found)[1].zooms[2] == pytest.approx(5, abs=0.01)


def test_row_27_duplicates(slices, tmp_path):
    again = mr_series.series(mr_series.thick_head(), SeriesInstanceUID=slices[0].SeriesInstanceUID)
    for one in again:  # a second time point, then all of the same study
        one.StudyInstanceUID, one.FrameOfReferenceUID = (
            slices[0].StudyInstanceUID,
            slices[0].FrameOfReferenceUID,
        )
    assert "2 slices lie where another does, at 5, 15 mm along" in refused(
        slices + [again[1], again[3]], tmp_path / "two"
    )
    assert "8 slices lie where another does, at 0, 5, 10, 15, 20 and 3 more mm" in refused(
        slices + again, tmp_path / "all"
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
        ("PixelSpacing", [2, 2]),
        ("EchoTime", 90),
        ("PatientID", "someone else"),
        ("StudyInstanceUID", "1.2.3"),
        ("FrameOfReferenceUID", "1.2.3"),
    ],
)
def test_row_27_mixed_series(slices, tmp_path, attribute, value):
    for one in slices[2:4]:
        setattr(one, attribute, value)
    line = refused(slices, tmp_path)
    assert f"mixed series, 2 of 8 slices differ from the others in {attribute}, at 10, 15 mm along" in line


def test_several_series_in_one_folder_are_told_apart(slices, tmp_path):
    mr_series.write(slices, tmp_path)
    mr_series.write(mr_series.series(mr_series.thick_head(TILTED)), tmp_path, lambda n: f"IM{n}")
    found, problems, _ = find_series(tmp_path)
    assert problems == [] and [len(one.files) for one in found] == [8, 8]
    assert {one.name for one in found} > {mr_series.result_name(slices)}
    assert [check_series(one)[1].shape for one in found] == [(24, 28, 8)] * 2


def test_slices_that_do_not_stack_straight(slices, tmp_path):
    for number, one in enumerate(slices):
        one.ImagePositionPatient[0] = 0.5 * number
    assert "do not stack straight" in refused(slices, tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, "modality CT, an MR series is needed"),
        ({"Modality": "PID4711"}, "modality unknown"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "neither MR nor Enhanced MR"),
        ({"NumberOfFrames": 8}, "a multi-frame file that is not Enhanced MR"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "neither MR nor Enhanced MR"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient is missing or unusable"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is missing or unusable"),
        ({"PixelSpacing": [500, 1]}, "which is not a head"),
        ({"RescaleSlope": 1, "RescaleIntercept": -1000}, "as in CT"),
    ],
)
def test_what_is_no_mr_stack(tmp_path, changes, told):
    assert told in refused(mr_series.series(mr_series.thick_head(), **changes), tmp_path)


def test_a_constant_series(tmp_path):
    flat = nib.Nifti1Image(np.full((24, 28, 8), 7, np.int16), TILTED)
    assert "every voxel has the value 7" in refused(mr_series.series(flat), tmp_path)


def test_a_single_slice(slices, tmp_path):
    assert "a 2D image" in refused(slices[:1], tmp_path)


def test_pixels_cut_off(slices, tmp_path):
    folder = mr_series.write(slices, tmp_path, lambda n: f"{n}.dcm")
    whole = (folder / "3.dcm").read_bytes()
    (folder / "3.dcm").write_bytes(whole[:-500])
    (found,), *_ = find_series(folder)
    with pytest.raises(InputRejected, match="844 bytes of pixels where the header's size and bits need 1344"):
        check_series(found)


def test_compressed_pixels(slices, tmp_path):
    folder = mr_series.write(slices, tmp_path / "plain", lambda n: f"{n}.dcm")
    for number, one in enumerate(slices):
        one.compress(RLELossless, generate_instance_uid=False)
        one.save_as(tmp_path / f"{number}.rle", enforce_file_format=True)
    (plain,), *_ = find_series(folder)
    both, *_ = find_series(tmp_path)
    assert len(both[0].files) == 16
    for file in folder.iterdir():
        file.unlink()
    (packed,), *_ = find_series(tmp_path)
    assert packed.name == plain.name and check_series(packed)[1].shape == (24, 28, 8)


# Runs over a folder


def test_a_folder_of_series(slices, tmp_path, caplog, capsys):
    study = tmp_path / "in" / mr_series.PATIENT_NAME
    mr_series.write(slices, study / "good")
    gap = mr_series.series(mr_series.thick_head(TILTED))
    mr_series.write(gap[:2] + gap[3:], study / "gap")
    cases = CaseFolder(tmp_path / "in", tmp_path / "in" / "out", target_spacing=1.0)
    (item,) = cases.items
    assert item["case"] == mr_series.result_name(slices) and item["warnings"] == []
    assert [os.path.basename(f).rsplit("-", 1)[1] for f in item["image"]] == [str(n) for n in range(8)]
    assert [str(entry.path) for entry in cases.rejected] == [mr_series.result_name(gap)]
    assert cases.finish() == 1  # one refused, one without a result
    told = capsys.readouterr()
    assert "missing or unevenly spaced" in told.out
    for text in (told.out, told.err, caplog.text):
        assert "Müller" not in text and "4711" not in text


def test_one_bad_series_stops_with_one_line(slices, tmp_path, capsys):
    mr_series.write(slices[:3] + slices[4:], tmp_path / "in")
    stops(CaseFolder(tmp_path / "in", tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


def test_results_and_reports_are_left_out(slices, tmp_path, caplog):
    caplog.set_level("INFO", "monai_diffens")
    mr_series.write(slices, tmp_path / "in" / "source")
    ours = mr_series.series(mr_series.thick_head(TILTED), ManufacturerModelName="Diff-Ensembler")
    mr_series.write(ours, tmp_path / "in" / "result")
    report = mr_series.series(mr_series.thick_head(TILTED))[0]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"  # a structured report
    del report.Rows, report.PixelData
    mr_series.write([report], tmp_path / "in" / "report")
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert [item["case"] for item in cases.items] == [mr_series.result_name(slices)]
    assert cases.rejected == []
    assert f"{mr_series.result_name(ours)}: left out, it is a result" in caplog.text


def test_without_pydicom_one_line_says_what_to_install(slices, tmp_path, monkeypatch):
    mr_series.write(slices, tmp_path)
    monkeypatch.setattr("monai_diffens.data.dicom.series.has_pydicom", False)
    with pytest.raises(InputRejected, match=r"pip install 'monai-diffens\[dicom\]'"):
        find_series(tmp_path)
