"""A baseline of the evaluations: MONAI's 3D U-Net that regresses the target at once, without diffusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_patches, pad_end, to_patches
from monai_diffens.target import ResidualTarget
from research.baselines.detail import detail_patches


class RegressionUNet(nn.Module):
    """MONAI's BasicUNet (five levels, instance norm) from all conditions to the residual.

    It has what the experts have: the same target, a patch stem as the calibrator's, and where a condition has
    a prior below 1 (the target's own low-resolution scan) it predicts what is left beside that scan, at unit
    variance. Untrained it is that scan, or else the base. Super-resolution has one condition and no prior.

    Args:
        num_conditions: M.
        channels: width of each of the five levels and of the last features; the first and the last work at
            half resolution, behind a patch stem of 2.
        prior_stds: of the experts, see :class:`~monai_diffens.networks.plane_denoiser.PlaneDenoiser`; at most
            one below 1.
        residual_scale: of the training.
        base: of the target, see :class:`~monai_diffens.target.ResidualTarget`; with "brain" the residual is 0
            outside of it.
        detail_gain: amplification of the detail of one condition, see :func:`detail_patches`; the conditions
            as they are when None.
    """

    def __init__(
        self,
        num_conditions: int = 4,
        channels: Sequence[int] = (32, 48, 64, 96, 128, 32),
        prior_stds: Sequence[float] = (1.0, 1.0, 1.0, 0.4),
        residual_scale: float = 0.3,
        base: str = "brain",
        detail_gain: float | None = None,
    ) -> None:
        super().__init__()
        if detail_gain is not None and num_conditions > 1:
            raise ValueError(f"detail_gain is for one condition, not for {num_conditions}")
        if len(prior_stds) != num_conditions or sum(std < 1 for std in prior_stds) > 1:
            raise ValueError(f"{num_conditions} priors are needed, at most one below 1: {prior_stds}")
        self.stem = 2
        self.divisor = self.stem * 2**4
        self.prior_stds = tuple(prior_stds)
        self.residual_scale = residual_scale
        self.base = base
        self.detail_gain = detail_gain
        self.unet = BasicUNet(
            spatial_dims=3,
            in_channels=num_conditions * self.stem**3 + (detail_gain is not None),
            out_channels=self.stem**3,
            features=tuple(channels),
        )
        for parameter in self.unet.final_conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, conditions: Tensor) -> Tensor:
        """Predict.

        Args:
            conditions: (B, M, X, Y, Z) scaled, 0 where a case lacks one and outside of the brain.

        Returns:
            (B, 1, X, Y, Z) residual to the base.
        """
        shape = conditions.shape[2:]
        # instance norm needs more than one voxel at the lowest level
        padded = pad_end(conditions, self.divisor, 2 * self.divisor)
        if self.detail_gain is None:
            patches = to_patches(padded, self.stem)
        else:
            patches = detail_patches(padded, self.stem, self.detail_gain)
        left = from_patches(self.unet(patches), self.stem)[..., : shape[0], : shape[1], : shape[2]]
        std = self.expected_std(conditions)[:, None, None, None, None]
        residual = self.expected(conditions) + std * left
        return residual * ResidualTarget("brain").base_of(conditions) if self.base == "brain" else residual

    def expected(self, conditions: Tensor) -> Tensor:
        """Residual that the priors say, (B, 1, X, Y, Z): the low-resolution scan's, 0 without one."""
        for index, std in enumerate(self.prior_stds):
            if std < 1:
                scan = conditions[:, index : index + 1]
                return (scan - (scan > 0).to(scan.dtype)) / self.residual_scale
        return torch.zeros_like(conditions[:, :1])

    def expected_std(self, conditions: Tensor) -> Tensor:
        """(B,) standard deviation of the residual about :meth:`expected`."""
        present = conditions.flatten(2).any(dim=2)
        stds = torch.tensor(self.prior_stds, device=conditions.device, dtype=conditions.dtype)
        return torch.where(present, stds, torch.ones_like(stds)).amin(dim=1)
