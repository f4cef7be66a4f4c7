"""A baseline of the evaluations: MONAI's 3D U-Net that regresses the target at once, without diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn
from torch.nn.functional import one_hot

from monai_diffens.acquisition.slicing import from_patches, pad_end, to_patches
from monai_diffens.target import ResidualTarget
from research.baselines.detail import detail_patches


class RegressionUNet(nn.Module):
    """MONAI's BasicUNet (five levels, instance norm) from all conditions to the residual.

    It has what the experts have: the same target, any subset of conditions, and which contrast is wanted; a
    patch stem as the calibrator's. Where the target's own thick-sliced scan is given it predicts what is left
    beside that scan, at unit variance: untrained it is that scan, or else the base.

    Args:
        num_conditions: M.
        channels: width of each of the five levels and of the last features; the first and the last work at
            half resolution, behind a patch stem of 2.
        prior_std: standard deviation of the residual beside the target's own scan; 1 leaves the scan alone.
        measured: condition that is the target's own scan; with ``num_targets`` it is the target's.
        residual_scale: of the training.
        base: of the target, see :class:`~monai_diffens.target.ResidualTarget`; with "brain" the residual is 0
            outside of it.
        detail_gain: amplification of the detail of one condition, see :func:`detail_patches`; the conditions
            as they are when None.
        num_targets: contrasts that can be wanted, each one of the conditions; 0 where it is always the same.
        target: which of them, where a call names none.
    """

    def __init__(
        self,
        num_conditions: int = 4,
        channels: Sequence[int] = (32, 48, 64, 96, 128, 32),
        prior_std: float = 1.0,
        measured: int = 0,
        residual_scale: float = 0.3,
        base: str = "brain",
        detail_gain: float | None = None,
        num_targets: int = 0,
        target: int = 0,
    ) -> None:
        super().__init__()
        if detail_gain is not None and num_conditions > 1:
            raise ValueError(f"detail_gain is for one condition, not for {num_conditions}")
        self.stem = 2
        self.divisor = self.stem * 2**4
        self.prior_std = prior_std
        self.measured = measured
        self.residual_scale = residual_scale
        self.base = base
        self.detail_gain = detail_gain
        self.num_targets = num_targets
        self.target = target
        self.unet = BasicUNet(
            spatial_dims=3,
            in_channels=num_conditions * self.stem**3 + (detail_gain is not None) + num_targets,
            out_channels=self.stem**3,
            features=tuple(channels),
        )
        for parameter in self.unet.final_conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, conditions: Tensor, targets: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            conditions: (B, M, X, Y, Z) scaled, 0 where a case lacks one and outside of the brain.
            targets: (B,) numbers of the contrasts wanted; ``target`` for all when None.

        Returns:
            (B, 1, X, Y, Z) residual to the base.
        """
        shape = conditions.shape[2:]
        if targets is None:
            targets = torch.full((len(conditions),), self.target, device=conditions.device)
        # instance norm needs more than one voxel at the lowest level
        padded = pad_end(conditions, self.divisor, 2 * self.divisor)
        if self.detail_gain is None:
            patches = to_patches(padded, self.stem)
        else:
            patches = detail_patches(padded, self.stem, self.detail_gain)
        if self.num_targets:
            wanted = one_hot(targets, self.num_targets).to(patches)[:, :, None, None, None]
            patches = torch.cat([patches, wanted.expand(-1, -1, *patches.shape[2:])], dim=1)
        left = from_patches(self.unet(patches), self.stem)[..., : shape[0], : shape[1], : shape[2]]
        expected, std = self.prior(conditions, targets)
        residual = expected + std[:, None, None, None, None] * left
        return residual * ResidualTarget("brain").base_of(conditions) if self.base == "brain" else residual

    def prior(self, conditions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the target's own scan says: its residual (B, 1, X, Y, Z), and the deviation (B,) about it.

        0 and 1 for cases without it.
        """
        if self.prior_std >= 1:
            return torch.zeros_like(conditions[:, :1]), conditions.new_ones(len(conditions))
        channels = targets if self.num_targets else torch.full_like(targets, self.measured)
        scan = conditions[torch.arange(len(conditions), device=conditions.device), channels][:, None]
        there = scan.flatten(1).any(dim=1)
        residual = (scan - (scan > 0).to(scan.dtype)) / self.residual_scale
        stds = torch.where(there, self.prior_std, 1.0).to(conditions.dtype)
        return residual, stds
