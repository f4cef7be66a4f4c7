"""A small 3D encoder of image patches: its features tell real texture from blurred, noisy or made-up one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCH_SIZE = 24
NUM_FEATURES = 64


class PatchEncoder(nn.Module):
    """Four convolutions and a global average; 120 thousand parameters.

    Features are standardised with the mean and the standard deviation that those of real training patches
    have (:meth:`standardise_by`), so that one kernel width serves all of them.

    Args:
        channels: of the four convolutions; the last is the number of features.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, channels: tuple[int, ...] = (8, 24, 48, NUM_FEATURES)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
            stride = 2 if index else 1  # the first sees every voxel: noise and blur live there
            convolution = nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm3d(after), nn.LeakyReLU(0.1)]
        self.trunk = nn.Sequential(*layers)
        self.register_buffer("feature_mean", torch.zeros(channels[-1]))
        self.register_buffer("feature_std", torch.ones(channels[-1]))

    def pooled(self, patches: Tensor) -> Tensor:
        """Features before they are standardised, (N, F) of patches (N, 1, X, Y, Z)."""
        features: Tensor = self.trunk(patches)
        return features.mean(dim=(2, 3, 4))

    def forward(self, patches: Tensor) -> Tensor:
        """Features (N, F) of patches (N, 1, X, Y, Z), intensities 1 at about the scan's 99.5th percentile."""
        return (self.pooled(patches) - self.feature_mean) / self.feature_std

    def standardise_by(self, pooled: Tensor) -> None:
        """Make the features of :meth:`pooled` (N, F) zero on average and one in standard deviation."""
        self.feature_mean.copy_(pooled.mean(dim=0))
        self.feature_std.copy_(pooled.std(dim=0).clamp(min=1e-3))
