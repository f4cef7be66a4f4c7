"""All 2D experts of a model: one for each (plane, condition group), a plane's groups sharing a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import (
    PLANES,
    gather_slices,
    in_plane_axes,
    plane_axis,
    put_slices,
    to_slices,
)
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.networks.predictions import EmptySpace
from monai_diffens.networks.slice_passes import crop_slices, slice_passes


class ExpertBank(nn.Module):
    """Run frozen or trainable 2D experts over whole volumes, slice by slice.

    Each plane has one network, and one file holds them all. It serves several conditions in one of two ways:

    - every condition is a group of its own: an expert sees one condition alone, and MONAI's class embedding
      says which (``groups`` None);
    - joint experts: an expert sees all conditions of its group, with a channel for each that says whether it
      is there, and the class embedding says which contrast to make (:attr:`target`).

    Args:
        planes: planes that have an expert.
        conditions: names of the condition volumes.
        groups: names of the conditions that each joint expert of a plane sees; None: one expert a condition.
        target: of joint experts, the condition whose contrast they make; the first when None.
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
        self.joint = groups is not None
        members = [[name] for name in self.conditions] if groups is None else [list(each) for each in groups]
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
        self.target = 0 if target is None else self.conditions.index(target)  # class label of joint experts
        volumes = 1
        if self.joint:
            volumes = len(self.conditions)
        elif not single:
            denoiser = {"num_class_embeds": len(self.groups), **denoiser}
        self.experts = nn.ModuleList(
            [
                PlaneDenoiser(condition_channels=volumes * (2 * reach + 1), conditions=volumes, **denoiser)
                for _ in self.planes
            ]
        )

    def forward(
        self, x_t: Tensor, conditions: Tensor, timesteps: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Predict with every expert that is present.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z), in the order of ``conditions``.
            timesteps: (B,).
            present: (E,) bool, or (B, E) where cases differ; an absent expert's prediction is zero, and it is
                not run where every case lacks it. All when None.

        Returns:
            (B, E, X, Y, Z), in the order of ``names``.
        """
        return self.predict_with_features(x_t, conditions, timesteps, present, False)[0]

    def predict_with_features(
        self,
        x_t: Tensor,
        conditions: Tensor,
        timesteps: Tensor,
        present: Tensor | None = None,
        keep_features: bool = True,
        empty: EmptySpace | None = None,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Predict as :meth:`forward`, and return the decoders' feature maps.

        Args:
            x_t: as in :meth:`forward`.
            conditions: likewise.
            timesteps: likewise.
            present: likewise.
            keep_features: return the maps.
            empty: crop slices to what they show. A network's statistics and attention are then of that part
                alone, as of the crops it was trained on. Not with maps: those are of whole slices.

        Returns:
            Predictions (B, E, X, Y, Z), and for each expert its maps (B * N, C, H / s, W / s), coarsest
            first; empty where the expert is absent or features are not kept.
        """
        # not a list to be joined at the end: that would hold every prediction twice
        batch_size, x, y, z = x_t.shape[0], x_t.shape[2], x_t.shape[3], x_t.shape[4]
        predictions = x_t.new_zeros([batch_size, len(self.names), x, y, z])
        features: list[list[Tensor]] = []
        num_groups = len(self.groups)
        has = present_conditions(conditions) if self.joint else conditions.new_zeros(1, 1)
        for plane_index, network in enumerate(self.experts):
            plane = self.planes[plane_index]
            total = batch_size * x_t.shape[2 + plane_axis(plane)]
            first, last = total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size
            count = total // batch_size
            # one for all slices where it is the same; they are told apart where volumes share a pass
            single = batch_size == 1
            steps = timesteps if single else timesteps.repeat_interleave(count)
            boxes = empty.boxes[plane_index] if empty is not None and not keep_features else None
            sides = [[x, y, z][axis] for axis in in_plane_axes(plane)]
            passes = slice_passes(first, last, count, sides, self.slice_chunk, boxes)
            for source in range(num_groups):
                index = plane_index * num_groups + source
                maps: list[Tensor] = []
                features.append(maps)
                if present is None or bool(present[..., index].any()):  # `continue` does not script
                    prediction = predictions[:, index : index + 1]
                    condition, label = conditions[:, source : source + 1], source
                    there: Tensor | None = None
                    if self.joint:
                        condition, label = conditions, self.target
                        mask = self.group_masks[source]  # type: ignore[index]
                        there = (has & mask) if single else (has & mask).repeat_interleave(count, 0)
                    labels = torch.full_like(steps, label, dtype=torch.long)
                    chunk_maps: list[list[Tensor]] = []
                    if empty is not None and boxes is not None:
                        unseen = to_slices(x_t, plane)[first:last]
                        put_slices(prediction, empty.factor * unseen, plane, first)
                    for parts in passes:
                        slices: list[Tensor] = []
                        around: list[Tensor] = []
                        for part in parts:
                            x_part, shown = crop_slices(x_t, plane, part), crop_slices(condition, plane, part)
                            slices.append(gather_slices(x_part, plane, part[0], part[1]))
                            near = gather_slices(shown, plane, part[0], part[1], self.reach)
                            if self.joint and num_groups > 1:
                                near = near * self.group_masks[source, :, None, None]  # type: ignore[index]
                            around.append(near)
                        begin, end = parts[0][0], parts[-1][1]
                        chunk, decoded = network.predict_runs(  # type: ignore[operator]
                            slices,
                            around,
                            steps if single else steps[begin:end],
                            labels if single else labels[begin:end],
                            there if single or there is None else there[begin:end],
                        )
                        for i, part in enumerate(parts):
                            put_slices(crop_slices(prediction, plane, part), chunk[i], plane, part[0])
                        if keep_features:
                            chunk_maps.append(decoded)
                    if keep_features:
                        for level in range(len(chunk_maps[0])):
                            maps.append(torch.cat([decoded[level] for decoded in chunk_maps]))
        if present is not None and present.dim() == 2 and batch_size > 1:
            predictions = predictions * present[:, :, None, None, None].to(x_t.dtype)
        return predictions, features

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
    """(B, M, X, Y, Z) -> (B, M) bool: the conditions that are not 0 everywhere, which no scan is."""
    return conditions.flatten(2).abs().amax(dim=2) > 0
