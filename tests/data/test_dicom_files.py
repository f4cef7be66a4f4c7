"""No file is left out in silence: without a preamble, empty, cut, unreadable, hidden, behind a link."""

import os
import stat

import mr_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    generate_uid,
)

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.dicom.gate import check_series, load_series
from monai_diffens.data.dicom.series import find_series, is_dicom, masked
from monai_diffens.data.dicom.writer import save_series
from monai_diffens.messages import InputRejected, say

HEAD = mr_series.thick_head()


@pytest.fixture
def folder(tmp_path):
    """A folder with eight slices, 0.dcm to 7.dcm."""
    return mr_series.write(mr_series.series(HEAD), tmp_path / "in", lambda number: f"{number}.dcm")


def refused(folder) -> str:
    """Return the line with which the one series of a folder is refused."""
    (series,), problems, _ = find_series(folder)
    assert problems == []
    with pytest.raises(InputRejected) as stop:
        check_series(series)
    return str(stop.value)


def bare(file, syntax=ExplicitVRLittleEndian):
    """Write a file again without its preamble and its meta header, in another transfer syntax."""
    dataset = pydicom.dcmread(file)
    if not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    del dataset.file_meta
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    with file.open("wb") as opened:
        pydicom.dcmwrite(opened, dataset, implicit_vr=implicit, little_endian=little)


def without_preamble(file, syntax=None):
    """Take the 128 bytes and the mark away; the meta header stays."""
    file.write_bytes(file.read_bytes()[132:])


# 03: files without the preamble


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize(
    ("strip", "syntax"),
    [
        (without_preamble, None),
        (bare, ExplicitVRLittleEndian),
        (bare, ImplicitVRLittleEndian),
        (bare, ExplicitVRBigEndian),
    ],
    ids=["no-preamble", "bare-explicit", "bare-implicit", "bare-big-endian"],
)
def test_files_without_a_preamble_are_slices_like_others(folder, count, strip, syntax):
    for number in range(8 - count, 8):  # the last ones: their absence would leave no gap
        strip(folder / f"{number}.dcm", syntax)
    (series,), problems, notes = find_series(folder)
    assert problems == notes == []
    np.testing.assert_array_equal(load_series(series).voxels, HEAD.get_fdata())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00",
        b"\x08\x00\x05\x00not an element at all",
        bytes(200),
        b"\x5c\x01\x00\x00" + bytes(348),
        b"\x08\x00\x03\x00\x12\x34\x56\x78" * 4,
    ],
)
def test_what_only_looks_like_dicom_is_not_taken_for_it(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    series, problems, _ = find_series(tmp_path)
    assert series == [] and len(problems) <= 1
    assert is_dicom(tmp_path / "x") == bool(problems)  # begins like it and cannot be read: told


# 15: empty, cut, unreadable


@pytest.mark.parametrize("number", [0, 4, 7])
@pytest.mark.parametrize("left", [0, 1, 100, 131, 140, 300, 700, -1, -1000, -1344])
def test_a_cut_file_stops_its_series(folder, number, left):
    file = folder / f"{number}.dcm"
    file.write_bytes(file.read_bytes()[:left])
    line = refused(folder)
    assert line.startswith("4-t1_tse_tra-")


@pytest.mark.parametrize("ending", [".dcm", "", ".IMA"])
def test_an_empty_file_is_named(tmp_path, ending):
    folder = mr_series.write(mr_series.series(HEAD), tmp_path, lambda number: f"IM{number:04d}{ending}")
    (folder / f"IM0007{ending}").write_bytes(b"")
    assert f"1 (IM0007{ending})" in refused(folder)


def test_zeros_where_a_file_was_are_named(folder):
    size = (folder / "7.dcm").stat().st_size
    (folder / "7.dcm").write_bytes(bytes(size))
    assert "1 (7.dcm)" in refused(folder)


def test_names_that_may_be_a_patient_s_are_not_shown(tmp_path):
    folder = mr_series.write(mr_series.series(HEAD), tmp_path)  # named after the patient
    for number in (6, 7):
        (folder / f"{mr_series.PATIENT_NAME}{(number * 7) % 100:03d}-{number}").write_bytes(b"")
    line = refused(folder)
    assert "2 (*042-6, *049-7)" in line and "ller" not in line and "nne" not in line


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("IM0012.dcm", "IM0012.dcm"),
        ("Doe^Jane-19610217-3.dcm", "*-3.dcm"),
        ("1.3.12.2.1107.5.2.32.dcm", "1.3.12.2.*.5.2.32.dcm"),
        ("slice_007", "slice_007"),
        ("Meier.Hans", "*"),
        ("geheim.pdf", "*.pdf"),
    ],
)
def test_what_is_shown_of_a_name(tmp_path, name, shown):
    assert masked(tmp_path / name) == shown


@pytest.mark.parametrize("name", ["3.dcm", "7.dcm"])
def test_an_unreadable_file_stops_its_series(folder, monkeypatch, name):
    real = type(folder).open

    def open_(path, *args, **kwargs):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(type(folder), "open", open_)
    assert f"1 ({name})" in refused(folder)


def test_a_whole_series_beside_a_broken_one_goes_on(folder, tmp_path):
    other = mr_series.series(HEAD, SeriesNumber=5)
    mr_series.write(other, folder, lambda number: f"IM{number:03d}")  # one folder, told apart by their names
    (folder / "IM007").write_bytes(b"")
    cases = CaseFolder(folder, tmp_path / "out")
    assert [item["case"][:2] for item in cases.items] == ["4-"]
    assert [str(entry.path) for entry in cases.rejected] == [mr_series.result_name(other)]


