"""Which slices an expert runs together, and the part of them that shows something.

A brain fills well under half of its box: slices near its ends show little of it. Blocks of neighbouring
slices are cropped to what they show, so that empty space costs nothing in a plane either. A block belongs to
its place in the volume, not to a chunk or a process, so neither changes what a slice is cropped to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_diffens.acquisition.slicing import PATCH_GRID, in_plane_axes, plane_axis

BLOCK = 8  # slices that are cropped alike
MARGIN = 2  # voxels around what they show
SIDE_STEP = 16  # sides of a crop are multiples of it: each size costs a processor's library a set-up


# constants come as defaults: compiled code reads no globals
def slice_boxes(
    seen: Tensor,
    plane: str,
    block_size: int = BLOCK,
    margin: int = MARGIN,
    side_step: int = SIDE_STEP,
    grid: int = PATCH_GRID,
) -> list[list[int]]:
    """Box of what each block of a plane's slices shows.

    Args:
        seen: (B, 1, X, Y, Z) bool, the voxels that show something.
        plane: plane of the slices.
        block_size: slices a block.
        margin: voxels around what is shown.
        side_step: sides are multiples of it, as far as the volume reaches.
        grid: the box begins at multiples of it.

    Returns:
        For each block, those of one volume behind those of the other: first row and end, first column and
        end of the box in its slices; all 0 where it shows nothing.
    """
    axis, (row_axis, column_axis) = plane_axis(plane), in_plane_axes(plane)
    count = seen.shape[2 + axis]
    blocks = (count + block_size - 1) // block_size
    boxes: list[list[int]] = []
    rows, columns = _shown_lines(seen, axis, column_axis), _shown_lines(seen, axis, row_axis)
    for volume in range(seen.shape[0]):
        for block in range(blocks):
            first = volume * count + block * block_size
            end = volume * count + min(count, (block + 1) * block_size)
            box: list[int] = []
            for shown in [rows[first:end], columns[first:end]]:
                box.extend(_extent(shown.any(dim=0), margin, side_step, grid))
            boxes.append(box)
    return boxes


def slice_passes(
    first: int,
    last: int,
    count: int,
    size: list[int],
    chunk: int,
    boxes: list[list[int]] | None,
    block_size: int = BLOCK,
) -> list[list[list[int]]]:
    """Share slices out among passes of an expert.

    Args:
        first: first slice, counted over the batch.
        last: one past the last.
        count: slices a volume.
        size: rows and columns of a slice.
        chunk: most slices a pass.
        boxes: see :func:`slice_boxes`; whole slices are run when None.
        block_size: likewise.

    Returns:
        For each pass its parts, each of one volume, one behind the other and of one size: first slice, end,
        first row, end, first column, end. Slices of blocks that show nothing are in none.
    """
    passes: list[list[list[int]]] = []
    held, last_end, last_shown = 0, -1, [0, 0]
    begin = first
    while begin < last:
        volume, place = begin // count, begin % count
        end = min(begin + chunk, last, (volume + 1) * count)
        box = [0, size[0], 0, size[1]]
        if boxes is not None:
            block = place // block_size
            end = min(end, volume * count + (block + 1) * block_size)
            box = boxes[volume * ((count + block_size - 1) // block_size) + block]
        shown = [box[1] - box[0], box[3] - box[2]]
        if shown[0] > 0:
            part = [begin, end, box[0], box[1], box[2], box[3]]
            if begin == last_end and shown == last_shown and held + end - begin <= chunk:
                passes[-1].append(part)
            else:
                passes.append([part])
                held = 0
            held += end - begin
            last_end, last_shown = end, shown
        begin = end
    return passes


def crop_slices(volume: Tensor, plane: str, part: list[int]) -> Tensor:
    """View of a volume (B, C, X, Y, Z) cropped to a part's rows and columns; all slices are kept."""
    rows, columns = in_plane_axes(plane)
    return volume.narrow(2 + rows, part[2], part[3] - part[2]).narrow(2 + columns, part[4], part[5] - part[4])


def _shown_lines(seen: Tensor, axis: int, along: int) -> Tensor:
    """Whether the lines ``along`` one axis of each slice across ``axis`` show anything, (B * N, lines)."""
    # the largest byte: `any` takes ten times as long
    shown = seen[:, 0].to(torch.uint8).amax(dim=1 + along, keepdim=True) > 0
    return shown.movedim(1 + axis, 1).flatten(2).flatten(0, 1).cpu()


def _extent(shown: Tensor, margin: int, side_step: int, grid: int) -> list[int]:
    """Begin and end of a box's side along a line of voxels, 0 and 0 where none is shown."""
    places = shown.nonzero()
    if places.numel() == 0:
        return [0, 0]
    whole = shown.shape[0]
    begin = max(0, int(places.min().item()) - margin) // grid * grid
    side = int(places.max().item()) + 1 + margin - begin
    side = (side + side_step - 1) // side_step * side_step
    if begin + side > whole:  # moved back, as far as there is room
        begin = max(0, whole - side) // grid * grid
    return [begin, min(whole, begin + side)]
