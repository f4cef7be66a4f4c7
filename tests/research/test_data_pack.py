"""Which volumes of the data pack are training targets: by split, by sharpness, and never a test subject."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_diffens.acquisition.slicing import plane_axis
from monai_diffens.contrasts import CONTRASTS
from monai_diffens.data.training_volumes import participants, training_cases, training_volumes
from research.data_pack import (
    TRAINING_SHARPNESS,
    aligned_subjects,
    contrast_path,
    main,
    pack_volumes,
    sharp_volumes,
    thick_volumes,
)

ROWS = {
    "sub-a": ("train", "T1w=0.85 ce-gadolinium_T1w=0.49 T2w=0.5 FLAIR=0.1"),
    "sub-b": ("train", "T1w=0.2 FLAIR=0.98"),
    "sub-c": ("val", "T1w=0.6 T2w=0.7"),
    "sub-d": ("test", "T1w=0.9"),
    "sub-e": ("train", "n/a"),  # BIDS for a missing value
}
SPLITS = ("train", "val", "test")
# contrasts that the data pack's README lists as good ground truth
GOOD = {
    **{f"sub-upenn0{n}": {"T1w", "ce-gadolinium_T1w"} for n in (2, 4)},
    **{f"sub-upenn0{n}": {"T1w", "ce-gadolinium_T1w", "T2w"} for n in (1, 3, 5)},
    "sub-lj07": {"FLAIR"},
    "sub-lj19": {"FLAIR"},
    "sub-tcga04": {"T1w"},
    "sub-tcga08": {"ce-gadolinium_T1w"},
    "sub-tcga09": {"T1w", "ce-gadolinium_T1w"},
}


@pytest.fixture
def tree(tmp_path) -> Path:
    """Return a BIDS folder of five subjects with all contrasts, but one file missing."""
    with (tmp_path / "participants.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["participant_id", "split", "throughplane_sharpness"])
        writer.writerows([subject, *row] for subject, row in ROWS.items())
    for subject in ROWS:
        for contrast in CONTRASTS:
            path = contrast_path(tmp_path, subject, contrast)
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_filename(path)
    contrast_path(tmp_path, "sub-c", "T2w").unlink()
    return tmp_path


def names(items: list[dict[str, str]]) -> list[str]:
    """Return the cases of a list."""
    return [item["case"] for item in items]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["sub-a_T1w", "sub-a_T2w", "sub-b_FLAIR"]),
        ("val", ["sub-c_T1w"]),  # its T2w is sharp, but not there
        ("test", ["sub-d_T1w"]),
    ],
)
def test_sharp_volumes_of_a_split(tree, split, expected):
    items = sharp_volumes(tree, split)
    assert names(items) == expected
    for item in items:
        assert Path(item["label"]) == contrast_path(tree, item["subject"], item["contrast"])
        assert Path(item["label"]).is_file()
        assert item["case"] == f"{item['subject']}_{item['contrast']}"


@pytest.mark.parametrize(
    ("min_sharpness", "expected"),
    [
        (
            0.05,
            ["sub-a_T1w", "sub-a_ce-gadolinium_T1w", "sub-a_T2w", "sub-a_FLAIR", "sub-b_T1w", "sub-b_FLAIR"],
        ),
        (0.5, ["sub-a_T1w", "sub-a_T2w", "sub-b_FLAIR"]),  # the threshold itself is sharp enough
        (0.51, ["sub-a_T1w", "sub-b_FLAIR"]),
        (0.9, ["sub-b_FLAIR"]),
    ],
)
def test_blurred_volumes_are_left_out(tree, min_sharpness, expected):
    assert names(sharp_volumes(tree, "train", min_sharpness=min_sharpness)) == expected


def test_thick_volumes_are_those_known_to_be_blurred(tree):
    thick = thick_volumes(tree, "train")
    assert names(thick) == [
        "sub-a_ce-gadolinium_T1w",
        "sub-a_FLAIR",
        "sub-b_T1w",
    ]  # of sub-e nothing is known
    assert {item["sharp_plane"] for item in thick} == {"axial"}


def test_contrasts_are_those_asked_for_in_that_order(tree):
    assert names(sharp_volumes(tree, "train", ["T2w", "T1w"])) == ["sub-a_T2w", "sub-a_T1w"]


@pytest.mark.parametrize(
    "options",
    [{"split": "trian"}, {"split": "val", "contrasts": ["FLAIR"]}, {"split": "val", "min_sharpness": 0.8}],
)
def test_empty_list_is_an_error(tree, options):
    with pytest.raises(ValueError, match=f"no {options['split']} volume"):
        sharp_volumes(tree, **options)


def test_the_list_of_volumes_is_what_a_training_reads(tree, tmp_path):
    main(["volumes", "--dataset_dir", str(tree), "--output", str(tmp_path / "lists" / "a.json")])
    found = training_volumes("", "train", tmp_path / "lists" / "a.json", planes="axial")
    wanted = pack_volumes(tree, "train", 0.6)
    assert (
        names(found)
        == names(wanted)
        == [
            *("sub-a_T1w", "sub-b_FLAIR"),
            *("sub-a_ce-gadolinium_T1w", "sub-a_T2w", "sub-a_FLAIR", "sub-b_T1w"),
        ]
    )
    for item, other in zip(found, wanted, strict=True):
        assert Path(item.pop("label")).samefile(other.pop("label")) and item == other
    assert names(training_volumes("", "train", tmp_path / "lists" / "a.json")) == names(wanted)[:2]
    assert names(training_volumes("", "val", tmp_path / "lists" / "a.json")) == ["sub-c_T1w"]


# --- the real data pack -------------------------------------------------------------------------------------


def test_no_subject_of_one_split_appears_in_another(data_dir):
    split_of = {row["participant_id"]: row["split"] for row in participants(data_dir)}
    for split in SPLITS:
        items = sharp_volumes(data_dir, split, min_sharpness=0)  # every volume there is
        assert {split_of[item["subject"]] for item in items} == {split}
        assert all(item["subject"] in Path(item["label"]).name for item in items)
    # never trained on since the first weights
    assert {"sub-lj19", "sub-tcga09", "sub-upenn05"} <= {
        s for s, split in split_of.items() if split == "test"
    }


@pytest.mark.parametrize("split", SPLITS)
def test_default_threshold_keeps_all_good_ground_truth_and_no_thick_slices(data_dir, split):
    subjects = {row["participant_id"] for row in participants(data_dir) if row["split"] == split}
    good = {f"{subject}_{contrast}" for subject in subjects & set(GOOD) for contrast in GOOD[subject]}
    listed = set(names(sharp_volumes(data_dir, split)))
    assert good <= listed
    thick = {f"sub-tcga0{n}" for n in (1, 2, 3, 5, 7)}  # 3 to 6 mm in every contrast
    assert not {name for name in listed if name.split("_")[0] in thick}


@pytest.mark.slow
def test_thick_slices_of_the_pack_lie_as_they_are_said_to(data_dir):
    """Every volume that training takes slices of is blurriest across them."""
    thick = thick_volumes(data_dir, "train", min_sharpness=TRAINING_SHARPNESS)
    assert len(thick) >= 35 and len({item["subject"] for item in thick}) >= 12
    for item in thick:
        image = nib.as_closest_canonical(nib.load(item["label"]))
        volume = np.asarray(image.dataobj, dtype=np.float32)
        # the mean: medians of coarse integers tie
        steps = [
            np.abs(np.diff(volume, 2, axis=axis))[volume.take(range(1, n - 1), axis) > 0].mean()
            for axis, n in enumerate(volume.shape)
        ]
        assert int(np.argmin(steps)) == plane_axis(item["sharp_plane"]), item["case"]


def test_list_of_good_ground_truth_is_reproduced_by_a_higher_threshold(data_dir):
    listed = [
        (item["subject"], item["contrast"])
        for split in ("train", "test")
        for item in sharp_volumes(data_dir, split, min_sharpness=0.7)
    ]
    known = {(subject, contrast) for subject, all_ in GOOD.items() for contrast in all_}
    assert {entry for entry in listed if entry[0] in GOOD} == known


@pytest.fixture
def subjects(tmp_path) -> Path:
    rows = ["participant_id\tsplit\tresidual_shift_mm"]
    for name, split, shift in (
        ("a", "train", "FLAIR=0.2 T2w=1.4"),
        ("b", "test", "T2w=0.9"),
        ("c", "train", ""),
    ):
        rows.append(f"sub-{name}\t{split}\t{shift}")
        for contrast in ("T1w", "T2w", "FLAIR"):
            if (name, contrast) != ("c", "FLAIR"):
                path = contrast_path(tmp_path, f"sub-{name}", contrast)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    labels = tmp_path / "derivatives" / "labels" / "sub-b" / "anat" / "sub-b_desc-tumor_dseg.nii.gz"
    labels.parent.mkdir(parents=True)
    labels.touch()
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_aligned_subjects_leave_out_what_is_shifted_or_has_no_target(subjects):
    (item,) = aligned_subjects(subjects, "train")
    assert item == {
        "case": "sub-a",
        "thick": "T1w=axial FLAIR=axial",  # nothing is known of their sharpness
        "T1w": str(contrast_path(subjects, "sub-a", "T1w")),
        "FLAIR": str(contrast_path(subjects, "sub-a", "FLAIR")),
    }
    (item,) = aligned_subjects(subjects, "test")
    assert set(item) == {"case", "thick", "T1w", "T2w", "FLAIR", "lesions"}
    assert item["lesions"].endswith("sub-b_desc-tumor_dseg.nii.gz")


def test_no_aligned_subject(subjects):
    with pytest.raises(ValueError, match="no val subject has FLAIR"):
        aligned_subjects(subjects, "val")


def test_training_subjects_of_the_data_pack(data_dir):
    found = {item["case"]: item for item in aligned_subjects(data_dir, "train")}
    assert len(found) >= 12 and "T2w" not in found["sub-tcga05"]
    assert all("FLAIR" in item and len(item) > 3 for item in found.values())


def test_the_list_of_cases_is_what_a_training_reads(data_dir, tmp_path):
    main(["cases", "--dataset_dir", str(data_dir), "--output", str(tmp_path / "cases.json")])
    for split, target in (("train", None), ("val", "FLAIR")):
        found = training_cases("", split, tmp_path / "cases.json", target)
        wanted = aligned_subjects(data_dir, split, target)
        assert [item["case"] for item in found] == [item["case"] for item in wanted]
        for item, other in zip(found, wanted, strict=True):
            assert item.keys() == other.keys() and item["thick"] == other["thick"]
            assert all(Path(item[key]).samefile(other[key]) for key in item.keys() - {"case", "thick"})
