"""The base of the 3D metrics: one value for each item and channel, inside an optional mask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction, convert_to_tensor


def checked_volumes(
    pred: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Check two volumes and a mask, and bring them to double precision and bool.

    Args:
        pred: shape (X, Y, Z).
        truth: shape (X, Y, Z).
        mask: shape (X, Y, Z), not 0 inside; None for every voxel.

    Returns:
        pred and truth as float64 without metadata, and the mask as bool, all on pred's device.

    Raises:
        ValueError: a shape does not fit, a value is NaN or infinite, or the mask is empty.
    """
    if pred.ndim != 3 or pred.shape != truth.shape:
        raise ValueError(
            f"pred and truth must have one shape (X, Y, Z), got {tuple(pred.shape)} and {tuple(truth.shape)}"
        )
    pred = convert_to_tensor(pred, dtype=torch.float64)
    truth = convert_to_tensor(truth, dtype=torch.float64, device=pred.device)
    for name, volume in (("pred", pred), ("truth", truth)):
        # MONAI's reduction leaves NaN out of the mean: a broken volume would vanish from a table.
        if not torch.isfinite(volume).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    if mask is None:
        return pred, truth, torch.ones_like(truth, dtype=torch.bool)
    if mask.shape != truth.shape:
        raise ValueError(f"mask must have the shape {tuple(truth.shape)}, got {tuple(mask.shape)}")
    inside = convert_to_tensor(mask, device=pred.device) != 0
    if not inside.any():
        raise ValueError("mask is empty: no voxel to measure")
    return pred, truth, inside


class VolumeMetric(RegressionMetric):
    """Base class: calls `_compute_volume` for each item and channel of (B, C, X, Y, Z) batches.

    Call with `metric(y_pred, y)` or `metric(y_pred, y, mask=mask)`, batches or lists of (C, X, Y, Z); a mask
    has one channel or as many as y. MONAI's ignite handlers pass no mask: `background` makes one from y.

    Args:
        background: without a mask, voxels where y is above this value are inside (0 for skull-stripped
            scans, in y's unit). None: every voxel is inside.
        reduction: as in MONAI's metrics; "mean" averages over items, then channels.
        get_not_nans: whether aggregate() also returns the count of values.
    """

    def __init__(
        self,
        background: float | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, get_not_nans=get_not_nans)
        self.background = background

    @abstractmethod
    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Measure one pair of checked (X, Y, Z) volumes inside a bool mask; returns a scalar."""

    def _compute_list(  # type: ignore[override]
        self,
        y_pred: Sequence[torch.Tensor],
        y: Sequence[torch.Tensor] | None = None,
        mask: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        if y is None or len(y) != len(y_pred) or (mask is not None and len(mask) != len(y)):
            raise ValueError("y_pred, y and mask must be lists of the same length")
        masks = [None] * len(y) if mask is None else [m[None] for m in mask]
        items = zip(y_pred, y, masks, strict=True)
        return torch.cat([self._compute_tensor(p[None], t[None], m) for p, t, m in items])

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if not isinstance(y_pred, torch.Tensor) or not isinstance(y, torch.Tensor):
            raise ValueError("y_pred and y must be tensors")
        if y_pred.ndim != 5 or y_pred.shape != y.shape:
            shapes = f"{tuple(y_pred.shape)} and {tuple(y.shape)}"
            raise ValueError(f"y_pred and y must have one shape (B, C, X, Y, Z), got {shapes}")
        return self._compute_metric(y_pred, y, mask)

    def _compute_metric(
        self, y_pred: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if mask is None and self.background is not None:
            mask = y > self.background
        if mask is not None:
            batch, channels, *size = y.shape
            if tuple(mask.shape) not in ((batch, 1, *size), (batch, channels, *size)):
                raise ValueError(f"mask of shape {tuple(mask.shape)} does not fit y of {tuple(y.shape)}")
            mask = mask.expand(y.shape)
        values = [
            self._compute_volume(
                *checked_volumes(y_pred[b, c], y[b, c], None if mask is None else mask[b, c])
            )
            for b in range(y.shape[0])
            for c in range(y.shape[1])
        ]
        return torch.stack(values).reshape(y.shape[:2]).to(torch.float32)
