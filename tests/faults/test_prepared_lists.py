"""Fault 30 and its kind: what prepare writes is a list that the next step takes."""

import json

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.data.prepare import hold_out, prepare_cases, prepare_volumes
from monai_diffens.data.training_volumes import training_cases, training_volumes
from monai_diffens.messages import InputRejected, say


def volume(path, seed: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(1, 900, (20, 22, 18)).astype(np.int16)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


@pytest.mark.parametrize("subjects", [2, 3, 4, 5])
def test_30_a_folder_of_few_subjects(tmp_path, subjects):
    for number in range(subjects):
        volume(tmp_path / "in" / f"sub-{number}" / "anat" / f"sub-{number}_T1w.nii.gz", number)
    listed = prepare_volumes(tmp_path / "in", tmp_path / "out")
    counts = [len(training_volumes("", split, listed)) for split in ("train", "val")]
    assert sum(counts) == subjects and min(counts) >= 1


@pytest.mark.parametrize("count", [2, 3, 7])
def test_30_a_list_of_volumes_for_training_alone(tmp_path, count, capsys):
    items = [{"label": str(volume(tmp_path / f"v{n}.nii.gz", n)), "subject": f"s{n}"} for n in range(count)]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    listed = prepare_volumes("", tmp_path / "out", tmp_path / "list.json")
    (held,) = training_volumes("", "val", listed)
    assert held["subject"] == f"s{count - 1}" and len(training_volumes("", "train", listed)) == count - 1
    assert say("held_out", name=held["subject"]) in capsys.readouterr().out


def test_30_splits_that_leave_none_to_validate_on(tmp_path):
    for number in range(3):
        volume(tmp_path / f"sub-{number}" / "anat" / f"sub-{number}_T1w.nii.gz", number)
    rows = "".join(f"sub-{number}\ttrain\n" for number in range(3))
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\n" + rows)
    listed = prepare_volumes(tmp_path, tmp_path / "out")
    assert [item["subject"] for item in training_volumes("", "val", listed)] == ["sub-2"]


def test_30_cases_of_several_contrasts(tmp_path):
    for number in range(2):
        for contrast in ("T1w", "FLAIR"):
            name = f"sub-{number}_{contrast}.nii.gz"
            volume(tmp_path / f"sub-{number}" / "anat" / name, 10 * number + len(contrast))
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-0\ttrain\nsub-1\ttrain\n")
    listed = prepare_cases(tmp_path, tmp_path / "out")
    assert [len(training_cases("", split, listed)) for split in ("train", "val")] == [1, 1]


def test_30_cases_that_lie_side_by_side_in_one_folder(tmp_path):
    for number in range(3):
        for contrast in ("T1w", "FLAIR"):
            volume(tmp_path / "in" / f"sub-{number}_{contrast}.nii.gz", 10 * number + len(contrast))
    listed = prepare_cases(tmp_path / "in", tmp_path / "out")
    assert [len(training_cases("", split, listed)) for split in ("train", "val")] == [2, 1]


def test_30_one_subject_cannot_do_and_is_told_why(tmp_path, capsys):
    for contrast in ("T1w", "T2w", "FLAIR"):
        volume(tmp_path / "sub-0" / "anat" / f"sub-0_{contrast}.nii.gz", len(contrast) + ord(contrast[1]))
    prepare_volumes(tmp_path, tmp_path / "out")
    assert say("nothing_to_validate") in capsys.readouterr().out


def test_30_an_empty_section_tells_what_to_do(tmp_path):
    (tmp_path / "list.json").write_text('{"training": [{"label": "x.nii"}], "validation": []}')
    with pytest.raises(InputRejected) as stop:
        training_volumes("", "val", tmp_path / "list.json")
    assert str(stop.value) == say("empty_section", name="list.json", section="validation")


def test_30_the_last_sharp_volume_stays_in_training():
    sharp, blurred = {"subject": "a"}, {"subject": "b", "sharp_plane": "axial"}
    held, _ = hold_out({"training": [sharp, blurred], "validation": [], "test": []})
    assert held == {"training": [sharp], "validation": [blurred], "test": []}
    held, notes = hold_out({"training": [blurred, sharp], "validation": [], "test": []})
    assert held["validation"] == [blurred] and len(notes) == 1
