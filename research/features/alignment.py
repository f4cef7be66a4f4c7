"""Hierarchical alignment: decoder maps of the 2D experts, stacked to volumes, for the 3D encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import plane_axis, to_volume


class FeatureAlignment(nn.Module):
    """Bring every expert's decoder maps to the calibrator's levels, and add them up.

    A decoder map is coarse in its plane and fine along the slicing axis; a convolution strided along
    that axis, and in the plane by what is left to the level, makes it as coarse as the level. It starts
    at zero, so switching features on changes nothing until training does. Source: arXiv 2501.07430,
    "hierarchical alignment".

    Args:
        expert_planes: plane of each expert.
        map_channels: channels of an expert's maps, coarsest first, as ``PlaneDenoiser`` returns them.
        map_strides: voxels a position of each map spans in the plane, coarsest first.
        widths: channels of the calibrator's levels that take features, finest first.
        level_strides: voxels a position of each of these levels spans.

    Raises:
        ValueError: when a level has no map, or its stride is no multiple of its map's.
    """

    def __init__(
        self,
        expert_planes: Sequence[str],
        map_channels: Sequence[int],
        map_strides: Sequence[int],
        widths: Sequence[int],
        level_strides: Sequence[int],
    ) -> None:
        super().__init__()
        if len(widths) > len(map_channels):
            raise ValueError(f"{len(widths)} levels take features, the experts have {len(map_channels)}")
        self.expert_planes = list(expert_planes)
        finest_first = list(zip(reversed(map_channels), reversed(map_strides), strict=True))
        self.strides = list(level_strides)  # along the slicing axis
        self.plane_strides: list[int] = []
        for stride, (_, map_stride) in zip(level_strides, finest_first, strict=False):
            if stride % map_stride:
                raise ValueError(f"a level of stride {stride} cannot take maps of stride {map_stride}")
            self.plane_strides.append(stride // map_stride)
        self.align = nn.ModuleList()  # the levels of the first expert, then those of the next
        for plane in self.expert_planes:
            for level, width in enumerate(widths):
                x, y, z = (
                    self.strides[level] if axis == plane_axis(plane) else self.plane_strides[level]
                    for axis in range(3)
                )
                channels = finest_first[level][0]
                convolution = nn.Conv3d(channels, width, (x, y, z), stride=(x, y, z))
                for parameter in convolution.parameters():
                    nn.init.zeros_(parameter)
                self.align.append(convolution)

    def forward(self, features: list[list[Tensor]], batch_size: int) -> list[Tensor]:
        """Align and sum.

        Args:
            features: per expert its maps (B * N, C, H / s, W / s), coarsest first; empty when absent.
            batch_size: B.

        Returns:
            One volume (B, widths[level], X / s, Y / s, Z / s), sizes rounded up, a level.
        """
        totals: list[Tensor] = []
        for index, convolution in enumerate(self.align):
            expert, level = index // len(self.strides), index % len(self.strides)
            maps, plane = features[expert], self.expert_planes[expert]
            if len(maps) > 0:
                volume = to_volume(maps[len(maps) - 1 - level], plane, batch_size)
                padding = [0, 0, 0, 0, 0, 0]
                for axis in range(3):
                    along = axis == plane_axis(plane)
                    stride = self.strides[level] if along else self.plane_strides[level]
                    padding[2 * (2 - axis) + 1] = -volume.shape[2 + axis] % stride
                aligned = convolution(F.pad(volume, padding))
                if len(totals) <= level:
                    totals.append(aligned)
                else:
                    totals[level] = _add_cropped(totals[level], aligned)
        return totals


def _add_cropped(first: Tensor, second: Tensor) -> Tensor:
    """Add volumes that the experts' padding left of different sizes, on what they share."""
    x, y, z = [min(first.shape[dim], second.shape[dim]) for dim in (2, 3, 4)]
    return first[:, :, :x, :y, :z] + second[:, :, :x, :y, :z]
