"""Slabs and slices of a plane, on volumes whose voxels hold their own coordinates."""

from itertools import pairwise

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_diffens.acquisition.slicing import PLANES, plane_axis
from monai_diffens.transforms.plane_slices import PLANE_KEY, SHARP_PLANE_KEY, RandPlaneSlabd, RandSlicesd

SHAPE = (22, 18, 26)
FOREGROUND = ((4, 20), (1, 15), (6, 24))


def coordinates(shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Volume (3, X, Y, Z) whose channels are x, y and z."""
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")).float()


def item(shape: tuple[int, int, int] = SHAPE, foreground=FOREGROUND) -> dict:
    """Brain mask and coordinates on one grid."""
    mask = torch.zeros(1, *shape)
    mask[(0, *(slice(start, stop) for start, stop in foreground))] = 1
    return {"mask": MetaTensor(mask), "image": coordinates(shape), "case": "sub-01"}


def extents(volume: torch.Tensor) -> list[tuple[int, int]]:
    """Range (start, stop) of the coordinates an axis, which must be every one in between."""
    ranges = []
    for axis in range(3):
        values = volume[axis].movedim(axis, 0).flatten(1)
        line = values[:, 0]
        assert (values == line[:, None]).all()
        assert torch.equal(line, torch.arange(line[0], line[-1] + 1))
        ranges.append((int(line[0]), int(line[-1]) + 1))
    return ranges


# --- slabs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("slice_size", "depth"), [(12, 5), (8, 14), (14, 1)])
def test_slab_is_a_contiguous_part_of_the_foreground(plane, slice_size, depth):
    transform = RandPlaneSlabd(["mask", "image"], plane, slice_size, depth).set_random_state(0)
    begins = set()
    for _ in range(20):
        result = transform(item())
        assert result[PLANE_KEY] == plane and result["case"] == "sub-01"
        assert result["mask"].shape[1:] == result["image"].shape[1:]
        assert (result["mask"] == 1).all()  # every key cut alike, and inside the brain
        ranges = extents(result["image"])
        begins.add(tuple(start for start, _ in ranges))
        for axis, (start, stop) in enumerate(ranges):
            assert stop - start == (depth if axis == plane_axis(plane) else slice_size)
            assert FOREGROUND[axis][0] <= start and stop <= FOREGROUND[axis][1]
    assert len(begins) > 5


@pytest.mark.parametrize("plane", PLANES)
def test_a_volume_of_thick_slices_gives_slabs_of_its_sharp_plane(plane):
    transform = RandPlaneSlabd(["mask", "image"], PLANES, 12, 5).set_random_state(0)
    assert {transform(item() | {SHARP_PLANE_KEY: plane})[PLANE_KEY] for _ in range(9)} == {plane}
    assert {transform(item())[PLANE_KEY] for _ in range(20)} == set(PLANES)


@pytest.mark.parametrize("plane", PLANES)
def test_slab_larger_than_the_foreground_holds_all_of_it_and_stays_in_the_volume(plane):
    foreground = ((18, 21), (0, 3), (10, 12))
    result = RandPlaneSlabd(["mask", "image"], plane, 10, 8)(item(foreground=foreground))
    for axis, (start, stop) in enumerate(extents(result["image"])):
        assert 0 <= start <= foreground[axis][0] and foreground[axis][1] <= stop <= SHAPE[axis]
        assert stop - start == (8 if axis == plane_axis(plane) else 10)


@pytest.mark.parametrize("foreground", [FOREGROUND, ((0, 0),) * 3], ids=["brain", "empty"])
def test_slab_larger_than_the_volume_is_the_volume(foreground):
    result = RandPlaneSlabd(["mask", "image"], "axial", 128, 48)(item(foreground=foreground))
    assert torch.equal(result["image"], coordinates())


def test_every_plane_is_drawn_and_none_else():
    transform = RandPlaneSlabd("mask", ("axial", "sagittal"), 8, 4).set_random_state(0)
    drawn = [transform(item())[PLANE_KEY] for _ in range(60)]
    assert set(drawn) == {"axial", "sagittal"}
    assert 15 < drawn.count("axial") < 45
    assert set(RandPlaneSlabd("mask").planes) == set(PLANES)


@pytest.mark.parametrize("planes", ["axail", ["axial", "transversal"], "Axial"], ids=str)
def test_misspelt_plane_fails_at_construction(planes):
    with pytest.raises(ValueError, match="unknown plane"):
        RandPlaneSlabd("mask", planes)


# --- slices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("reach", [0, 2])
def test_slices_are_slices_of_the_volume_with_their_neighbours(plane, reach):
    volume = coordinates()
    along = plane_axis(plane)
    rows, columns = (axis for axis in range(3) if axis != along)
    transform = RandSlicesd("label", "image", num_samples=12, reach=reach).set_random_state(0)
    samples = transform({"label": MetaTensor(volume), "image": volume.clone(), "case": "x", PLANE_KEY: plane})
    assert len(samples) == 12
    for sample in samples:
        assert set(sample) == {"label", "image"}
        label = sample["label"]
        assert type(label) is torch.Tensor and label.shape == (3, SHAPE[rows], SHAPE[columns])
        number = int(label[along, 0, 0])
        assert torch.equal(label, volume.select(along + 1, number))
        windows = sample["image"].unflatten(0, (3, 2 * reach + 1))
        for offset in range(-reach, reach + 1):
            neighbour = min(max(number + offset, 0), SHAPE[along] - 1)
            assert torch.equal(windows[:, offset + reach], volume.select(along + 1, neighbour))


@pytest.mark.parametrize(("num_samples", "distinct"), [(5, 5), (22, 22), (40, None)])
def test_slices_repeat_only_when_there_are_too_few(num_samples, distinct):
    transform = RandSlicesd("image", "image", num_samples).set_random_state(0)
    samples = transform({"image": coordinates(), PLANE_KEY: "sagittal"})
    numbers = [int(sample["image"][2, 0, 0]) for sample in samples]  # the middle neighbour's x
    assert len(numbers) == num_samples
    assert len(set(numbers)) == distinct if distinct else len(set(numbers)) <= SHAPE[0]


def test_condition_keys_may_be_several():
    volumes = {"label": coordinates(), "a": coordinates(), "b": 2 * coordinates(), PLANE_KEY: "axial"}
    for sample in RandSlicesd("label", ["a", "b"], 3, reach=1)(volumes):
        assert torch.equal(2 * sample["a"], sample["b"])
        assert torch.equal(sample["a"][1::3], sample["label"])


def test_absent_key_is_an_error():
    with pytest.raises(KeyError, match="label"):
        RandSlicesd("label", "image")({"image": coordinates(), PLANE_KEY: "axial"})


# --- both -------------------------------------------------------------------------------------------------


def chain(seed: int) -> list[dict]:
    """Return the slices that slab and slices, chained, draw with a seed."""
    transform = Compose([RandPlaneSlabd(["mask", "image"], PLANES, 10, 6), RandSlicesd("mask", "image", 4)])
    return transform.set_random_state(seed)(item())


def test_random_state_repeats_the_draws():
    first, again = chain(5), chain(5)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again, strict=True) for key in a)
    draws = [torch.stack([sample["image"] for sample in chain(seed)]) for seed in range(5)]
    assert not any(torch.equal(a, b) for a, b in pairwise(draws))


@pytest.mark.parametrize("seed", range(4))
def test_chained_they_give_square_slices_of_the_brain(seed):
    samples = chain(seed)
    assert len(samples) == 4
    for sample in samples:
        assert sample["mask"].shape == (1, 10, 10) and (sample["mask"] == 1).all()
        assert sample["image"].shape == (15, 10, 10)
