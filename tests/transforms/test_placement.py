"""Placement: heads shrink and turn, thick slices stay slices, voxels only move where nothing is resampled."""

import numpy as np
import pytest
import torch

from monai_diffens.acquisition.slicing import PATCH_GRID
from monai_diffens.transforms.augmentation import RandPlacementd


def block(begin: int = 20, end: int = 60) -> torch.Tensor:
    volume = torch.zeros(1, 80, 72, 64)
    volume[0, begin:end, 30:50, 24:44] = 1.0
    return volume


def extent(volume: torch.Tensor) -> list[int]:
    inside = (volume[0] > 0.5).nonzero()
    return (inside.amax(0) - inside.amin(0) + 1).tolist()


@pytest.mark.parametrize("zoom", [0.7, 0.9])
def test_a_head_shrinks_by_the_zoom(zoom):
    placed = RandPlacementd("label", prob=1.0, zoom=(zoom, zoom), degrees=0.0)({"label": block()})["label"]
    np.testing.assert_allclose(extent(placed), [40 * zoom, 20 * zoom, 20 * zoom], atol=1.01)


def test_thick_slices_stay_slices():
    place = RandPlacementd("label", prob=1.0, degrees=30.0).set_random_state(3)
    for _ in range(5):
        placed = place({"label": block(), "sharp_plane": "axial"})["label"][0] > 0.5
        shown = placed.flatten(0, 1).any(dim=0)
        assert int(shown.sum()) == 20  # slices: as many as before, and in one piece
        assert extent(placed[None])[2] == 20
        assert placed.float().sum(dim=(0, 1))[shown].unique().numel() == 1


def test_unresampled_voxels_keep_their_values_and_only_move():
    volume = torch.rand(2, 24, 30, 17)
    placed = RandPlacementd(["label", "image"], prob=0.0).set_random_state(0)(
        {"label": volume[:1], "image": volume[1:]}
    )
    moved = torch.cat([placed["label"], placed["image"]])
    assert all(side % PATCH_GRID == 0 for side in moved.shape[1:])
    torch.testing.assert_close(moved.sum(), volume.sum(), rtol=1e-5, atol=0)
    begin = moved[0].nonzero().amin(0).tolist()
    region = (slice(None), *[slice(b, b + n) for b, n in zip(begin, volume.shape[1:], strict=True)])
    assert torch.equal(moved[region], volume)
    assert max(begin) < PATCH_GRID


def test_every_key_is_placed_alike():
    place = RandPlacementd(["a", "b"], prob=1.0).set_random_state(1)
    placed = place({"a": block(), "b": 2 * block()})
    torch.testing.assert_close(placed["b"], 2 * placed["a"])
