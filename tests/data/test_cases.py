"""The cases of a run: what is taken, what is rejected, and the exit status; on real files."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import save_volume

ROOT = Path(__file__).parents[2]


def head(shape=(20, 24, 10)) -> np.ndarray:
    """Return an ellipsoid on 0, int16."""
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    return (1000 * np.clip(1 - sum(g**2 for g in grid), 0, 1)).astype(np.int16)


def save(path: Path, array=None, slices=5) -> Path:
    """Write a scan with thick slices, their spacing in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(head() if array is None else array, np.diag([1, 1, slices, 1.0]))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def write(cases: CaseFolder) -> None:
    """Give every case a result."""
    for item in cases.items:
        save_volume(head(), np.eye(4), Path(cases.output_dir) / f"{item['case']}_{cases.suffix}.nii.gz")


@pytest.fixture
def scans(tmp_path) -> Path:
    """Return a folder with two scans and one of NaN."""
    for name in ("b.nii.gz", "a.nii"):
        save(tmp_path / "in" / name)
    save(tmp_path / "in" / "nan.nii.gz", np.full((8, 8, 8), np.nan, np.float32))
    return tmp_path / "in"


def stops(cases: CaseFolder, capsys) -> str:
    """Return the one line with which a run stops at once."""
    with pytest.raises(SystemExit) as stop:
        _ = cases.items
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    return err


def test_a_single_file(tmp_path, capsys):
    path = save(tmp_path / "scan.nii.gz")
    cases = CaseFolder(path, tmp_path / "out")
    assert cases.items == [{"image": str(path), "case": "scan", "warnings": []}]
    write(cases)
    assert cases.finish() == 0
    assert capsys.readouterr().out.startswith("1 done, 0 skipped")


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
    with pytest.raises(SystemExit) as stop:
        cases.finish()
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 done, 0 skipped (result already there), 1 rejected, 0 failed"
    assert lines[1].startswith("rejected: nan.nii.gz: 512 voxels are NaN")


def test_warnings_are_logged_and_passed_on(tmp_path, caplog):
    save(tmp_path / "in" / "a.nii.gz", head()[..., None])
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert "taken as 3D" in cases.items[0]["warnings"][0]
    assert caplog.records[0].message == f"a: {cases.items[0]['warnings'][0]}"


def test_force_reaches_the_gate(tmp_path):
    path = save(tmp_path / "ct.nii.gz", 2 * head() - 1000)
    assert len(CaseFolder(path, tmp_path / "out", force=True).items) == 1


def test_missing_input(tmp_path, capsys):
    assert "no such file or folder" in stops(CaseFolder(tmp_path / "x", tmp_path / "out"), capsys)
    assert "no such file or folder" in stops(CaseFolder("x" * 5000, tmp_path / "out"), capsys)
    assert "no input given" in stops(CaseFolder("", tmp_path / "out"), capsys)


def test_folder_without_volumes(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / ".hidden.nii.gz").write_text("x")
    assert "no NIfTI volume" in stops(CaseFolder(tmp_path / "in", tmp_path / "out"), capsys)


