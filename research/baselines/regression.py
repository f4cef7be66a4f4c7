"""Training of the regression baseline: crops with a random subset of their conditions, and the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_diffens.engines.fusion import FusionPrepareBatch
from monai_diffens.target import ResidualTarget


class RegressionPrepareBatch(PrepareBatch):
    """Drop conditions as the fusion's training does, and take the residual to the base as the target.

    Args:
        prior_stds: those of :class:`~research.baselines.regression_unet.RegressionUNet`, one a condition.
            The target comes with the smallest variance of those present, (B,), for a loss relative to it.
        held_out: subsets never trained on, see :class:`~monai_diffens.engines.fusion.FusionPrepareBatch`.
        residual_scale: divisor that brings residuals near unit variance.
        base: what the residual is taken to, see :class:`~monai_diffens.target.ResidualTarget`.
    """

    def __init__(
        self,
        prior_stds: Sequence[float],
        held_out: Sequence[Sequence[int]] = (),
        residual_scale: float = 0.3,
        base: str = "brain",
    ) -> None:
        self.stds = torch.tensor(prior_stds)
        self.draw = FusionPrepareBatch(len(prior_stds), held_out)
        self.target = ResidualTarget(base, residual_scale)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[()], dict[str, Any]]:
        """Return conditions (B, M, X, Y, Z), (residual (B, 1, X, Y, Z), variance (B,)), and no arguments."""
        image, label = (
            convert_to_tensor(batchdata[key], track_meta=False).to(device, non_blocking=non_blocking)
            for key in ("image", "label")
        )
        present = image.flatten(2).any(dim=2).cpu()
        kept = self.draw.random_subsets(present | ~present.any(dim=1, keepdim=True))  # a crop may be empty
        conditions = image * kept.to(image.device)[:, :, None, None, None]
        residual = self.target.to_residual(label, self.target.base_of(conditions))
        variance = torch.where(kept, self.stds, torch.ones_like(self.stds)).amin(dim=1) ** 2
        return conditions, (residual, variance.to(image.device)), (), {}
