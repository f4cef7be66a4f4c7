"""Crops of a plane's slices, on volumes whose voxels hold their own coordinates."""

import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.acquisition.slicing import PATCH_GRID, PLANES, plane_axis
from monai_diffens.transforms.augmentation import PLANE_KEY, SHARP_PLANE_KEY, RandPlaneCropsd

SHAPE = (32, 40, 48)
SIDE = 16


def coordinates() -> torch.Tensor:
    """Volume (3, X, Y, Z) whose channels are x, y and z, from 1."""
    return torch.stack(torch.meshgrid(*(torch.arange(1, n + 1) for n in SHAPE), indexing="ij")).float()


def crops(**options) -> RandPlaneCropsd:
    return RandPlaneCropsd(
        "label", "image", slice_size=SIDE, **({"num_samples": 6} | options)
    ).set_random_state(0)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("reach", [0, 2])
def test_crops_are_parts_of_slices_with_their_neighbours(plane, reach):
    volume, along = coordinates(), plane_axis(plane)
    rows, columns = (axis for axis in range(3) if axis != along)
    numbers = set()
    for _ in range(4):
        for crop in crops(planes=plane, reach=reach)(
            {"label": MetaTensor(volume), "image": 2 * volume, "case": "x"}
        ):
            label = crop["label"]
            assert set(crop) == {"label", "image", PLANE_KEY} and type(label) is torch.Tensor
            assert label.shape == (3, SIDE, SIDE)
            place, row, column = (int(label[axis, 0, 0]) - 1 for axis in (along, rows, columns))
            assert row % PATCH_GRID == column % PATCH_GRID == 0
            window = (slice(row, row + SIDE), slice(column, column + SIDE))
            assert torch.equal(label, volume.select(along + 1, place)[:, window[0], window[1]])
            near = crop["image"].unflatten(0, (3, 2 * reach + 1))
            for offset in range(-reach, reach + 1):
                neighbour = min(max(place + offset, 0), SHAPE[along] - 1)
                shown = 2 * volume.select(along + 1, neighbour)[:, window[0], window[1]]
                assert torch.equal(near[:, offset + reach], shown)
            numbers.add(place)
    assert len(numbers) > 4


def test_every_plane_is_drawn_and_a_thick_volume_gives_its_sharp_one():
    item = {"label": coordinates(), "image": coordinates()}
    cut = crops(num_samples=1)
    assert {cut(item)[0][PLANE_KEY] for _ in range(40)} == set(PLANES)
    assert {cut(item | {SHARP_PLANE_KEY: "coronal"})[0][PLANE_KEY] for _ in range(10)} == {"coronal"}
    blurred = crops(num_samples=1, blurred_planes=True, kept=(SHARP_PLANE_KEY, "absent"))
    drawn = [blurred(item | {SHARP_PLANE_KEY: "coronal"})[0] for _ in range(40)]
    assert {crop[PLANE_KEY] for crop in drawn} == set(PLANES)
    assert all(crop[SHARP_PLANE_KEY] == "coronal" and "absent" not in crop for crop in drawn)


def test_crops_show_the_foreground():
    label = torch.zeros(1, 64, 64, 64)
    label[:, 8:48, 8:48, 8:48] = 1.0
    cut = crops()
    drawn = [crop for _ in range(20) for crop in cut({"label": label, "image": label})]
    assert sum(bool(crop["label"].any()) for crop in drawn) / len(drawn) > 0.95


def test_small_volumes_are_padded_at_their_end():
    volume = torch.ones(1, 10, 20, 30)
    for crop in crops(planes="axial")({"label": volume, "image": volume}):
        assert crop["label"].shape == (1, SIDE, SIDE) and not crop["label"][:, 10:].any()


@pytest.mark.parametrize("planes", ["axail", ["axial", "transversal"], "Axial"], ids=str)
def test_misspelt_plane_fails_at_construction(planes):
    with pytest.raises(ValueError, match="unknown plane"):
        RandPlaneCropsd("label", "image", planes)


def test_sides_off_the_patch_grid_fail_at_construction():
    with pytest.raises(ValueError, match="multiple of 8"):
        RandPlaneCropsd("label", "image", slice_size=20)
