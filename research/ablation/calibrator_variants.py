"""Variants of the learned fusion that ablations compare it with; none is shipped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_diffens.networks.calibrator import VolumeCalibrator


class CalibratorVariant(VolumeCalibrator):
    """A :class:`VolumeCalibrator` that may go without its bias, and whose weights may be a softmax.

    Any of them starts as the plain average, with the same derivative of the weights by the network's output,
    and from one seed with the same parameters: only what is ablated differs.

    Args:
        *arguments: of :class:`VolumeCalibrator`.
        bias: whether anything is added to the weighted sum.
        softmax: whether weights are a softmax over the experts present, so that the weighted sum stays among
            the predictions; free weights may be negative or above 1.
        **options: of :class:`VolumeCalibrator`.
    """

    def __init__(self, *arguments: Any, bias: bool = True, softmax: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.with_bias = bias
        self.softmax = softmax

    def forward(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        features: list[Tensor] | None = None,
        emphasis: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weigh the experts; arguments and results are those of :class:`VolumeCalibrator`."""
        given = None if self.softmax else emphasis
        weights, bias = super().forward(x_t, conditions, predictions, timesteps, present, features, given)
        if self.softmax:
            # Free weights are the network's output less its mean, plus 1 / n: a softmax does not see what is
            # added to all. Times n, so that its derivative at the average is that of the free weights.
            mask = present[:, :, None, None, None]
            logits = weights * present.sum(dim=1).to(weights.dtype)[:, None, None, None, None]
            if emphasis is not None:
                logits = logits + emphasis.to(weights.dtype).log()[:, :, None, None, None]
            weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return weights, bias if self.with_bias else torch.zeros_like(bias)
