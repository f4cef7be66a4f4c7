"""Warnings on scans unlike the training volumes: on CT and upside-down heads, not on test subjects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.demo import load_truth
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.target_grid import RestoreToSpacingd
from monai_diffens.transforms.unlike_training import (
    CONTRAST_REFERENCE,
    PERCENTILES,
    REFERENCE,
    FlagUnlikeTrainingd,
    ScanTraits,
    load_ranges,
)
from research.training_range import range_of_sites, save_ranges

LOAD = Compose(
    [
        LoadImaged("image", reader="NibabelReader", ensure_channel_first=True),
        Orientationd("image", axcodes="RAS", labels=None),
    ]
)


@pytest.fixture(scope="module")
def brain() -> MetaTensor:
    """The template brain at 1 mm, in RAS order, 0 outside."""
    volume, affine = load_truth()
    template = MetaTensor(volume.reshape(1, *volume.shape[-3:]), affine=affine)
    return Orientationd("image", axcodes="RAS", labels=None)({"image": template})["image"]


def flags(volume, spacing: float = 1.0, affine=None) -> list[str]:
    """Warnings on a volume (1, X, Y, Z)."""
    affine = np.diag([spacing, spacing, spacing, 1.0]) if affine is None else affine
    scan = MetaTensor(torch.as_tensor(np.ascontiguousarray(volume)), affine=affine)
    return FlagUnlikeTrainingd("image")({"image": scan, "case": "a"}).get("warnings", [])


def test_a_brain_as_in_training(brain):
    assert flags(brain) == []


@pytest.mark.parametrize("factor", [(1, 1, 5), (4, 1, 1), (4, 4, 4)], ids=str)
def test_a_thick_sliced_brain_as_in_training(brain, factor):
    x, y, z = (n // f * f for n, f in zip(brain.shape[1:], factor, strict=True))
    fx, fy, fz = factor
    blocks = brain.numpy()[0, :x, :y, :z].reshape(x // fx, fx, y // fy, fy, z // fz, fz)
    thick = MetaTensor(torch.as_tensor(blocks.mean((1, 3, 5))[None]), affine=np.diag([*factor, 1.0]))
    restored = RestoreToSpacingd("image", spacing=1.0)({"image": thick})["image"]
    assert flags(restored, affine=restored.affine) == []


@pytest.mark.parametrize("axes", [(3,), (2,), (2, 3), (1, 2, 3)], ids=str)
def test_a_head_that_lies_another_way_than_its_header_says(brain, axes, caplog):
    told = flags(np.flip(brain.numpy(), axes))
    assert len(told) == 1 and "by its shape the head lies" in told[0]
    codes = "".join(("RL", "AP", "SI")[axis][axis + 1 in axes] for axis in range(3))
    said = told[0].split("lies ")[1][:3]
    assert said[1:] == codes[1:]  # left and right cannot be told from the shape
    assert caplog.records[-1].message == f"a: {told[0]}"


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (0, 3, 2, 1), (0, 3, 1, 2)], ids=str)
def test_a_head_with_its_axes_in_another_order(brain, order):
    told = flags(brain.numpy().transpose(order))
    assert len(told) == 1 and "by its shape the head lies" in told[0]


def test_left_and_right_cannot_be_told(brain):
    assert flags(np.flip(brain.numpy(), 1)) == []


@pytest.mark.parametrize("offset", [0, 1024])
def test_computed_tomography(brain, offset):
    """Air, brain and a skull around it, in Hounsfield units; with an offset as some exports have it."""
    volume = brain.numpy()
    inside = volume > 0
    unlike = np.where(inside, 20 + 30 * volume / volume.max(), -1000)
    shell = np.zeros_like(inside)
    for axis in (1, 2, 3):
        for step in (-4, 4):
            shell |= np.roll(inside, step, axis)
    unlike[shell & ~inside] = 1200
    told = flags((unlike + offset).astype(np.float32))
    assert any("intensities are unlike the training scans" in line for line in told)


def test_a_brain_with_more_fluid_is_like_the_training_scans_of_its_contrast(brain):
    """A third of the fluid's brightness taken away is disease; the same added is no contrast of ours."""
    traits = load_ranges(CONTRAST_REFERENCE)["T1w"].measure(brain)
    below = np.array(PERCENTILES) < 50
    for reference in load_ranges(CONTRAST_REFERENCE).values():
        inside = replace(traits, intensities=np.mean(reference.intensities, axis=0))
        dark, bright = (np.where(below, end, inside.intensities) for end in (0.0, 1.6))
        assert reference.complaints(replace(inside, intensities=dark)) == {}
        assert list(reference.complaints(replace(inside, intensities=bright))) == ["unlike_intensities"]


