"""Volumes to slices and back: nothing is lost, and every voxel goes where the plane says."""

import pytest
import torch
import torch.nn.functional as F

from monai_diffens.acquisition.slicing import (
    PLANES,
    from_slice_patches,
    gather_slices,
    neighbour_slices,
    plane_axis,
    put_slices,
    to_slice_patches,
    to_slices,
    to_volume,
)

SIZE = (3, 5, 4)
# plane -> (axis of the slices, axis that becomes H, axis that becomes W)
AXES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}


def coordinates(batch_size: int = 1, size: tuple[int, int, int] = SIZE) -> torch.Tensor:
    """Volumes (B, 4, X, Y, Z) whose channels are the voxel's x, y, z and its volume's number."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
    number = torch.arange(batch_size).reshape(-1, 1, 1, 1, 1).expand(batch_size, 1, *size)
    return torch.cat([grid.expand(batch_size, 3, *size), number], dim=1).float()


@pytest.mark.parametrize("plane", PLANES)
def test_slice_n_of_a_plane_holds_the_voxels_with_that_coordinate(plane):
    volume = coordinates(batch_size=2)
    slices = to_slices(volume, plane)
    along, rows, columns = AXES[plane]
    count = SIZE[along]
    assert plane_axis(plane) == along
    assert slices.shape == (2 * count, 4, SIZE[rows], SIZE[columns])
    for index, image in enumerate(slices):
        assert (image[3] == index // count).all()  # the slices of one volume side by side
        assert (image[along] == index % count).all()
        assert (image[rows] == torch.arange(SIZE[rows])[:, None]).all()
        assert (image[columns] == torch.arange(SIZE[columns])[None, :]).all()


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [SIZE, (1, 7, 2), (6, 1, 1), (8, 8, 8)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_round_trip(plane, size, batch_size):
    volume = torch.rand(batch_size, 2, *size)
    torch.testing.assert_close(to_volume(to_slices(volume, plane), plane, batch_size), volume, rtol=0, atol=0)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("reach", [0, 1, 2, 6])  # 6: beyond the whole volume
def test_neighbours_are_replicated_at_the_edges_and_ordered_by_channel_then_offset(plane, reach):
    volume = torch.rand(2, 3, *SIZE)
    slices = to_slices(volume, plane).unflatten(0, (2, -1))  # (B, N, C, H, W)
    count = slices.shape[1]
    windows = neighbour_slices(volume, plane, reach)
    assert windows.shape == (2 * count, 3 * (2 * reach + 1), *slices.shape[-2:])
    windows = windows.unflatten(0, (2, count)).unflatten(2, (3, 2 * reach + 1))  # (B, N, C, offset, H, W)
    for n in range(count):
        for channel in range(3):
            for offset in range(-reach, reach + 1):
                expected = slices[:, min(max(n + offset, 0), count - 1), channel]
                assert torch.equal(windows[:, n, channel, offset + reach], expected)


@pytest.mark.parametrize("plane", PLANES)
def test_middle_neighbour_is_the_slice_itself(plane):
    volume = torch.rand(2, 3, *SIZE)
    assert torch.equal(neighbour_slices(volume, plane, 2)[:, 2::5], to_slices(volume, plane))


@pytest.mark.parametrize("plane", PLANES)
def test_gradients_pass_through_unchanged(plane):
    volume = torch.rand(1, 1, *SIZE, requires_grad=True)
    to_volume(to_slices(volume, plane), plane, 1).backward(torch.ones(1, 1, *SIZE))
    assert torch.equal(volume.grad, torch.ones_like(volume))


@pytest.mark.parametrize("function", [to_slices, to_volume, neighbour_slices])
@pytest.mark.parametrize("plane", ["transversal", "Axial", ""])
def test_unknown_plane_is_named(function, plane):
    arguments = () if function is to_slices else (1,)
    tensor = torch.zeros(2, 1, 2, 2) if function is to_volume else torch.zeros(1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match=f"unknown plane '{plane}'"):
        function(tensor, plane, *arguments)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize(("begin", "end"), [(0, 3), (2, 5), (7, 12), (0, 6)])
def test_gathered_slices_are_those_of_the_whole_with_the_neighbours_of_the_ends(plane, begin, end, reach):
    volume = torch.randn(2, 1, 6, 6, 6)
    gathered = gather_slices(volume, plane, begin, end, reach)
    expected = neighbour_slices(volume, plane, reach)[begin:end]
    assert torch.equal(gathered[:, 0].unfold(0, 2 * reach + 1, 1).movedim(3, 1), expected)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("begin", "end"), [(0, 3), (2, 9), (0, 12)])
def test_slices_are_put_where_the_whole_has_them(plane, begin, end):
    volume, slices = torch.zeros(2, 2, 6, 6, 6), torch.randn(end - begin, 2, 6, 6)
    put_slices(volume, slices, plane, begin)
    found = to_slices(volume, plane)
    assert torch.equal(found[begin:end], slices)
    assert not found[:begin].any() and not found[end:].any()


@pytest.mark.parametrize("size", [(8, 12), (7, 9)], ids=str)
def test_patches_of_slices_go_back(size):
    slices = torch.randn(3, 2, *size)
    patches = to_slice_patches(slices, 2, 4)
    assert patches.shape == (3, 2, 4, 6, 4)
    assert torch.equal(
        patches[:, 1].permute(0, 3, 1, 2),
        F.pixel_unshuffle(F.pad(slices[:, 1:], (0, 12 - size[1], 0, 8 - size[0])), 2),
    )
    for channel in range(2):
        back = from_slice_patches(patches[:, channel], 2)[..., : size[0], : size[1]]
        assert torch.equal(back[:, 0], slices[:, channel])
