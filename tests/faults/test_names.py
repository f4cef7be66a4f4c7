"""Faults 02, 17, 25, 36, 38 and their kinds: names are read as entities, and nothing is left out unnamed."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from nifti_files import head, save

from monai_diffens.contrasts import contrast_of
from monai_diffens.data.cases import CaseFolder, is_anatomical
from monai_diffens.data.contrast_cases import ContrastCases, find_contrasts
from monai_diffens.data.writer import save_volume
from monai_diffens.messages import InputRejected, say
from tests.data.thick_scans import cases_with, stops

ENHANCED = "ce-gadolinium_T1w"
NAMES = {
    # BIDS, the contrast agent anywhere
    "sub-05_ce-gadolinium_run-1_T1w": (ENHANCED, "sub-05_run-1"),
    "sub-06_acq-mprage_ce-gadolinium_rec-norm_run-1_T1w": (ENHANCED, "sub-06_acq-mprage_rec-norm_run-1"),
    "sub-07_ce-gadolinium_T1w": (ENHANCED, "sub-07"),
    "ce-gadobutrol_sub-01_T1w": (ENHANCED, "sub-01"),
    "sub-01_ce-none_T1w": ("T1w", "sub-01"),
    "sub-01_ce-None_run-1_T1w": ("T1w", "sub-01_run-1"),
    "sub-01_ses-2_CE-Gad_echo-1_T1W": (ENHANCED, "sub-01_ses-2_echo-1"),
    "sub-01_ce-gadolinium_run-2_FLAIR": ("FLAIR", "sub-01_ce-gadolinium_run-2"),
    # an entity's value is no contrast
    "sub-T1w_FLAIR": ("FLAIR", "sub-T1w"),
    "sub-01_acq-T1w_T2w": ("T2w", "sub-01_acq-T1w"),
    "sub-flair": None,
    "sub-01_acq-t1": None,
    "sub-01_T1w_desc-brain": None,
    "sub-01_part-phase_T1w": None,
    "sub-01_part-mag_T1w": ("T1w", "sub-01_part-mag"),
    # upper and lower case
    "study1_T1W": ("T1w", "study1"),
    "STUDY1_t1w": ("T1w", "STUDY1"),
    "x_Flair": ("FLAIR", "x"),
    # BraTS
    "BraTS-GLI-00001-000-t1n": ("T1w", "BraTS-GLI-00001-000"),
    "BraTS-GLI-00001-000-t1c": (ENHANCED, "BraTS-GLI-00001-000"),
    "BraTS-GLI-00001-000-t2w": ("T2w", "BraTS-GLI-00001-000"),
    "BraTS-GLI-00001-000-t2f": ("FLAIR", "BraTS-GLI-00001-000"),
    "BraTS20_Training_001_t1": ("T1w", "BraTS20_Training_001"),
    "BraTS20_Training_001_t1ce": (ENHANCED, "BraTS20_Training_001"),
    "case7_t1gd": (ENHANCED, "case7"),
    "case7-T2": ("T2w", "case7"),
    "flair": ("FLAIR", ""),
    # other things
    "sub-01_T1w_brain": None,
    "sub-01_PDw": None,
    "sub-01_T1wx": None,
    "BraTS-GLI-00001-000-seg": None,
}


@pytest.mark.parametrize(("name", "told"), NAMES.items())
@pytest.mark.parametrize("ending", [".nii.gz", ".NII"])
def test_02_36_contrast_by_name(name, told, ending):
    assert contrast_of(Path(name + ending)) == told


def test_02_plain_and_enhanced_of_one_run_are_one_case(tmp_path):
    for name in ("sub-05_run-1_T1w", "sub-05_ce-gadolinium_run-1_T1w"):
        save(tmp_path / f"{name}.nii.gz")
    (case,) = find_contrasts(tmp_path)
    assert set(case.files) == {"T1w", ENHANCED} and case.case == "sub-05_run-1" and case.problem == ""


def test_02_two_subjects_in_one_folder_are_two_cases(tmp_path):
    for name in ("sub-01_T1w", "sub-01_FLAIR", "sub-10_T2w", "sub-01_ses-2_T1w"):
        save(tmp_path / f"{name}.nii.gz")
    found = {case.case: sorted(case.files) for case in find_contrasts(tmp_path)}
    assert found == {"sub-01": ["FLAIR", "T1w"], "sub-10": ["T2w"], "sub-01_ses-2": ["T1w"]}


def test_36_brats_folders(tmp_path):
    for patient in ("BraTS-GLI-00001-000", "BraTS-GLI-00002-000"):
        for contrast in ("t1n", "t1c", "t2w", "t2f", "seg"):
            save(tmp_path / patient / f"{patient}-{contrast}.nii.gz")
    cases = find_contrasts(tmp_path)
    assert [case.case for case in cases] == ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000"]
    assert all(len(case.files) == 4 and len(case.unknown) == 1 for case in cases)


@pytest.mark.parametrize("names", [("study1_T1W", "study1_T2W"), ("scan_t1", "scan_flair"), ("a_T1w",)])
def test_36_patients_whose_files_have_one_name_do_not_clash(tmp_path, names):
    for patient in ("P1", "P2"):
        for name in names:
            save(tmp_path / patient / f"{name}.nii.gz")
    cases = ContrastCases(tmp_path, tmp_path / "out").items
    shared = names[0].split("_")[0]
    assert [item["case"] for item in cases] == [f"P1_{shared}", f"P2_{shared}"]


def test_36_sessions_of_one_name_do_not_clash(tmp_path):
    for patient in ("sub-1", "sub-2"):
        save(tmp_path / patient / "ses-1" / "anat" / "T1w.nii.gz")
    assert [case.case for case in find_contrasts(tmp_path)] == ["sub-1_ses-1", "sub-2_ses-1"]


def test_36_an_unknown_name_is_told_with_the_names_that_are_known(tmp_path):
    save(tmp_path / "study1_T1W.nii.gz")
    save(tmp_path / "study1_T1X.nii.gz")
    (item,) = ContrastCases(tmp_path, tmp_path / "out").items
    assert say("contrast_ignored", file="study1_T1X.nii.gz") in item["warnings"]
    assert "t1n" in say("contrast_ignored", file="x") and "T1w" in say("contrast_ignored", file="x")


def test_17_a_synthetic_image_of_another_program_is_named(tmp_path):
    save(tmp_path / "sub-01_T2w.nii.gz")
    save(tmp_path / "sub-01_desc-synthetic_T1w.nii.gz")
    save_volume(head(), np.eye(4), tmp_path / "sub-01_desc-synthetic_FLAIR.nii.gz")
    (case,) = find_contrasts(tmp_path)
    assert list(case.files) == ["T2w"] and case.unknown == ["sub-01_desc-synthetic_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("names", "options", "alone"),
    [
        (["FLAIR"], {}, True),
        (["FLAIR", "T1w"], {"leave_out": ["T1w"]}, True),
        (["FLAIR", "T1w"], {}, False),
        (["T1w"], {}, False),
        (["FLAIR", "T1w"], {"leave_out": ["FLAIR"]}, False),
    ],
)
def test_38_the_target_alone_is_told(tmp_path, names, options, alone):
    for name in names:
        save(tmp_path / "in" / f"sub-01_{name}.nii.gz")
    (item,) = cases_with(ContrastCases, tmp_path / "in", tmp_path / "out", **options).items
    assert (say("target_alone", target="FLAIR") in item["warnings"]) is alone


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_25_a_link_is_no_second_contrast(tmp_path, capsys, link):
    save(tmp_path / "in" / "sub-01_T1w.nii.gz")
    getattr(tmp_path / "in" / "sub-01_T2w.nii.gz", link)(tmp_path / "in" / "sub-01_T1w.nii.gz")
    assert say("same_file", names="T1w, T2w") in stopped(tmp_path / "in", capsys, tmp_path)


@pytest.mark.parametrize("folder", ["sub-01", "sub-01/anat"])
def test_36_a_scan_in_the_folder_of_another_subject(tmp_path, capsys, folder):
    save(tmp_path / "in" / folder / "sub-02_T1w.nii.gz")
    line = say("other_subject", name="sub-02_T1w.nii.gz", folder="sub-01")
    assert line in stopped(tmp_path / "in", capsys, tmp_path)


def test_25_a_case_may_be_called_0(tmp_path):
    save(tmp_path / "x_T1w.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps([{"case": 0, "T1w": "x_T1w.nii.gz"}]))
    (item,) = ContrastCases(tmp_path / "list.json", tmp_path / "out").items
    assert item["case"] == "0"


LISTS = {
    "a path of 5,000 characters": ([{"T1w": "x" * 5000}], "missing"),
    "many folders": ([{"T1w": "a/" * 3000 + "x.nii"}], "missing"),
    "a null byte": ([{"T1w": "a\0.nii"}], "bad_path"),
    "a list": ([{"T1w": ["x.nii"]}], "bad_path"),
    "an object": ([{"T1w": {"path": "x.nii"}}], "bad_path"),
    "a number": ([{"T1w": 3}], "bad_path"),
    "true": ([{"T1w": True}], "bad_path"),
    "half a surrogate": ([{"T1w": "\ud800.nii"}], "missing"),
    "a case of an object": ([{"case": {"a": 1}, "T1w": "x.nii"}], "bad_case"),
    "a case with a null byte": ([{"case": "a\0b", "T1w": "x.nii"}], "bad_case"),
    "nulls": ([{"T1w": None}], "no_contrast"),
    "a case that is true": ([{"case": True, "T1w": "x.nii"}], "bad_case"),
    "one file for two contrasts": ([{"T1w": "x.nii", "T2w": "./x.nii"}], "same_file"),
}


def stopped(path: Path, capsys, tmp_path) -> str:
    line = stops(ContrastCases(path, tmp_path / "out"), capsys)
    assert len(line) < 1500
    return line


@pytest.mark.parametrize(("content", "key"), LISTS.values(), ids=LISTS)
def test_25_a_data_list_of_wrong_values(tmp_path, capsys, content, key):
    (tmp_path / "list.json").write_text(json.dumps(content))
    words = {
        "missing": "no such file",
        "bad_path": "must be the path of a file",
        "bad_case": "not a plain file name",
        "no_contrast": "found nothing",
        "same_file": "the same file",
    }
    assert words[key] in stopped(tmp_path / "list.json", capsys, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"\xff\xfe[]",
        b"",
        b"nan",
        b'[{"T1w": "a.nii"}',
        b"[1]",
        b'{"testing": 3}',
        b'[{"T1w": "a_T1w.nii.gz", "T1w": "b_T1w.nii.gz"}]',
    ],
)
def test_25_a_data_list_that_is_none(tmp_path, capsys, content):
    (tmp_path / "list.json").write_bytes(content)
    assert "data list is a JSON list" in stopped(tmp_path / "list.json", capsys, tmp_path)


def test_25_a_data_list_with_a_byte_order_mark_is_read(tmp_path):
    save(tmp_path / "a_T1w.nii.gz")
    (tmp_path / "list.json").write_bytes(b'\xef\xbb\xbf[{"T1w": "a_T1w.nii.gz", "case": 7}]')
    assert [item["case"] for item in ContrastCases(tmp_path / "list.json", tmp_path / "out").items] == ["7"]


@pytest.mark.parametrize("given", ["x" * 5000, "a\0b", "a/" * 3000])
def test_25_an_input_of_a_name_that_cannot_be(tmp_path, capsys, given):
    for kind in (CaseFolder, ContrastCases):
        stops(kind(given, tmp_path / "out"), capsys)


@pytest.mark.parametrize("neighbour", ["a_srx", "a_sr_left", "a_sr", "a_sr_std", "a_sr-2"])
def test_17_a_scan_named_like_a_result_is_looked_at(tmp_path, neighbour):
    for name in ("a", neighbour):
        save(tmp_path / f"{name}.nii.gz")
    cases = CaseFolder(tmp_path, tmp_path)
    told = [item["case"] for item in cases.items] + [entry.path.name for entry in cases.rejected]
    wanted = (
        ["a", neighbour] if neighbour != "a_sr" else ["a_sr", "a.nii.gz"]
    )  # it lies where a's result goes
    assert told == wanted


def test_17_own_results_and_their_maps_are_left_out_and_counted(tmp_path, caplog):
    save(tmp_path / "a.nii.gz")
    for name in ("a_sr", "a_sr_std", "a_sr_weight-axial"):
        save_volume(head(), np.eye(4), tmp_path / f"{name}.nii.gz")
    caplog.set_level(logging.INFO)
    assert [item["case"] for item in cases_with(CaseFolder, tmp_path, tmp_path, overwrite=True).items] == [
        "a"
    ]
    assert say("own_results", count=3) in caplog.messages


def test_17_what_lies_beside_the_scans_is_named_and_in_the_summary(tmp_path, caplog, capsys):
    save(tmp_path / "in" / "a.nii.gz")
    for name in ("b.mgz", "c.dcm", "d.nii.gz.part", "notes.txt", "a.json", ".hidden.nii.gz"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in" / "more").mkdir()
    run = CaseFolder(tmp_path / "in", tmp_path / "in" / "out")
    assert len(run.items) == 1
    told = [say("not_nifti", count=3, names="b.mgz, c.dcm, d.nii.gz.part"), say("not_looked_into", count=1)]
    assert run.left_out == told and [m for m in caplog.messages if m in told] == told
    assert run.finish() == 1
    assert capsys.readouterr().out.splitlines()[-2:] == told


def test_17_other_volumes_of_a_bids_folder_are_named(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    for name in ("sub-01_T1W", "sub-01_dseg", "sub-01_part-phase_T1w", "sub-01_run-1_flair"):
        save(anat / f"{name}.nii.gz")
    (tmp_path / "dataset_description.json").write_text("{}")
    run = CaseFolder(tmp_path, tmp_path / "out")
    assert [item["case"] for item in run.items] == ["sub-01_T1W", "sub-01_run-1_flair"]
    names = "sub-01_dseg.nii.gz, sub-01_part-phase_T1w.nii.gz"
    assert run.left_out == [say("not_anatomical", count=2, names=names)]
    assert not is_anatomical(Path("sub-01_bold.nii.gz"))


def test_17_a_folder_that_cannot_be_read_is_said_so(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(InputRejected, match="Permission denied"):
        find_contrasts(tmp_path)
