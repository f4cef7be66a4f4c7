"""The list of a run's cases: checked once, rejected one by one, written once; on real files."""

import os
import tempfile

import numpy as np
import pytest
from thick_scans import cases_with, head, save, stops, write

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.output_folder import stamp
from monai_diffens.data.writer import save_volume
from monai_diffens.messages import say


def test_nothing_happens_before_items_are_asked_for(tmp_path):
    CaseFolder(tmp_path / "missing", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_items_are_checked_once(scans, tmp_path):
    cases = CaseFolder(scans, tmp_path / "out")
    assert cases.items is cases.items


def test_one_bad_case_never_stops_the_others(scans, tmp_path, caplog, capsys):
    cases = CaseFolder(str(scans), str(tmp_path / "out"))
    assert [item["case"] for item in cases.items] == ["a", "b"]
    assert not (tmp_path / "out").exists()
    assert [entry.path.name for entry in cases.rejected] == ["nan.nii.gz"]
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "rejected: " + cases.rejected[0].reason
    ]
    write(cases)
    assert cases.finish() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 done, 0 skipped (result already there), 1 rejected, 0 failed"
    assert lines[1].startswith("rejected: nan.nii.gz: 512 voxels are NaN")


def test_warnings_are_logged_and_passed_on(tmp_path, caplog):
    save(tmp_path / "in" / "a.nii.gz", head()[..., None])
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert "taken as 3D" in cases.items[0]["warnings"][0]
    assert caplog.records[0].message == f"a: {cases.items[0]['warnings'][0]}"


def test_a_single_bad_file_stops_at_once(tmp_path, capsys):
    (tmp_path / "a.nii.gz").touch()
    assert "empty file" in stops(CaseFolder(tmp_path / "a.nii.gz", tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


def test_bad_suffix(tmp_path, capsys):
    save(tmp_path / "a.nii.gz")
    assert "suffix" in stops(
        cases_with(CaseFolder, tmp_path / "a.nii.gz", tmp_path / "out", suffix="../x"), capsys
    )


def test_row_31_output_folder_that_cannot_be_made(tmp_path, capsys):
    save(tmp_path / "a.nii.gz")
    (tmp_path / "file").touch()
    for folder in ("file", "file/deeper"):
        assert "cannot write" in stops(CaseFolder(tmp_path / "a.nii.gz", tmp_path / folder), capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_row_31_read_only_output_folder(tmp_path, capsys):
    save(tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir(mode=0o500)
    assert "cannot write" in stops(CaseFolder(tmp_path / "a.nii.gz", tmp_path / "out"), capsys)


def test_row_31_full_or_read_only_disk(tmp_path, capsys, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    line = stops(CaseFolder(save(tmp_path / "a.nii.gz"), tmp_path / "out"), capsys)
    assert "No space left on device" in line and "free space" in line


def test_row_32_rerun_does_only_what_is_missing(scans, tmp_path):
    (scans / "nan.nii.gz").unlink()
    first = CaseFolder(scans, tmp_path / "out")
    write(first)
    kept = stamp(tmp_path / "out" / "a_sr.nii.gz")
    (tmp_path / "out" / "b_sr.nii.gz").unlink()
    (tmp_path / "out" / ".part-1-0.nii.gz").write_bytes(b"half")
    second = CaseFolder(scans, tmp_path / "out")
    assert [item["case"] for item in second.items] == ["b"]
    assert [path.name for path in second.skipped] == ["a_sr.nii.gz"]
    write(second)
    assert second.finish() == 0
    assert stamp(tmp_path / "out" / "a_sr.nii.gz") == kept
    assert CaseFolder(scans, tmp_path / "out").items == []
    assert CaseFolder(scans, tmp_path / "out").finish() == 0
    assert len(cases_with(CaseFolder, scans, tmp_path / "out", overwrite=True).items) == 2


def test_row_32_a_case_whose_map_is_missing_is_worked_on_again(scans, tmp_path):
    out, affine = tmp_path / "out", np.eye(4)
    write(CaseFolder(scans, out))
    save_volume(head(), affine, out / "a_sr_std.nii.gz")
    assert [item["case"] for item in cases_with(CaseFolder, scans, out, maps=["std"]).items] == ["b"]
    assert [
        item["case"] for item in cases_with(CaseFolder, scans, out, maps=["std", "weight-axial"]).items
    ] == ["a", "b"]
    assert CaseFolder(scans, out).items == []


def test_row_32_a_case_without_a_new_result_has_failed(tmp_path, capsys):
    path = save(tmp_path / "a.nii.gz")
    write(CaseFolder(path, tmp_path / "out"))
    for overwrite in (False, True):
        if not overwrite:
            (tmp_path / "out" / "a_sr.nii.gz").rename(tmp_path / "out" / "old")
        else:
            (tmp_path / "out" / "old").rename(tmp_path / "out" / "a_sr.nii.gz")
        cases = cases_with(CaseFolder, path, tmp_path / "out", overwrite=overwrite)
        assert len(cases.items) == 1
        assert cases.finish() == 1
        assert "failed: a: no result was written" in capsys.readouterr().out
        assert cases.failures == {"a": say("no_result", name="a")}  # for the index and the table too
    cases = cases_with(CaseFolder, path, tmp_path / "out", overwrite=True)
    assert len(cases.items) == 1
    write(cases)
    assert cases.finish() == 0


def test_two_inputs_with_one_result_are_rejected(tmp_path):
    for name in ("a.nii", "a.nii.gz", "A.nii.gz", "b.nii.gz"):
        save(tmp_path / "in" / name)
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert [item["case"] for item in cases.items] == ["b"]
    assert len(cases.rejected) == 3
    assert "rename" in cases.rejected[0].reason


@pytest.mark.parametrize("spacing", [0, -1, "x", (1, 2), float("nan")])
def test_bad_target_spacing(tmp_path, capsys, spacing):
    path = save(tmp_path / "a.nii.gz")
    assert "target_spacing" in stops(CaseFolder(path, tmp_path / "out", target_spacing=spacing), capsys)
