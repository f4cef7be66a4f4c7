"""Derived series: what they say, where they lie, whole or absent; checked by ITK and by dciodvfy."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import itk
import mr_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch

import monai_diffens.data.output_folder as output_folder
from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.dicom.writer import SaveDicomSeriesd, save_series, to_stored
from monai_diffens.data.load_scan import LoadScand

TILTED = np.eye(4)
TILTED[:3, :3] = nib.eulerangles.euler2mat(z=0.3, x=-0.4) * [0.9, 1.1, 1.0]
TILTED[:3, 3] = (12, -34, 5.5)


def source(folder: Path, **changes) -> list[Path]:
    """Write a source series of eight slices; return its files."""
    return sorted(mr_series.write(mr_series.series(mr_series.thick_head(), **changes), folder).iterdir())


def result() -> np.ndarray:
    """Return a result of 12 slices."""
    return mr_series.thick_head(shape=(24, 28, 12)).get_fdata(dtype=np.float32) + 0.25


def read_by_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and RAS+ affine of the one series in a folder, as ITK finds it."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(folder))
    (uid,) = names.GetSeriesUIDs()
    image = itk.imread(list(names.GetFileNames(uid)))
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.asarray(itk.array_from_image(image)).T, np.diag([-1.0, -1, 1, 1]) @ affine


def all_headers(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


@pytest.fixture
def written(tmp_path):
    """Source headers and the headers of a result."""
    files = source(tmp_path / "in")
    folder = save_series(result(), TILTED, files, tmp_path / "out" / "x_sr", model="diffensembler_sr")
    return all_headers(tmp_path / "in"), all_headers(folder)


@pytest.mark.parametrize("flip", [1, -1], ids=["right-handed", "left-handed"])
def test_an_independent_reader_finds_it_in_the_same_place(tmp_path, flip):
    affine = TILTED @ np.diag([1, 1, flip, 1])
    folder = save_series(result(), affine, source(tmp_path / "in"), tmp_path / "x_sr", model="m")
    voxels, found = read_by_itk(folder)
    if flip < 0:  # ITK counts the slices the other way round
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 11], [0, 0, 0, 1]])
    np.testing.assert_allclose(found, affine, atol=1e-5)
    np.testing.assert_array_equal(voxels, np.rint(result())[:, :, ::flip])


def test_identity_of_patient_study_and_place(written):
    before, after = written
    for keyword in {**mr_series.study(), "BodyPartExamined": 0, "PatientPosition": 0, "EchoTime": 0}:
        assert {str(d[keyword].value) for d in after} == {str(before[0][keyword].value)}, keyword
    assert str(after[0].PatientName) == mr_series.PATIENT_NAME


def test_it_is_a_new_series_that_says_what_it_is(written):
    before, after = written
    old = {d.SOPInstanceUID for d in before} | {before[0].SeriesInstanceUID}
    uids = [d.SOPInstanceUID for d in after] + [after[0].SeriesInstanceUID]
    assert len(set(uids)) == 13 and not old & set(uids) and all(uid.is_valid for uid in uids)
    assert [d.InstanceNumber for d in after] == list(range(1, 13))
    for one in after:
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        assert one.SeriesInstanceUID == after[0].SeriesInstanceUID and one.SeriesNumber == 401
        assert list(one.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert one.SeriesDescription == "t1_tse_tra [synthetic, diffensembler_sr 0.1.0]"
        for text in (one.ImageComments, one.DerivationDescription):
            assert "synthetic - not for primary diagnosis" in text
        assert "diffensembler_sr 0.1.0" in one.DerivationDescription and len(one.DerivationDescription) < 1024
        references = {item.ReferencedSOPInstanceUID for item in one.SourceImageSequence}
        assert references == {d.SOPInstanceUID for d in before}
        scanner, ours = one.ContributingEquipmentSequence
        assert (scanner.Manufacturer, ours.ManufacturerModelName) == ("ACME", "Diff-Ensembler")
        assert ours.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
        assert "RescaleSlope" not in one and one.WindowWidth >= 1


def test_a_long_description_leaves_room_for_the_mark(tmp_path):
    files = source(tmp_path / "in", SeriesDescription="x" * 64)
    one = all_headers(save_series(result(), TILTED, files, tmp_path / "x", model="diffensembler_sr"))[0]
    assert len(one.SeriesDescription) == 64
    assert one.SeriesDescription.endswith("xx [synthetic, diffensembler_sr 0.1.0]")


def test_another_contrast_does_not_keep_the_source_s_times(tmp_path):
    files = source(tmp_path / "in")
    folder = save_series(result(), TILTED, files, tmp_path / "x", model="m", new_contrast=True)
    one = all_headers(folder)[0]
    assert one.EchoTime is None and one.RepetitionTime is None and one.ScanningSequence == "RM"
    assert "DerivationCodeSequence" not in one


@pytest.mark.parametrize(
    ("greatest", "slope", "unit"),
    [(900, 1, 1), (900, 0.5, 0.5), (1.5, 0.001, 0.001), (1.5, 1, 1.5 / 32767), (9e4, 1, 9e4 / 32767)],
)
def test_integers_are_neither_clipped_nor_coarse(greatest, slope, unit):
    volume = np.linspace(0, greatest, 1000).reshape(10, 10, 10)
    stored, step = to_stored(volume, slope)
    assert step == pytest.approx(unit) and stored.dtype == np.uint16
    np.testing.assert_allclose(stored * step, volume, atol=step / 2 * 1.001)


def test_values_below_zero_are_kept(tmp_path):
    files, volume = source(tmp_path / "in"), result()
    volume[0, 0, 0] = -300.0
    folder = save_series(volume, TILTED, files, tmp_path / "x", model="m")
    first = min((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda one: one.InstanceNumber)
    assert first.PixelRepresentation == 1
    assert first.pixel_array[0, 0] * float(first.get("RescaleSlope") or 1) == pytest.approx(-300, abs=1)


def test_nothing_but_zeros_can_be_written():
    below = np.array([[[-400.0, 0.0, 900.0]]])
    signed, step = to_stored(below, 1.0)
    assert signed.dtype == np.int16 and step == 1.0 and signed.tolist() == [[[-400, 0, 900]]]
    signed, step = to_stored(100 * below, 1.0)
    assert signed.max() == 32767 and np.abs(signed * step - 100 * below).max() <= step / 2
    stored, step = to_stored(np.zeros((2, 2, 2)), 1.0)
    assert step == 1 and not stored.any()


@pytest.mark.parametrize(
    "changes",
    [{}, {"BodyPartExamined": None}, {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"}],
)
@pytest.mark.parametrize("new_contrast", [False, True])
def test_dciodvfy_finds_no_fault(tmp_path, changes, new_contrast):
    if shutil.which("dciodvfy") is None:
        assert not os.environ.get("DIFFENS_DCIODVFY_REQUIRED"), "dciodvfy is not installed"
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    files = source(tmp_path / "in", **changes)
    folder = save_series(result(), TILTED, files, tmp_path / "x", model="m", new_contrast=new_contrast)
    for file in (folder / "00001.dcm", folder / "00012.dcm"):
        told = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, check=False).stderr
        kind, *lines = told.decode(errors="replace").splitlines()
        if "BodyPartExamined" in changes:  # an empty Laterality is right where the part is not known
            assert [line[:21] for line in lines] == ["Warning - </Lateralit"]
        else:
            assert lines == []
        assert kind == "MRImage"


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    files = source(tmp_path / "in")
    folder = save_series(result(), TILTED, files, tmp_path / "out" / "x", model="m")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(output_folder.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_series(result(), TILTED, files, folder, model="m")
    assert [p.name for p in folder.parent.iterdir()] == ["x"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    monkeypatch.undo()
    save_series(result()[:, :, :7], TILTED, files, folder, model="m")  # replaced as a whole
    assert len(list(folder.iterdir())) == 7 and [p.name for p in folder.parent.iterdir()] == ["x"]


def test_values_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        save_series(result() * np.nan, TILTED, source(tmp_path / "in"), tmp_path / "x", model="m")
    assert not (tmp_path / "x").exists()


def test_the_transform_from_loading_to_writing(tmp_path):
    source(tmp_path / "in")
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    loader = DataLoader(Dataset(cases.items, LoadScand()), batch_size=1)
    (item,) = (decollate_batch(batch)[0] for batch in loader)
    item["pred"] = MetaTensor(item["image"].clone() * 2, meta=dict(item["image"].meta))
    SaveDicomSeriesd(output_dir=tmp_path / "out", model="m")(item)
    voxels, affine = read_by_itk(tmp_path / "out" / f"{item['case']}_sr")
    head = mr_series.thick_head()
    np.testing.assert_array_equal(voxels, head.get_fdata() * 2)
    np.testing.assert_allclose(affine, head.affine, atol=1e-6)
    assert json.loads(item["image"].meta["dicom_files"]) == cases.items[0]["image"]


def test_a_nifti_case_passes(tmp_path):
    image = MetaTensor(np.ones((1, 4, 4, 4), np.float32), meta={"filename_or_obj": "a.nii.gz"})
    SaveDicomSeriesd(output_dir=tmp_path / "out", model="m")({"image": image, "pred": image, "case": "a"})
    assert list(tmp_path.iterdir()) == []
