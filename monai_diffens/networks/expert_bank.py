"""All 2D experts of a model, one a plane, or one for each group of conditions in each plane.

A brain fills well under half of its box: slices near its ends show little of it. Blocks of neighbouring
slices are cropped to what they show, so that empty space costs nothing in a plane either. A block belongs to
its place in the volume, not to a chunk or a process, so neither changes what a slice is cropped to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import (
    PATCH_GRID,
    PLANES,
    gather_slices,
    in_plane_axes,
    plane_axis,
    put_slices,
    to_slices,
)
from monai_diffens.networks.plane_denoiser import PlaneDenoiser

BLOCK = 8  # slices that are cropped alike
MARGIN = 2  # voxels around what they show
SIDE_STEP = 16  # sides of a crop are multiples of it: each size costs a processor's library a set-up


class ExpertBank(nn.Module):
    """Run frozen or trainable 2D experts over whole volumes, slice by slice.

    Each plane has one network, and one file holds them all. Of several conditions an expert sees all of
    its group, with a channel for each that says whether it is there (a joint expert); MONAI's class embedding
    says which contrast to make (:attr:`target`).

    Args:
        planes: planes that have an expert.
        conditions: names of the condition volumes.
        groups: names of the conditions that each expert of a plane sees; one expert sees all when None.
        target: of several conditions, the one whose contrast is made unless a call says another; the first
            when None.
        reach: neighbour slices on each side that the condition brings (2.5D).
        slice_chunk: slices a pass; bounds memory, never changes the result. None runs a plane at once.
        **denoiser: further arguments of :class:`PlaneDenoiser`.
    """

    def __init__(
        self,
        planes: Sequence[str] = PLANES,
        conditions: Sequence[str] = ("image",),
        groups: Sequence[Sequence[str]] | None = None,
        target: str | None = None,
        reach: int = 2,
        slice_chunk: int | None = 32,
        **denoiser: Any,
    ) -> None:
        super().__init__()
        self.planes = tuple(planes)
        self.conditions = tuple(conditions)
        self.reach = reach
        self.slice_chunk = slice_chunk or 1_000_000
        self.rank, self.world_size = 0, 1  # see share
        members = [list(each) for each in groups or [self.conditions]]
        for name in (each for group in members for each in group):
            if name not in self.conditions:
                raise ValueError(f"unknown condition '{name}' of an expert: use {', '.join(self.conditions)}")
        self.groups = tuple("+".join(group) for group in members)
        masks = torch.tensor([[name in group for name in self.conditions] for group in members])
        self.register_buffer("group_masks", masks, persistent=False)
        # "plane" or "plane/group", in the order of the predictions
        single = len(self.groups) == 1
        self.names = [p if single else f"{p}/{group}" for p in self.planes for group in self.groups]
        self.expert_planes = [plane for plane in self.planes for _ in self.groups]
        self.expert_groups = [index for _ in self.planes for index in range(len(self.groups))]
        self.target = 0 if target is None else self.conditions.index(target)  # class label
        volumes = len(self.conditions)
        self.experts = nn.ModuleList(
            [
                PlaneDenoiser(condition_channels=volumes * (2 * reach + 1), conditions=volumes, **denoiser)
                for _ in self.planes
            ]
        )

    def forward(
        self,
        x_t: Tensor,
        conditions: Tensor,
        timesteps: Tensor,
        present: Tensor | None = None,
        boxes: list[list[list[int]]] | None = None,
        empty: float = 0.0,
        target: int = -1,
    ) -> Tensor:
        """Predict with every expert that is present, in all processes together.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z), in the order of ``conditions``.
            timesteps: (B,).
            present: (E,) bool, or (B, E) where cases differ; an absent expert's prediction is zero, and it is
                not run where every case lacks it. All when None.
            boxes: for each plane those of :func:`slice_boxes`, which its slices are cropped to. A network's
                statistics and attention are then of that part alone, as of the crops it was trained on. Whole
                slices are run when None.
            empty: what experts predict outside of the boxes, over x_t; there they are not run.
            target: of several conditions, number of the one whose contrast is made; :attr:`target` where it
                is negative.

        Returns:
            (B, E, X, Y, Z), in the order of ``names``.
        """
        # not a list to be joined at the end: that would hold every prediction twice
        predictions = x_t.new_zeros([x_t.shape[0], len(self.names)] + list(x_t.shape[2:]))
        has = present_conditions(conditions)
        label = target if target >= 0 else self.target
        for number, network in enumerate(self.experts):
            plane = self.planes[number]
            count = x_t.shape[2 + plane_axis(plane)]  # slices of a volume
            first = count * x_t.shape[0] * self.rank // self.world_size
            last = count * x_t.shape[0] * (self.rank + 1) // self.world_size
            sides = [x_t.shape[2 + axis] for axis in in_plane_axes(plane)]
            shown = None if boxes is None else boxes[number]
            passes = slice_passes(first, last, count, sides, self.slice_chunk, shown)
            for group in range(len(self.groups)):
                index = number * len(self.groups) + group
                if present is None or bool(present[..., index].any()):  # `continue` does not script
                    prediction = predictions[:, index : index + 1]
                    if boxes is not None:
                        put_slices(prediction, empty * to_slices(x_t, plane)[first:last], plane, first)
                    labels = torch.full_like(timesteps, label, dtype=torch.long)
                    there = has & self.group_masks[group]  # type: ignore[index]
                    for parts in passes:
                        slices, around = self.gather(x_t, conditions, plane, group, parts)
                        of = torch.zeros_like(labels[:1])  # a single case is told of once for all slices
                        if x_t.shape[0] > 1:
                            of = torch.arange(parts[0][0], parts[-1][1], device=x_t.device) // count
                        chunk = network.predict_runs(  # type: ignore[operator]
                            slices, around, timesteps[of], labels[of], there[of]
                        )
                        for i, part in enumerate(parts):
                            put_slices(crop_slices(prediction, plane, part), chunk[i], plane, part[0])
        if present is not None and present.dim() == 2 and x_t.shape[0] > 1:
            predictions = predictions * present[:, :, None, None, None].to(x_t.dtype)
        if not torch.jit.is_scripting():  # one process in compiled code
            self.sum_over_processes(predictions)
        return predictions

    def present(self, conditions: Tensor) -> Tensor:
        """(B, M, X, Y, Z) -> (B, E) bool: the experts of whose conditions a case has any."""
        members: Tensor = self.group_masks  # type: ignore[assignment]
        has = (present_conditions(conditions)[:, None] & members).any(dim=2)
        return has.repeat(1, len(self.planes))

    def gather(
        self, x_t: Tensor, conditions: Tensor, plane: str, group: int, parts: list[list[int]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Slices of x_t, and of what a group sees around them, of each part of a pass."""
        slices: list[Tensor] = []
        around: list[Tensor] = []
        for part in parts:
            slices.append(gather_slices(crop_slices(x_t, plane, part), plane, part[0], part[1]))
            near = gather_slices(crop_slices(conditions, plane, part), plane, part[0], part[1], self.reach)
            if len(self.groups) > 1:
                near = near * self.group_masks[group, :, None, None]  # type: ignore[index]
            around.append(near)
        return slices, around

    @torch.jit.unused
    def share(self, rank: int, world_size: int) -> None:
        """Run only this process's share of every plane's slices; the others' predictions stay zero.

        The sum over all processes is then the whole prediction.

        Args:
            rank: 0 to ``world_size`` - 1.
            world_size: number of processes; 1 runs all slices.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of {world_size} processes")
        self.rank, self.world_size = rank, world_size

    @torch.jit.unused
    def least_of_processes(self, number: int) -> int:
        """Smallest number among the processes, so that all run the same windows."""
        if self.world_size == 1:
            return number
        least = torch.tensor(number)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return int(least)

    @torch.jit.unused
    def sum_over_processes(self, share: Tensor) -> None:
        """Add every process's share of a volume up, in place and in all of them."""
        if self.world_size > 1:
            torch.distributed.all_reduce(share)


def present_conditions(conditions: Tensor) -> Tensor:
    """(B, M, X, Y, Z) -> (B, M) bool: the conditions that are not 0 everywhere, which no scan is.

    A single one is there, whatever it shows.
    """
    if conditions.shape[1] == 1:
        return torch.ones([conditions.shape[0], 1], dtype=torch.bool, device=conditions.device)
    voxels = conditions.flatten(2)  # of either sign, without a copy
    return (voxels.amax(dim=2) > 0) | (voxels.amin(dim=2) < 0)


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
