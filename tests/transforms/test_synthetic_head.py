"""Heads of label maps: a brightness a label, sides alike, nothing outside, another contrast each time."""

import pytest
import torch

from monai_diffens.transforms.augmentation import RandSyntheticHeadd


def labels() -> torch.Tensor:
    volume = torch.zeros(1, 24, 24, 24)
    volume[:, 2:22, 2:22, 2:22] = 501.0  # around the brain
    volume[:, 4:12, 4:20, 4:20] = 2.0  # white matter, left
    volume[:, 12:20, 4:20, 4:20] = 41.0  # and right
    return volume


def test_sides_are_alike_and_the_outside_is_empty():
    make = RandSyntheticHeadd("maps", stripped_prob=0.0).set_random_state(2)
    seen = set()
    for _ in range(4):
        d = make({"maps": labels()})
        assert set(d) == {"label"}
        head = d["label"]
        assert head.shape == (1, 24, 24, 24) and float(head.min()) >= 0
        assert not head[labels() == 0].any()
        left, right = head[0, 6:10, 6:18, 6:18].mean(), head[0, 14:18, 6:18, 6:18].mean()
        assert float(left) == pytest.approx(float(right), abs=0.03)
        assert bool(head[labels() == 501].any())
        seen.add(round(float(left), 2))
    assert len(seen) >= 3


def test_a_stripped_head_is_the_brain_alone():
    head = RandSyntheticHeadd("maps", stripped_prob=1.0).set_random_state(0)({"maps": labels()})["label"]
    assert not head[labels() == 501].any() and bool(head[labels() == 2].any())


def test_items_without_a_map_pass():
    item = {"label": torch.rand(1, 4, 4, 4)}
    assert RandSyntheticHeadd("maps")(item)["label"] is item["label"]
