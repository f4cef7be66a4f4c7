"""What a BIDS folder tells: its table, its splits, and what a training reads of it."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.data.training_volumes import participants, subject_splits, training_cases, training_volumes
from monai_diffens.messages import InputRejected

SPLITS = {"sub-a": "train", "sub-b": "test", "sub-c": "val", "sub-d": "none"}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A BIDS folder of four subjects with two contrasts and a field map, and a table of their splits."""
    with (tmp_path / "participants.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["participant_id", "split"])
        writer.writerows(SPLITS.items())
    for subject in SPLITS:
        for name in ("anat/{}_T1w", "anat/{}_FLAIR", "fmap/{}_phasediff"):
            path = tmp_path / subject / f"{name.format(subject)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_filename(path)
    return tmp_path


@pytest.mark.parametrize("kind", [str, Path])
def test_participants_are_the_rows_of_the_table(tree, kind):
    rows = participants(kind(tree))
    assert [row["participant_id"] for row in rows] == list(SPLITS)
    assert rows[2] == {"participant_id": "sub-c", "split": "val"}


def test_folder_without_a_table_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"participants\.tsv is missing"):
        participants(tmp_path)


def test_splits_are_the_table_s_or_every_fifth_subject(tree, tmp_path):
    assert subject_splits(tree, []) == {name: split for name, split in SPLITS.items() if split != "none"}
    (tree / "participants.tsv").write_text("participant_id\tage\nsub-a\t50\n")
    names = [f"sub-{number}" for number in range(10)]
    chosen = subject_splits(tree, names)
    assert [name for name, split in chosen.items() if split == "val"] == ["sub-4", "sub-9"]
    assert set(chosen.values()) == {"train", "val"} and list(chosen) == names
    assert subject_splits(tree, ["one", "two"]) == {"one": "train", "two": "val"}


def test_a_training_reads_volumes_of_its_split_alone(tree):
    found = training_volumes(tree, "train")
    assert [item["case"] for item in found] == ["sub-a_FLAIR", "sub-a_T1w"]
    assert {item["subject"] for item in found} == {"sub-a"} and all(
        Path(item["label"]).is_file() for item in found
    )
    assert [item["subject"] for item in training_volumes(tree, "val")] == ["sub-c"] * 2
    with pytest.raises(InputRejected, match="no subject of the split 'trian'"):
        training_volumes(tree, "trian")


def test_a_training_reads_cases_of_its_split_with_their_target(tree):
    (item,) = training_cases(tree, "train")
    anat = tree / "sub-a" / "anat"
    assert item == {
        "case": "sub-a",
        "subject": "sub-a",
        "T1w": str(anat / "sub-a_T1w.nii.gz"),
        "FLAIR": str(anat / "sub-a_FLAIR.nii.gz"),
    }
    with pytest.raises(InputRejected, match="no subject of the split 'train'"):
        training_cases(tree, "train", target="T2w")
