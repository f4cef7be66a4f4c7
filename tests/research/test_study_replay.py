"""Draws that several trainings share: of the subjects asked for, and with the maps of their crop."""

import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.acquisition.slicing import PLANES, plane_axis, to_slices
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from research.features.study_replay import FirstSubjects, StudyReplay, cut_maps

SIZE = (16, 20, 24)
SUBJECTS = 6
DRAWS = 8


@pytest.fixture(scope="module")
def subjects() -> list[dict]:
    """Items whose conditions are all of the subject's number, plus 1."""
    torch.manual_seed(0)
    items = []
    for number in range(SUBJECTS):
        label = MetaTensor(torch.rand(1, *SIZE))
        items.append({"image": MetaTensor(torch.full((2, *SIZE), 1.0 + number)), "label": label})
    return items


@pytest.fixture
def replay(tiny_ensembler, subjects, tmp_path):
    def build(**options) -> StudyReplay:
        small = {
            "source": subjects,
            "bank": tiny_ensembler(conditions=("T1w", "FLAIR")).bank,
            "scheduler": TrailingDDIMScheduler(),
            "draws": DRAWS,
            "length": 40,
            "crop_size": 8,
            "folder": tmp_path / "draws",
            "amp": False,
        }
        return StudyReplay(**(small | options))

    return build


def subject_of(entry) -> int:
    return int(entry["volumes"][2].flatten()[0]) - 1


@pytest.mark.parametrize("count", [1, 2, 3, None])
def test_draws_are_of_the_first_subjects_alone(replay, count):
    buffer = replay(subjects=count)
    buffer.fill()
    seen = {subject_of(entry) for entry in buffer.entries}
    assert seen == set(range(count)) if count else len(seen) > 3
    assert [subject_of(entry) for entry in buffer.entries] == [buffer.subject(n) for n in range(DRAWS)]
    assert {subject_of(buffer[index]) for index in range(40)} <= seen


def test_fewer_subjects_change_nothing_else_and_share_files(replay, tmp_path):
    everyone, few = replay(), replay(subjects=2)
    everyone.fill()
    before = len(list((tmp_path / "draws").glob("*.pt")))
    few.fill()
    shared = [n for n in range(DRAWS) if everyone.subject(n) < 2]
    assert before == DRAWS and 0 < len(shared) < DRAWS
    assert len(list((tmp_path / "draws").glob("*.pt"))) == 2 * DRAWS - len(shared)
    for number, (one, other) in enumerate(zip(everyone.entries, few.entries, strict=True)):
        assert one["timestep"] == other["timestep"]
        assert torch.equal(one["volumes"], other["volumes"]) is (number in shared)


def test_files_are_used_again(replay):
    replay().fill()
    again = replay()
    again.bank = None  # not needed
    again.fill()
    assert len(again.entries) == DRAWS and all(entry["seconds"] > 0 for entry in again.entries)


@pytest.mark.parametrize("count", [0, SUBJECTS + 1])
def test_there_must_be_as_many_subjects(subjects, count):
    with pytest.raises(ValueError, match=f"{count} subjects of {SUBJECTS}"):
        FirstSubjects(subjects, count)


def test_crops_must_be_whole_patches(replay):
    with pytest.raises(ValueError, match="crops of 7 voxels are no whole patches of 2"):
        replay(crop_size=7)


@pytest.mark.parametrize("plane", PLANES)
def test_maps_are_cut_where_the_crop_is(plane):
    patch, axis = 4, plane_axis(plane)
    coarse = [n if a == axis else n // patch for a, n in enumerate(SIZE)]
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in coarse), indexing="ij")).float()
    both = torch.stack([grid, 100 + grid])
    maps = to_slices(both, plane).unflatten(0, (2, -1))
    box = [slice(4, 12), slice(8, 16), slice(12, 20)]
    cut = cut_maps(maps, plane, box, patch)
    first = [part.start if a == axis else part.start // patch for a, part in enumerate(box)]
    last = [part.stop - 1 if a == axis else part.stop // patch - 1 for a, part in enumerate(box)]
    assert cut.shape == (2, 8, 3, 2, 2)
    for condition, offset in enumerate((0, 100)):
        corners = cut[condition, 0, :, 0, 0], cut[condition, -1, :, -1, -1]
        assert [int(v) - offset for v in corners[0]] == first
        assert [int(v) - offset for v in corners[1]] == last


def test_items_hold_the_experts_maps_on_demand(replay):
    assert "maps" not in replay()[0]
    buffer = replay(features=True, crop_size=16)
    item = buffer[0]
    assert {plane: tuple(maps.shape) for plane, maps in item["maps"].items()} == dict.fromkeys(
        PLANES, (2, 16, 8, 8, 8)
    )
    entry = buffer.entries[0]
    with torch.no_grad():
        _, features = buffer.bank.predict_with_features(
            entry["volumes"][None, :1].float(),
            entry["volumes"][None, 2:4].float(),
            torch.tensor([entry["timestep"]]),
        )
    for first, plane in enumerate(PLANES):
        for condition in range(2):
            expected = features[2 * first + condition][-1]
            torch.testing.assert_close(
                entry["maps"][plane][condition].float(), expected, rtol=0.02, atol=0.02
            )


def test_crops_with_maps_are_not_flipped(replay):
    with pytest.raises(ValueError, match="flip_prob must be 0"):
        replay(flip_prob=0.5)