def test_a_damaged_header_stops_the_series_beside_it(folder, caplog):
    (folder / "bad").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    assert "1 (*)" in refused(folder)
    assert caplog.text == ""  # pydicom would show the path


def test_a_damaged_file_alone_in_its_folder_is_told_and_the_rest_goes_on(folder, tmp_path):
    (folder / "sub").mkdir()
    (folder / "sub" / "9.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    cases = CaseFolder(folder, tmp_path / "out")
    assert len(cases.items) == 1 and len(cases.rejected) == 1 and "9.dcm" in cases.rejected[0].reason


def closed(monkeypatch, name):
    """Make a folder of this name one that cannot be listed."""
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_closed_folder_below_a_series_stops_it(folder, monkeypatch):
    (folder / "part2").mkdir()
    closed(monkeypatch, "part2")
    assert "1 (*2)" in refused(folder)


def test_a_closed_folder_beside_the_folders_of_a_series_stops_it(tmp_path, monkeypatch):
    slices = mr_series.series(HEAD)
    for part in range(3):
        mr_series.write(slices[3 * part : 3 * part + 3], tmp_path / f"part{part}")
    closed(monkeypatch, "part2")
    assert "1 (*2)" in refused(tmp_path)


def test_a_closed_folder_elsewhere_is_told(folder, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    closed(monkeypatch, "other")
    (series,), problems, _ = find_series(tmp_path)
    assert check_series(series)[1].shape == (24, 28, 8)
    assert len(problems) == 1 and "1 (*)" in problems[0]


def test_links_that_lead_out_stop_their_series(folder, tmp_path):
    (folder / "7.dcm").rename(tmp_path / "elsewhere.dcm")
    (folder / "7.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    assert "1 (7.dcm)" in refused(folder)


def test_links_that_lead_nowhere_stop_their_series(folder):
    (folder / "7.dcm").unlink()
    (folder / "7.dcm").symlink_to(folder / "gone.dcm")
    assert "1 (7.dcm)" in refused(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("VERSION", b"2.0\n"),
        ("readme.txt", b""),
        ("LOCK", b"pid 12"),
        ("scan.json", b"{}"),
        ("x.bin", b"\1" * 500),
    ],
)
def test_other_files_beside_slices_do_not_stop_them(folder, name, content):
    (folder / name).write_bytes(content)
    (series,), problems, notes = find_series(folder)
    assert problems == [] and len(notes) == 1 and check_series(series)[1].shape == (24, 28, 8)


def test_what_is_left_out_is_counted(folder, tmp_path, caplog):
    caplog.set_level("INFO", "monai_diffens")
    (folder / "7.dcm").replace(folder / ".hidden.dcm")
    (folder / "notes.txt").write_text("hello")
    (folder / ".complete").write_text("")
    report = mr_series.series(HEAD)[0]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    del report.Rows, report.PixelData
    mr_series.write([report], folder / "report")
    _, problems, notes = find_series(folder)
    assert problems == [] and len(notes) == 3
    assert len(CaseFolder(folder, tmp_path / "out").items) == 1
    for line in notes:
        assert line in caplog.text


@pytest.mark.parametrize("beside", [True, False])
def test_the_list_of_a_disc_is_no_slice(folder, tmp_path, beside):
    """A DICOMDIR, as at the top of every disc: its data set names neither a class nor a series."""
    listing = pydicom.Dataset()
    listing.FileSetID, listing.DirectoryRecordSequence = "DISC", [pydicom.Dataset()]
    listing.file_meta = pydicom.dataset.FileMetaDataset()
    listing.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    listing.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    listing.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    listing.save_as((folder if beside else tmp_path) / "DICOMDIR", enforce_file_format=True)
    (series,), problems, notes = find_series(tmp_path)
    assert problems == [] and notes == [say("dicom_no_image", files="1 (*)")]
    assert len(check_series(series)[0]) == 8


def test_dicom_beside_nifti_is_told(folder, tmp_path, caplog):
    nib.save(HEAD, folder / "a.nii.gz")
    cases = CaseFolder(folder, tmp_path / "out")
    assert [item["case"] for item in cases.items] == ["a"]
    assert "8 DICOM files beside NIfTI" in caplog.text


def test_the_output_folder_is_looked_into_for_inputs(folder, tmp_path):
    cases = CaseFolder(tmp_path, folder)  # results would go beside the source: it is an input all the same
    assert len(cases.items) == 1


# 25: whatever a file holds, one line


@pytest.mark.parametrize("seed", range(40))
def test_bytes_changed_anywhere_never_crash(folder, tmp_path, seed):
    rng = np.random.default_rng(seed)
    file = folder / f"{seed % 8}.dcm"
    broken = bytearray(file.read_bytes())
    for place in rng.integers(0, min(len(broken), 1400), 6):
        broken[place] = rng.integers(256)
    file.write_bytes(bytes(broken))
    cases = CaseFolder(folder, tmp_path / "out")
    try:
        told = [entry.reason for entry in [*cases.rejected]] + [str(item["case"]) for item in cases.items]
    except InputRejected as stop:
        assert len(str(stop).splitlines()) == 1
        return
    assert all(len(line.splitlines()) == 1 for line in told)


# 33: who may read a result


def test_a_derived_series_is_its_owner_s_alone(folder, tmp_path):
    before = os.umask(0o022)
    try:
        files = sorted(folder.iterdir())
        out = save_series(HEAD.get_fdata(), HEAD.affine, files, tmp_path / "out" / "x_sr", model="m")
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()} == {0o600}
