"""Joint conditions: any contrast the target, any subset given, the target's own scan thick-sliced."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.transforms.conditions import (
    RandPresenced,
    RandTargetd,
    StackContrastsd,
    random_subset,
    thick_planes,
    with_presence,
)
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, ThickSlicesd

NAMES = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def case(*names: str, **more) -> dict:
    torch.manual_seed(0)
    brain = torch.zeros(1, 8, 8, 8)
    brain[:, 2:6, 2:6] = 1
    return {name: MetaTensor((0.5 + torch.rand(1, 8, 8, 8)) * brain) for name in names} | more


def test_every_contrast_is_a_target_thin_ones_more_often():
    choose = RandTargetd(NAMES, odds=(1, 1, 1, 2), thin_odds=3.0).set_random_state(0)
    drawn = [choose(case("T1w", "FLAIR", thick="FLAIR")) for _ in range(600)]
    targets = [d["target"] for d in drawn]
    assert targets.count(0) / 600 == pytest.approx(3 / 5, abs=0.06) and set(targets) == {0, 3}
    for d in drawn[:20]:
        assert NAMES[d["target"]] not in d and torch.equal(d["label"], d["low"])
        assert ("sharp_plane" in d) == (d["target"] == 3)


def test_thick_contrasts_name_the_plane_of_their_slices():
    assert (
        thick_planes("T2w FLAIR=sagittal") == {"T2w": "axial", "FLAIR": "sagittal"} and thick_planes("") == {}
    )
    choose = RandTargetd(NAMES, odds=(0, 0, 0, 1)).set_random_state(0)
    assert choose(case("T1w", "FLAIR", thick="T1w FLAIR=coronal"))["sharp_plane"] == "coronal"


def test_contrasts_are_stacked_with_the_targets_scan_in_its_place():
    d = RandTargetd(NAMES, odds=(1, 0, 0, 0)).set_random_state(0)(case("T1w", "T2w"))
    d = ThickSlicesd("low", (1, 1, 4))(d)
    stacked = StackContrastsd(NAMES)(d)
    image, brain = stacked["image"], stacked["label"] > 0
    assert stacked["has"].tolist() == [True, False, True, False]
    assert not image[1].any() and not image[3].any() and not image[:, ~brain[0]].any()
    assert torch.equal(image[2], case("T1w", "T2w")["T2w"][0].as_tensor())
    assert SAMPLING_KEY in image.meta
    # thick slices of what is given and of the truth agree
    pooled = [volume.unflatten(2, (2, 4)).mean(3) for volume in (image[0], stacked["label"][0])]
    torch.testing.assert_close(*pooled, rtol=0.02, atol=0.02)


def test_subsets_hold_something_and_keep_what_is_there():
    random = np.random.RandomState(0)
    has = torch.tensor([True, False, True, True])
    drawn = torch.stack([random_subset(has, 3, random) for _ in range(800)])
    assert drawn.any(dim=1).all() and not drawn[:, 1].any()
    assert float(drawn[:, 0].float().mean()) == pytest.approx(0.65 + 0.35**2 * 0.7 / 3, abs=0.05)
    alone = torch.tensor([False, False, False, True])
    assert torch.equal(random_subset(alone, 3, random, (0.65, 0.0)), alone)


@pytest.mark.parametrize(
    ("sharp", "plane", "group"), [(None, "coronal", 2), ("axial", "axial", 2), ("axial", "coronal", 6)]
)
def test_slices_across_a_thick_targets_slices_are_a_class_of_their_own(sharp, plane, group):
    crop = {"image": torch.rand(12, 8, 8), "label": torch.rand(1, 8, 8), "plane": plane, "target": 2}
    crop |= {"has": torch.tensor([True, True, True, False])} | (
        {} if sharp is None else {"sharp_plane": sharp}
    )
    drawn = RandPresenced("image").set_random_state(4)(crop)
    assert drawn["group"] == group and set(drawn) == {"image", "label", "group"}
    present = drawn["image"][12:, 0, 0].bool()
    assert torch.equal(drawn["image"], with_presence(crop["image"], present)) and not present[3]
    for number, there in enumerate(present):
        shown = drawn["image"][3 * number : 3 * number + 3]
        assert torch.equal(shown, crop["image"][3 * number : 3 * number + 3] * there)