def test_computed_tomography_in_place_of_a_contrast(brain):
    inside = brain.numpy() > 0
    ct = np.where(inside, 1044 + 30 * brain.numpy() / brain.numpy().max(), 24).astype(np.float32)
    with pytest.raises(InputRejected):
        several(**{CONTRASTS[0]: ct})
    for name in CONTRASTS:
        told = several(force=True, **{name: ct})[1:]
        assert told[0].startswith(f"{name}: intensities are unlike the training scans")


def ball(*radii: float, seed: int = 0) -> np.ndarray:
    """An ellipsoid of noise in a box that it does not touch; half axes in mm, 1 mm voxels."""
    axes = [np.arange(-radius - 4, radius + 5) / radius for radius in radii]
    inside = sum(np.square(each) for each in np.meshgrid(*axes, indexing="ij")) < 1
    noise = np.random.default_rng(seed).random(inside.shape)
    return (inside * (0.2 + noise)).astype(np.float32)


@pytest.mark.parametrize(
    "radii",
    [(68, 84, 66), (85, 85, 85), (30, 30, 30), (120, 90, 80)],
    ids=["a phantom of a brain's size", "a large ball", "a small thing", "a trunk"],
)
def test_what_is_not_a_head_is_refused(radii):
    seen = ball(*radii)
    seen = np.pad(
        seen, [(0, max(0, 120 - size)) for size in seen.shape]
    )  # in a field that could hold a brain
    item = {"image": MetaTensor(torch.from_numpy(seen)[None], affine=np.eye(4)), "case": "a"}
    with pytest.raises(InputRejected) as refused:
        FlagUnlikeTrainingd("image")(dict(item))
    extent = " x ".join(f"{2 * radius - 1}" for radius in radii)
    assert str(refused.value) == say("not_a_head", name="a", extent=extent)
    warned = FlagUnlikeTrainingd("image", force=True)(dict(item))["warnings"]
    assert say("forced_no_head", extent=extent) in warned


def test_a_head_with_skull_and_a_cut_brain_are_told_apart(brain):
    reference = load_ranges()["any"]
    whole = reference.measure(brain)
    assert reference.kind(whole) == reference.kind(whole, head=True) == "brain"
    part = reference.measure(MetaTensor(brain.as_tensor()[..., 60:100], affine=np.eye(4)))
    assert part.cut[2] and reference.kind(part) == reference.kind(part, head=True) == "cropped"
    head = MetaTensor(torch.from_numpy(ball(80, 108, 110))[None], affine=np.eye(4))
    assert reference.kind(reference.measure(head), head=True) == "head"
    assert list(reference.complaints(reference.measure(head), head=True)) == ["with_skull"]


