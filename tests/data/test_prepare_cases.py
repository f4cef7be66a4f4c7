"""Contrasts of training subjects: what is wrong is named before a training; what serves is listed."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.data.prepare import prepare_cases
from monai_diffens.data.training_volumes import training_cases
from monai_diffens.messages import InputRejected

SHAPE = (24, 28, 20)


def save(folder: Path, subject: str, contrasts: str, spacing: float = 1.0, seed: int = 0) -> None:
    for number, contrast in enumerate(contrasts.split()):
        path = folder / subject / "anat" / f"{subject}_{contrast}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(10 * seed + number).integers(1, 300, SHAPE).astype(np.int16)
        nib.Nifti1Image(values, np.diag([spacing] * 3 + [1])).to_filename(path)


def rows_of(out: Path) -> dict[str, str]:
    rows = csv.DictReader((out / "prepare.csv").read_text().splitlines())
    return {row["case"]: row["verdict"] for row in rows}


def test_good_cases_are_listed_and_split_by_subject(tmp_path):
    bids = tmp_path / "bids"
    for number in range(6):
        save(bids, f"sub-{number}", "T1w T2w FLAIR" if number else "ce-gadobutrol_T1w FLAIR", seed=number)
    save(bids, "sub-none", "T1w T2w", seed=8)
    path = prepare_cases(bids, tmp_path / "out")
    listed = json.loads(path.read_text())
    assert [item["case"] for item in listed["validation"]] == ["sub-4"] and len(listed["training"]) == 5
    found = training_cases("", "train", path)
    assert set(found[0]) == {"case", "ce-gadolinium_T1w", "FLAIR"} and set(found[1]) == {
        "case",
        "T1w",
        "T2w",
        "FLAIR",
    }
    assert nib.load(found[1]["T2w"]).shape == SHAPE
    assert rows_of(tmp_path / "out")["sub-none"] == "left out: FLAIR and one contrast more are needed"


def test_splits_of_a_table_are_kept(tmp_path):
    bids = tmp_path / "bids"
    for number, subject in enumerate(("sub-a", "sub-b", "sub-c")):
        save(bids, subject, "T1w T2w FLAIR", seed=number)
    rows = ["participant_id\tsplit", "sub-a\ttest", "sub-b\ttrain", "sub-c\texclude"]
    (bids / "participants.tsv").write_text("\n".join(rows) + "\n")
    path = prepare_cases(bids, tmp_path / "out")
    (item,) = training_cases("", "train", path)
    assert set(item) == {"case", "T1w", "T2w", "FLAIR"}
    assert rows_of(tmp_path / "out") == {"sub-a": "accepted", "sub-b": "accepted"}
    assert len(json.loads(path.read_text())["test"]) == 1
    again = prepare_cases("", tmp_path / "again", path)  # a list is looked at in the same way
    assert json.loads(again.read_text())["training"][0]["case"] == "sub-b"


def test_what_is_silently_wrong_is_refused(tmp_path):
    bids = tmp_path / "bids"
    save(bids, "sub-0", "T1w FLAIR")
    save(bids, "sub-1", "T1w FLAIR", spacing=2.0, seed=1)
    save(bids, "sub-2", "T1w FLAIR", seed=2)
    path = bids / "sub-2" / "anat" / "sub-2_T1w.nii.gz"
    nib.load(path).slicer[1:].to_filename(path)
    save(bids, "sub-3", "T1w FLAIR", seed=3)
    flair = bids / "sub-3" / "anat" / "sub-3_FLAIR.nii.gz"
    flair.write_bytes((bids / "sub-0" / "anat" / "sub-0_FLAIR.nii.gz").read_bytes())
    with pytest.raises(InputRejected) as error:
        prepare_cases(bids, tmp_path / "out")
    told = str(error.value).splitlines()
    assert len(told) == 3
    assert told[0] == "the same file under several names: sub-0, sub-3; keep one"
    assert told[1].startswith("sub-1_T1w.nii.gz: voxels of 2 x 2 x 2 mm, 1 mm is needed for ground truth")
    assert told[2] == "sub-2_T1w.nii.gz: on another grid than FLAIR; register it to that and resample it"


def test_a_data_list_needs_the_target(tmp_path):
    (tmp_path / "list.json").write_text('{"training": [{"T1w": "a.nii"}]}')
    with pytest.raises(InputRejected, match="'training' 0 is no item with a 'FLAIR'"):
        training_cases("", "train", tmp_path / "list.json")
