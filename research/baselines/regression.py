"""Training of the regression baseline: crops, with a random subset of conditions where there are several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from monai.engines.utils import PrepareBatch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.conditions import HAS_KEY, KEPT, TARGET_KEY, random_subset


class RegressionPrepareBatch(PrepareBatch):
    """Drop conditions as the experts' training does, and take the residual to the base as the target.

    Args:
        target: what the experts learn.
        prior_std: of :class:`~research.baselines.regression_unet.RegressionUNet`. The target comes with its
            variance where the target's own scan is given, (B,), for a loss relative to it.
        kept: of several conditions, see :func:`~monai_diffens.transforms.conditions.random_subset`.
    """

    def __init__(
        self, target: ResidualTarget, prior_std: float = 1.0, kept: tuple[float, float] = KEPT
    ) -> None:
        self.target = target
        self.prior_std = prior_std
        self.kept = kept

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[()], dict[str, Any]]:
        """Return conditions (B, M, X, Y, Z), (residual (B, 1, X, Y, Z), variance (B,)), and the targets."""
        image, label = (
            convert_to_tensor(batchdata[key], dtype=torch.float32, track_meta=False).to(device)
            for key in ("image", "label")
        )
        arguments = {}
        variance = image.new_ones(len(image))
        if TARGET_KEY in batchdata:
            targets = torch.as_tensor(batchdata[TARGET_KEY])
            random = cast(np.random.RandomState, np.random)  # seeded with everything else at each epoch
            given = torch.stack(
                [
                    random_subset(has, int(target), random, self.kept)
                    for has, target in zip(batchdata[HAS_KEY], targets, strict=True)
                ]
            )
            image = image * given.to(image)[:, :, None, None, None]
            scanned = given[torch.arange(len(targets)), targets].to(image.device)
            variance = torch.where(scanned, self.prior_std**2, 1.0)
            arguments["targets"] = targets.to(image.device)
        residual = self.target.to_residual(label, self.target.base_of(image))
        return image, (residual, variance), (), arguments
