"""Hierarchical alignment: decoder maps of the 2D experts, stacked to volumes, for the 3D encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from monai_diffens.networks.slicing import plane_axis, to_volume


class FeatureAlignment(nn.Module):
    """Bring every expert's decoder maps to the calibrator's levels, and add them up.

    A decoder map is coarse in its plane and fine along the slicing axis; a convolution strided along
    that axis makes it coarse in all three. It starts at zero, so switching features on changes nothing
    until training does. Source: arXiv 2501.07430, "hierarchical alignment".

    Args:
        expert_planes: plane of each expert.
        map_channels: channels of an expert's maps, coarsest first, as ``PlaneDenoiser`` returns them.
        map_stride: voxels a position of the finest map spans in the plane.
        widths: channels of the calibrator's levels that take features; the first one's positions span
            ``map_stride`` voxels, each next one's twice as many.
    """

    def __init__(
        self,
        expert_planes: Sequence[str],
        map_channels: Sequence[int],
        map_stride: int,
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        if len(widths) > len(map_channels):
            raise ValueError(f"{len(widths)} levels take features, the experts have {len(map_channels)}")
        self.expert_planes = list(expert_planes)
        self.strides = [map_stride * 2**level for level in range(len(widths))]
        finest_first = list(reversed(map_channels))
        self.align = nn.ModuleList()
        for plane in self.expert_planes:
            convolutions = nn.ModuleList()
            for level, width in enumerate(widths):
                kernel = [1, 1, 1]
                kernel[plane_axis(plane)] = self.strides[level]
                convolution = nn.Conv3d(finest_first[level], width, kernel, stride=kernel)
                for parameter in convolution.parameters():
                    nn.init.zeros_(parameter)
                convolutions.append(convolution)
            self.align.append(convolutions)

    def forward(self, features: list[list[Tensor]], batch_size: int) -> list[Tensor]:
        """Align and sum.

        Args:
            features: per expert its maps (B * N, C, H / s, W / s), coarsest first; empty when absent.
            batch_size: B.

        Returns:
            One volume (B, widths[level], X / s, Y / s, Z / s), sizes rounded up, a level.
        """
        totals: list[Tensor] = []
        for expert, convolutions in enumerate(self.align):
            maps = features[expert]
            plane = self.expert_planes[expert]
            for level, convolution in enumerate(convolutions):
                if len(maps) == 0:
                    continue
                volume = to_volume(maps[len(maps) - 1 - level], plane, batch_size)
                padding = [0, 0, 0, 0, 0, 0]
                axis = plane_axis(plane)
                padding[2 * (2 - axis) + 1] = -volume.shape[2 + axis] % self.strides[level]
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
