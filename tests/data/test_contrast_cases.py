"""Cases of several contrasts: found by name, checked against each other, rejected in one line."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from thick_scans import cases_with, stops

from monai_diffens.contrasts import contrast_of
from monai_diffens.data.contrast_cases import ContrastCases, find_contrasts
from monai_diffens.messages import say


def write(path: Path, shift: float = 0.0, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[0, 3] = shift
    values = np.random.default_rng(0).integers(1, 300, (12, 10, 8)).astype(np.int16)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def cases(input: Path, tmp_path: Path, **options) -> ContrastCases:
    return cases_with(ContrastCases, input, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w.nii.gz", ("T1w", "sub-01")),
        ("sub-01_ses-2_acq-mprage_T1w.nii", ("T1w", "sub-01_ses-2_acq-mprage")),
        ("sub-01_ce-gadolinium_T1w.nii.gz", ("ce-gadolinium_T1w", "sub-01")),
        ("sub-01_ce-gadobutrol_T1w.nii.gz", ("ce-gadolinium_T1w", "sub-01")),
        ("T2w.nii.gz", ("T2w", "")),
        ("sub-01_FLAIR.nii", ("FLAIR", "sub-01")),
        ("sub-01_T1C.nii.gz", ("ce-gadolinium_T1w", "sub-01")),
        ("sub-01_T9w.nii.gz", None),
        ("sub-01_PDw.nii.gz", None),
        ("sub-01_t1w.nii.gz", ("T1w", "sub-01")),
    ],
)
def test_contrast_by_name(name, expected):
    assert contrast_of(Path(name)) == expected


def test_a_folder_of_case_folders(tmp_path):
    root = tmp_path / "in"
    write(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    write(root / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    write(root / "sub-01" / "anat" / "sub-01_desc-synthetic_FLAIR.nii.gz")
    write(root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_ce-gadolinium_T1w.nii.gz")
    write(root / "plain" / "T2w.nii")
    run = cases(root, tmp_path)
    assert [(item["case"], item["sources"]) for item in run.items] == [
        ("plain", ["T2w.nii"]),
        ("sub-01", ["sub-01_T1w.nii.gz", "sub-01_FLAIR.nii.gz"]),
        ("sub-02_ses-1", ["sub-02_ses-1_ce-gadolinium_T1w.nii.gz"]),
    ]
    assert set(run.items[1]) == {"T1w", "FLAIR", "case", "warnings", "sources", "checked"}
    assert run.finish() == 1  # no result was written


def test_one_case_folder(tmp_path):
    write(tmp_path / "in" / "sub-07_T2w.nii.gz")
    write(tmp_path / "in" / "sub-07_T9w.nii.gz")
    (item,) = cases(tmp_path / "in", tmp_path).items
    assert item["case"] == "sub-07" and item["sources"] == ["sub-07_T2w.nii.gz"]
    assert item["warnings"] == [say("contrast_ignored", file="sub-07_T9w.nii.gz")]


def test_a_case_named_with_other_signs_is_written_under_a_plain_name(tmp_path):
    write(tmp_path / "x.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps([{"case": "patient 1", "T1w": "x.nii.gz"}]))
    assert [item["case"] for item in cases(tmp_path / "list.json", tmp_path).items] == ["patient_1"]


def test_a_data_list(tmp_path):
    first, second = write(tmp_path / "a" / "x.nii.gz"), write(tmp_path / "b" / "sub-03_FLAIR.nii.gz")
    entries = [{"case": "one", "T1w": "a/x.nii.gz"}, {"FLAIR": str(second)}]
    for name, content in (("plain", entries), ("monai", {"testing": entries})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        items = cases(path, tmp_path).items
        assert [(item["case"], item["sources"]) for item in items] == [
            ("one", [first.name]),
            ("sub-03", [second.name]),
        ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "list.json: not JSON; a data list is a JSON list"),
        ("[]", "list.json: no list of cases in it"),
        ('[{"case": "a", "T3w": "x.nii"}]', "a: unknown contrast 'T3w'; did you mean T"),
        ('[{"case": "a"}]', "a: no contrast that can be used, found nothing, expected one of T1w"),
        ('[{"case": "a", "T1w": "none.nii"}]', "none.nii: no such file"),
        *(
            (json.dumps([{"case": case, "T1w": "none.nii"}]), f"case name {case!r}: not a plain file name")
            for case in ("../evil", "/evil", "a/b", "..", ".hidden", "a\\b")
        ),
    ],
)
def test_bad_data_lists(tmp_path, capsys, content, line):
    (tmp_path / "list.json").write_text(content)
    assert line in stops(cases(tmp_path / "list.json", tmp_path), capsys)


@pytest.mark.parametrize(
    ("files", "options", "line"),
    [
        (["sub-01_T9w.nii.gz"], {}, "sub-01_T9w.nii.gz, expected one of T1w, ce-gadolinium_T1w, T2w, FLAIR"),
        (["sub-01_T1w.nii.gz", "sub-01_acq-b_T1w.nii.gz"], {}, "are both T1w: keep one"),
        (["sub-01_T1w.nii.gz"], {"leave_out": ["T1w"]}, "expected one of ce-gadolinium_T1w, T2w, FLAIR"),
    ],
)
def test_row_23_no_usable_contrast(tmp_path, capsys, files, options, line):
    for name in files:
        write(tmp_path / "in" / name)
    assert line in stops(cases(tmp_path / "in", tmp_path, **options), capsys)
    assert not (tmp_path / "out").exists()


def test_a_contrast_is_left_out(tmp_path):
    for contrast in ("T1w", "T2w"):
        write(tmp_path / "in" / f"sub-01_{contrast}.nii.gz")
    (item,) = cases(tmp_path / "in", tmp_path, leave_out=["T1w"]).items
    assert item["sources"] == ["sub-01_T2w.nii.gz"] and "T1w" not in item


def test_row_24_contrasts_that_do_not_lie_on_each_other(tmp_path, capsys):
    write(tmp_path / "in" / "sub-01_T1w.nii.gz")
    write(tmp_path / "in" / "sub-01_T2w.nii.gz", shift=4.0)
    assert len(cases(tmp_path / "in", tmp_path).items) == 1  # shares two thirds
    write(tmp_path / "in" / "sub-01_T2w.nii.gz", shift=9.0)
    line = stops(cases(tmp_path / "in", tmp_path), capsys)
    assert "sub-01: T1w and T2w share 25 % of the smaller one" in line


def test_a_bad_case_never_stops_the_others(tmp_path, capsys):
    write(tmp_path / "in" / "a" / "sub-01_T1w.nii.gz")
    write(tmp_path / "in" / "b" / "sub-02_T1w.nii.gz").write_bytes(b"")
    write(tmp_path / "in" / "c" / "sub-03_T9w.nii.gz")
    write(tmp_path / "in" / "d" / "sub-04_T1w.nii.gz")
    write(tmp_path / "in" / "e" / "sub-04_T2w.nii.gz")
    run = cases(tmp_path / "in", tmp_path)
    assert [item["case"] for item in run.items] == ["sub-01"]
    reasons = sorted(entry.reason for entry in run.rejected)
    assert [reason.split(":")[0] for reason in reasons] == ["c", "sub-02_T1w.nii.gz", "sub-04", "sub-04"]
    assert "2 inputs would all be written as sub-04_desc-synthetic_FLAIR.nii.gz" in reasons[-1]


def test_a_link_out_of_the_folder_is_rejected(tmp_path):
    outside = write(tmp_path / "elsewhere" / "x.nii.gz")
    write(tmp_path / "in" / "a" / "sub-01_T1w.nii.gz")
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "b" / "sub-02_T1w.nii.gz").symlink_to(outside)
    run = cases(tmp_path / "in", tmp_path)
    assert [entry.reason.split(";")[0] for entry in run.rejected] == [
        "sub-02_T1w.nii.gz: a link that leads out of the input folder"
    ]


def test_names_of_files_only_never_folders(tmp_path):
    write(tmp_path / "in" / "a" / "sub-01_T1w.nii.gz")
    found = find_contrasts(tmp_path / "in")
    assert [(case.case, case.problem, case.unknown) for case in found] == [("sub-01", "", [])]