def test_a_single_bad_file_stops_at_once(tmp_path, capsys):
    (tmp_path / "a.nii.gz").touch()
    assert "empty file" in stops(CaseFolder(tmp_path / "a.nii.gz", tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


def test_bad_suffix(tmp_path, capsys):
    save(tmp_path / "a.nii.gz")
    assert "suffix" in stops(CaseFolder(tmp_path / "a.nii.gz", tmp_path / "out", suffix="../x"), capsys)


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
    kept = (tmp_path / "out" / "a_sr.nii.gz").stat()
    (tmp_path / "out" / "b_sr.nii.gz").unlink()
    (tmp_path / "out" / ".part-1-0.nii.gz").write_bytes(b"half")
    second = CaseFolder(scans, tmp_path / "out")
    assert [item["case"] for item in second.items] == ["b"]
    assert [path.name for path in second.skipped] == ["a_sr.nii.gz"]
    write(second)
    assert second.finish() == 0
    assert (tmp_path / "out" / "a_sr.nii.gz").stat() == kept
    assert CaseFolder(scans, tmp_path / "out").items == []
    assert CaseFolder(scans, tmp_path / "out").finish() == 0
    assert len(CaseFolder(scans, tmp_path / "out", overwrite=True).items) == 2


def test_row_32_a_case_whose_map_is_missing_is_worked_on_again(scans, tmp_path):
    out, affine = tmp_path / "out", np.eye(4)
    write(CaseFolder(scans, out))
    save_volume(head(), affine, out / "a_sr_std.nii.gz")
    assert [item["case"] for item in CaseFolder(scans, out, maps=["std"]).items] == ["b"]
    assert [item["case"] for item in CaseFolder(scans, out, maps=["std", "weight-axial"]).items] == ["a", "b"]
    assert CaseFolder(scans, out).items == []


def test_row_32_a_case_without_a_new_result_has_failed(tmp_path, capsys):
    path = save(tmp_path / "a.nii.gz")
    write(CaseFolder(path, tmp_path / "out"))
    for overwrite in (False, True):
        if not overwrite:
            (tmp_path / "out" / "a_sr.nii.gz").rename(tmp_path / "out" / "old")
        else:
            (tmp_path / "out" / "old").rename(tmp_path / "out" / "a_sr.nii.gz")
        cases = CaseFolder(path, tmp_path / "out", overwrite=overwrite)
        assert len(cases.items) == 1
        with pytest.raises(SystemExit):
            cases.finish()
        assert "failed: a: no result was written" in capsys.readouterr().out
    write(cases)
    assert cases.finish() == 0


def test_own_results_in_the_input_folder_are_no_inputs(scans):
    (scans / "nan.nii.gz").unlink()
    save(scans / "c_sr.nii.gz")
    write(CaseFolder(scans, scans))
    again = CaseFolder(scans, scans, overwrite=True)
    assert [item["case"] for item in again.items] == ["a", "b", "c_sr"]


def test_two_inputs_with_one_result_are_rejected(tmp_path):
    for name in ("a.nii", "a.nii.gz", "A.nii.gz", "b.nii.gz"):
        save(tmp_path / "in" / name)
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert [item["case"] for item in cases.items] == ["b"]
    assert len(cases.rejected) == 3
    assert "rename" in cases.rejected[0].reason


def test_bids_folder(tmp_path):
    root = tmp_path / "in"
    wanted = [
        save(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"),
        save(root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_FLAIR.nii.gz"),
    ]
    for other in (
        "sub-01/anat/sub-01_T1w_mask.nii.gz",
        "sub-01/func/sub-01_bold.nii.gz",
        "derivatives/labels/sub-01/anat/sub-01_T1w.nii.gz",
        "stray.nii.gz",
    ):
        save(root / other)
    (root / "dataset_description.json").write_text("{}")
    assert [item["image"] for item in CaseFolder(root, tmp_path / "out").items] == [str(p) for p in wanted]
    subject = CaseFolder(root / "sub-02", tmp_path / "out")
    assert [item["case"] for item in subject.items] == ["sub-02_ses-1_FLAIR"]


def test_row_29_links_out_of_the_folder_are_refused(tmp_path):
    outside = save(tmp_path / "secret.nii.gz")
    inside = save(tmp_path / "in" / "a.nii.gz")
    (inside.parent / "out.nii.gz").symlink_to(outside)
    (inside.parent / "in.nii.gz").symlink_to(inside)
    (inside.parent / "broken.nii.gz").symlink_to(inside.parent / "gone.nii.gz")
    cases = CaseFolder(inside.parent, tmp_path / "results")
    assert [item["case"] for item in cases.items] == ["a", "in"]
    reasons = {entry.path.name: entry.reason for entry in cases.rejected}
    assert "leads out" in reasons["out.nii.gz"] and "no such file" in reasons["broken.nii.gz"]


def test_row_29_case_names_are_sanitised(tmp_path):
    save(tmp_path / "in" / "my scan; $x.nii.gz")
    save(tmp_path / "in" / "b.nii.nii.gz")
    cases = CaseFolder(tmp_path / "in", tmp_path / "out")
    assert [item["case"] for item in cases.items] == ["b", "my_scan___x"]


def test_row_18_slices_too_far_apart_are_rejected_or_told(tmp_path, caplog):
    for spacing in (6, 7, 12):
        save(tmp_path / "in" / f"mm{spacing}.nii.gz", slices=spacing)
    cases = CaseFolder(tmp_path / "in", tmp_path / "out", target_spacing=1.0)
    assert [item["case"] for item in cases.items] == ["mm6", "mm7"]
    assert [len(item["warnings"]) for item in cases.items] == [0, 1]
    assert "beyond the trained 2 to 6" in cases.items[1]["warnings"][0]
    assert cases.rejected[0].reason.startswith("mm12.nii.gz: slices 12 mm apart are 12 target voxels")
    assert len(CaseFolder(tmp_path / "in", tmp_path / "out", target_spacing=2).items) == 3


def test_row_20_nothing_to_do(tmp_path, caplog, capsys):
    path = save(tmp_path / "fine.nii.gz", slices=1)
    cases = CaseFolder(path, tmp_path / "out", target_spacing=1.0)
    with caplog.at_level("INFO", "monai_diffens"):
        assert cases.items == [] and cases.fine == [path]
    assert "fine.nii.gz: nothing to do, its spacing of 1 x 1 x 1 mm" in caplog.text
    assert cases.finish() == 0
    assert "1 with nothing to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert len(CaseFolder(path, tmp_path / "out", target_spacing=0.5).items) == 1


def test_target_spacing_is_along_the_patients_axes(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    image = nib.load(path)
    turned = image.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    turned.to_filename(path)
    assert nib.load(path).header.get_zooms() != (1, 1, 5)
    assert CaseFolder(path, tmp_path / "out", target_spacing=(1, 1, 5)).fine == [path]
    assert CaseFolder(path, tmp_path / "out", target_spacing=(1, 5, 1)).fine == []


@pytest.mark.parametrize("spacing", [0, -1, "x", (1, 2), float("nan")])
def test_bad_target_spacing(tmp_path, capsys, spacing):
    path = save(tmp_path / "a.nii.gz")
    assert "target_spacing" in stops(CaseFolder(path, tmp_path / "out", target_spacing=spacing), capsys)


def bundle_run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the list through MONAI's command line, with a stand-in for the evaluator."""
    config = {
        "input": "",
        "output_dir": str(tmp_path / "out"),
        "cases": {
            "_target_": "monai_diffens.data.cases.CaseFolder",
            "input": "@input",
            "output_dir": "@output_dir",
        },
        "imports": ["$import numpy as np", "$from monai_diffens.data.writer import save_volume"],
        "inference": [
            "$[save_volume(np.ones((4, 4, 4)), np.eye(4), f\"{@output_dir}/{item['case']}_sr.nii.gz\")"
            " for item in @cases.items]",
            "$@cases.finish()",
        ],
    }
    (tmp_path / "inference.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "inference",
        "--config_file",
        "inference.json",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def test_command_line_tells_of_a_bad_file_in_one_line(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(save(tmp_path / "b.nii.gz").read_bytes()[:500])
    result = bundle_run(tmp_path, "--input", "a.nii.gz")
    assert result.returncode == 1
    mine = [line for line in result.stderr.splitlines() if "a.nii.gz: truncated or corrupt" in line]
    assert len(mine) == 1 and result.stderr.splitlines()[-1] == mine[0]
    assert "Traceback" not in result.stderr + result.stdout
    assert not (tmp_path / "out").exists()


def test_command_line_runs_a_folder_and_tells_the_truth(scans, tmp_path):
    result = bundle_run(tmp_path, "--input", str(scans))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    assert "2 done, 0 skipped (result already there), 1 rejected, 0 failed" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_sr.nii.gz", "b_sr.nii.gz"]
