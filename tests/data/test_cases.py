"""What a file or a folder gives as cases, and what spacing makes of them; on real files."""

from hashlib import sha256

import nibabel as nib
import numpy as np
from thick_scans import cases_with, head, save, stops, write

from monai_diffens.data.cases import CaseFolder


def test_a_single_file(tmp_path, capsys):
    path = save(tmp_path / "scan.nii.gz")
    cases = CaseFolder(path, tmp_path / "out")
    checked = {"image": sha256(path.read_bytes()).hexdigest()}
    assert cases.items == [{"image": str(path), "case": "scan", "warnings": [], "checked": checked}]
    write(cases)
    assert cases.finish() == 0
    assert capsys.readouterr().out.startswith("1 done, 0 skipped")


def test_force_reaches_the_gate(tmp_path):
    path = save(tmp_path / "ct.nii.gz", 2 * head() - 1000)
    assert len(cases_with(CaseFolder, path, tmp_path / "out", force=True).items) == 1


def test_missing_input(tmp_path, capsys):
    assert "no such file or folder" in stops(CaseFolder(tmp_path / "x", tmp_path / "out"), capsys)
    assert "no such file or folder" in stops(CaseFolder("x" * 5000, tmp_path / "out"), capsys)
    assert "no input given" in stops(CaseFolder("", tmp_path / "out"), capsys)


def test_folder_without_volumes(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / ".hidden.nii.gz").write_text("x")
    assert "no NIfTI volume" in stops(CaseFolder(tmp_path / "in", tmp_path / "out"), capsys)


def test_own_results_in_the_input_folder_are_no_inputs(scans):
    (scans / "nan.nii.gz").unlink()
    save(scans / "c_sr.nii.gz")
    write(CaseFolder(scans, scans))
    again = cases_with(CaseFolder, scans, scans, overwrite=True)
    assert [item["case"] for item in again.items] == ["a", "b", "c_sr"]


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