def test_a_head_that_is_kept_is_measured_inside_its_brain(brain):
    """Fault 34: fat around the skull is no intensity of a brain, and a skull no extent of one."""
    shape = brain.shape[1:]
    skull = np.pad(brain.numpy()[0], 20)
    around = np.pad(ball(*(n / 2 + 12 for n in shape)), 0)
    start = [(a - b) // 2 for a, b in zip(skull.shape, around.shape, strict=True)]
    box = tuple(slice(s, s + n) for s, n in zip(start, around.shape, strict=True))
    fat = np.zeros_like(skull)
    fat[box] = around
    head = np.where(skull > 0, skull, 3 * skull.max() * (fat > 0)).astype(np.float32)
    affine = np.eye(4)
    mask = MetaTensor(torch.from_numpy((skull > 0).astype(np.float32))[None], affine=affine)
    scan = MetaTensor(torch.from_numpy(head)[None], affine=affine)
    assert FlagUnlikeTrainingd("image")({"image": scan, "brain": mask, "case": "a"}).get("warnings") is None
    kept = FlagUnlikeTrainingd("image")({"image": scan, "head_shown": True, "case": "a"})
    assert len(kept["warnings"]) == 1 and "head_shown" not in kept


def test_a_part_of_a_head(brain):
    told = flags(brain.numpy()[..., 60:100])
    assert len(told) == 1 and told[0].startswith("the brain spans") and "cut off" in told[0]


def test_other_voxels_than_trained(brain):
    told = flags(brain.numpy()[:, ::2, ::2, ::2], spacing=2.0)
    assert told == ["the result has voxels of 2 x 2 x 2 mm, trained was 1 x 1 x 1 mm"]


def test_warnings_are_added(brain):
    scan = MetaTensor(brain.as_tensor()[..., 60:100], affine=np.eye(4))
    item = {"image": scan, "case": "a", "warnings": ["before"]}
    flagged = FlagUnlikeTrainingd("image")(item)
    assert flagged["warnings"][0] == "before" and len(flagged["warnings"]) == 2
    assert flagged["image"] is scan and item["warnings"] == ["before"]


@pytest.mark.parametrize("path", [REFERENCE, CONTRAST_REFERENCE], ids=["together", "contrasts"])
def test_the_references_hold_no_scan(path):
    assert path.stat().st_size < 4096
    for reference in load_ranges(path).values():
        low, high = reference.intensities
        assert low.shape == (len(PERCENTILES),)
        assert ((low < high) | (low == 1)).all()  # all are 1 at the percentile that they are scaled by


def test_saved_and_loaded(tmp_path, brain):
    one = ScanTraits.of(brain)
    other = ScanTraits.of(MetaTensor(brain.as_tensor() ** 2, affine=brain.affine))
    made = range_of_sites({"a": [one], "b": [other]})
    save_ranges({"T1w": made}, tmp_path / "range.json")
    read = load_ranges(tmp_path / "range.json")["T1w"]
    assert read.volumes == 2 and read.scaled_by == made.scaled_by == 99.5
    assert read.intensity_margin == pytest.approx(np.abs(one.intensities - other.intensities).max(), abs=1e-3)
    np.testing.assert_allclose(read.extent, made.extent, atol=1e-3)
    np.testing.assert_allclose(read.skewness, made.skewness, atol=1e-3)
    assert read.complaints(one) == {}


def test_one_site_gives_no_margin(brain):
    with pytest.raises(ValueError, match="two sites or more, got 1"):
        range_of_sites({"a": [ScanTraits.of(brain)]})


def several(force: bool = False, **volumes) -> list[str]:
    """Warnings on a case of several contrasts, each with its own reference."""
    scans = {key: MetaTensor(torch.as_tensor(v), affine=np.eye(4)) for key, v in volumes.items()}
    flag = FlagUnlikeTrainingd(CONTRASTS, percentile=50, force=force, allow_missing_keys=True)
    return flag({**scans, "case": "a"}).get("warnings", [])


def test_of_several_contrasts_each_has_its_own_range(brain):
    volume = brain.as_tensor()
    assert several(T1w=volume) == several(T1w=100 * volume) == []
    bright = torch.where(volume > volume[volume > 0].median(), 9 * volume, volume)
    (line,) = several(T1w=volume, T2w=bright)
    assert line.startswith("T2w: intensities are unlike the training scans") and "% of the median" in line


def test_what_is_said_of_the_first_contrast_is_not_said_again(brain):
    half = brain.as_tensor()[..., 60:100]
    told = several(T1w=half, FLAIR=half**0.5)
    assert [line.split(" spans")[0] for line in told] == ["T1w: the brain"]
