"""Kinds 02, 03 and 25 of what a training is told: no subject or case is left out, or moved, in silence."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.data.prepare import prepare_cases, prepare_volumes
from monai_diffens.data.training_volumes import bids_cases, subject_splits, training_volumes
from monai_diffens.messages import InputRejected, say

SUBJECTS = [f"sub-{number}" for number in range(5)]
SPLITS = dict(zip(SUBJECTS, ["test", "val", "train", "train", "train"], strict=True))
TABLE = "participant_id\tsplit\n" + "".join(f"{name}\t{split}\n" for name, split in SPLITS.items())


def splits(tmp_path, content: str, encoding: str = "utf-8"):
    (tmp_path / "participants.tsv").write_bytes(content.encode(encoding))
    return subject_splits(tmp_path, SUBJECTS)


WRITTEN = {
    "as BIDS has it": TABLE,
    "with a byte order mark": "\ufeff" + TABLE,
    "names without sub-": TABLE.replace("sub-", ""),
    "other words": TABLE.replace("train", "Training").replace("val", "validation").replace("test", "TEST"),
    "capitals in the first row": TABLE.replace("split", "Split").replace("participant_id", "Participant_ID"),
    "blanks": TABLE.replace("\t", " \t ").replace("\n", " \n"),
    "lines of Windows": TABLE.replace("\n", "\r\n"),
    "a subject twice alike": TABLE + "sub-0\ttest\n",
    "a subject that has no folder": TABLE + "sub-9\ttrain\n",
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_03_splits_are_read_however_they_are_written(tmp_path, content):
    found = splits(tmp_path, content)
    assert {subject: found[subject] for subject in SUBJECTS} == SPLITS


REFUSED = {
    "commas": (TABLE.replace("\t", ","), "utf-8", "bad_participants"),
    "two bytes a letter": (TABLE, "utf-16", "bad_participants"),
    "latin-1": (TABLE + "sub-é\ttrain\n", "latin-1", "bad_participants"),
    "no participants": ("", "utf-8", "bad_participants"),
    "another first column": (TABLE.replace("participant_id", "name"), "utf-8", "bad_participants"),
    "an unknown word": (TABLE + "sub-4\tlater\n", "utf-8", "bad_split"),
    "a subject in two splits": (TABLE + "sub-0\ttrain\n", "utf-8", "two_splits"),
}


@pytest.mark.parametrize(("content", "encoding", "key"), REFUSED.values(), ids=REFUSED)
def test_03_a_table_that_would_move_subjects_is_refused(tmp_path, content, encoding, key):
    with pytest.raises(InputRejected) as stop:
        splits(tmp_path, content, encoding)
    known = "train, training, val, valid, validation, test, testing"
    values = {
        "bad_participants": [
            {"name": "participants.tsv", "why": why}
            for why in ("no table in UTF-8", "no column participant_id")
        ],
        "bad_split": [{"name": "sub-4", "split": "later", "known": known}],
        "two_splits": [{"name": "sub-0", "splits": "test and train"}],
    }
    assert str(stop.value) in [say(key, **each) for each in values[key]]


def test_03_subjects_without_a_split_are_named(tmp_path, caplog):
    found = splits(tmp_path, "participant_id\tsplit\nsub-0\ttrain\nsub-1\t\nsub-2\nsub-3\tn/a\n")
    assert found == {"sub-0": "train"}
    assert say("no_split", count=4, names="sub-1, sub-2, sub-3, sub-4") in caplog.messages


def test_03_a_case_that_cannot_be_taken_is_named(tmp_path, caplog):
    for name in ("sub-1_T1w", "sub-1_run-1_T1w", "sub-1_FLAIR"):
        path = tmp_path / "sub-1" / "anat" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(path)
    assert bids_cases(tmp_path) == []
    (line,) = caplog.messages
    assert "sub-1_T1w" in line and "sub-1_run-1_T1w" in line


@pytest.mark.parametrize("prepare", [prepare_volumes, prepare_cases])
@pytest.mark.parametrize(
    "content", ["[1", "[]", "3", '{"training": {"a": 1}}', "[" * 50_000, "\udcff"], ids=lambda text: text[:9]
)
def test_25_a_damaged_list_is_a_line(tmp_path, prepare, content):
    (tmp_path / "list.json").write_bytes(content.encode(errors="surrogateescape"))
    for call in (
        lambda: prepare("", tmp_path / "out", tmp_path / "list.json"),
        lambda: training_volumes("", "val", tmp_path / "list.json"),
    ):
        with pytest.raises(InputRejected) as stop:
            call()
        assert "not a data list" in str(stop.value) and "\n" not in str(stop.value)


def test_03_a_list_under_another_name_is_told(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "a.nii").write_bytes(b"x")
    lists = {"training": [{"label": "a.nii"}], "val": [{"label": "a.nii"}], "tags": ["x"], "numTraining": 1}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    with pytest.raises(InputRejected):
        prepare_volumes("", tmp_path / "out", tmp_path / "list.json")
    known = "training, validation, test"
    assert caplog.messages == [say("unused_section", name="list.json", section="val", known=known)]
