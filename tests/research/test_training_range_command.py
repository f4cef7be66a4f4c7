"""The command that writes the ranges of the training scans: what ships is what it gives."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.demo import load_truth
from monai_diffens.transforms.thick_slices import thick_slice
from monai_diffens.transforms.unlike_training import (
    CONTRAST_REFERENCE,
    ScanTraits,
    load_ranges,
)
from research.data_pack import contrast_path
from research.training_range import (
    LOW_RESOLUTION,
    examine,
    measure,
    plain_range,
    range_of_sites,
)

BUNDLE = Path(__file__).parents[2] / "bundles" / "diffensembler_sr"
FIRST_TEST = ("sub-tcga09", "sub-upenn05", "sub-lj19")
LOAD = Compose(
    [
        LoadImaged("image", reader="NibabelReader", ensure_channel_first=True),
        Orientationd("image", axcodes="RAS", labels=None),
    ]
)


@pytest.fixture(scope="module")
def first_pack(data_dir, tmp_path_factory) -> Path:
    """The pack as super-resolution knows it: subjects of its licence, and the first ones of `test`."""
    told = (BUNDLE / "docs" / "data_license.txt").read_text(encoding="utf-8")
    known = {*re.findall(r"^(sub-\w+) +(?:train|val) ", told, re.M), *FIRST_TEST}
    folder = tmp_path_factory.mktemp("pack")
    head, *rows = (data_dir / "participants.tsv").read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.split("\t")[0] in known]
    (folder / "participants.tsv").write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    for row in kept:
        subject = row.split("\t")[0]
        (folder / subject).symlink_to(data_dir / subject)
    assert len(kept) == 16
    return folder


@pytest.fixture(scope="module")
def brain() -> MetaTensor:
    """The template brain at 1 mm, in RAS order, 0 outside."""
    volume, affine = load_truth()
    template = MetaTensor(volume.reshape(1, *volume.shape[-3:]), affine=affine)
    return Orientationd("image", axcodes="RAS", labels=None)({"image": template})["image"]


def test_the_margin_is_what_a_training_site_left_out_would_have_needed(brain):
    """Two sites agree; the third lies outside of them, one of its scans farther than the other."""
    one = ScanTraits.of(brain)
    brighter = {by: replace(one, intensities=one.intensities + by) for by in (0.01, 0.1, 0.3)}
    sites = {"a": [one, brighter[0.01]], "b": [one], "c": [brighter[0.1], brighter[0.3]]}
    assert range_of_sites(sites).intensity_margin == pytest.approx(0.29)
    outside = replace(one, intensities=one.intensities + 0.6)
    assert list(range_of_sites(sites).complaints(outside)) == ["unlike_intensities"]
    assert range_of_sites(sites).complaints(replace(one, intensities=one.intensities + 0.58)) == {}


@pytest.mark.slow
def test_the_references_are_those_of_the_training_volumes(data_dir, capsys):
    """What the command writes is what ships, to the last digit; one contrast of four, since it takes long."""
    made = examine(data_dir, "FLAIR", ["FLAIR"], 50)
    shipped = load_ranges(CONTRAST_REFERENCE)
    assert plain_range(made) == plain_range(shipped["FLAIR"])
    printed = capsys.readouterr().out
    assert "FLAIR, Ljubljana (left out)" in printed and "FLAIR, sub-tcga06 (val)" in printed


@pytest.mark.slow
def test_the_reference_comes_from_training_subjects_alone(first_pack, tmp_path):
    with (first_pack / "participants.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    one = next(row for row in rows if row["split"] == "train")
    alone = tmp_path / "participants.tsv"
    alone.write_text("participant_id\tsplit\n" + f"{one['participant_id']}\ttrain\nsub-none\ttest\n")
    (tmp_path / one["participant_id"]).symlink_to(first_pack / one["participant_id"])
    measured = measure(Path(tmp_path), "train")
    assert list(measured) == [one["participant_id"]] and len(measured[one["participant_id"]]) == 4
    (reference,) = load_ranges().values()
    assert all(reference.intensity_excess(scan)[0] <= 1e-3 for scan in measured[one["participant_id"]])


@pytest.mark.slow
def test_what_test_subjects_are_warned_of(first_pack):
    """Nothing. The margin comes from training sites alone; what docs/trust.md says of the rule holds too."""
    with (first_pack / "participants.tsv").open(newline="", encoding="utf-8") as file:
        subjects = [r["participant_id"] for r in csv.DictReader(file, delimiter="\t") if r["split"] == "test"]
    paths = [contrast_path(first_pack, subject, contrast) for subject in subjects for contrast in CONTRASTS]
    assert len(paths) == 12
    (together,), each = load_ranges().values(), load_ranges(CONTRAST_REFERENCE)
    for path, contrast in zip(paths, CONTRASTS * len(subjects), strict=True):
        volume = LOAD({"image": path})["image"]
        assert together.complaints(together.measure(volume)) == {}, path.name
        for one in (volume, *(thick_slice(volume, factors) for factors in LOW_RESOLUTION)):
            assert each[contrast].complaints(each[contrast].measure(one)) == {}, path.name
