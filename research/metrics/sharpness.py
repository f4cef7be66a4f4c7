"""Sharpness ratio: does the prediction have as much fine detail as the truth, right or wrong."""

from __future__ import annotations

import torch
from monai.utils import MetricReduction

from monai_diffens.metrics import VolumeMetric
from research.metrics.detail import laplacian_of_gaussian, require_detail


def sharpness_ratio(log_pred: torch.Tensor, log_truth: torch.Tensor) -> torch.Tensor:
    """Standard deviation of one filtered volume over that of another.

    Args:
        log_pred: Laplacian of Gaussian of the prediction, any shape (the voxels that count).
        log_truth: the same of the truth, same shape.

    Returns:
        Scalar, no unit.

    Raises:
        ValueError: the truth is flat.
    """
    require_detail(log_truth)
    return log_pred.std(correction=0) / log_truth.std(correction=0)


class SharpnessRatioMetric(VolumeMetric):
    """Sharpness ratio, std(LoG(y_pred)) / std(LoG(y)), for each item and channel.

    LoG is the 3D Laplacian of Gaussian of the whole volumes (borders mirrored); the standard deviations run
    over the voxels of the mask, not eroded. 1 is the truth's sharpness, below is blurred, above is noisier
    or over-sharpened; no unit. It says nothing about whether the detail is right: read it with HFEN.

    Args:
        sigma: standard deviation of the Gaussian in voxels. The default of 1 answers most to waves of 4 to 5
            voxels, which slices of 4 to 6 voxels lose; 1.5 counts more of what any interpolation keeps.
        background: see VolumeMetric.
        reduction: see VolumeMetric.
        get_not_nans: see VolumeMetric.
    """

    def __init__(
        self,
        sigma: float = 1.0,
        background: float | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(background=background, reduction=reduction, get_not_nans=get_not_nans)
        self.sigma = sigma

    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        log_pred, log_truth = (laplacian_of_gaussian(v, self.sigma)[inside] for v in (pred, truth))
        return sharpness_ratio(log_pred, log_truth)
