"""High-frequency error norm: how much of the truth's fine detail is missing or wrong."""

from __future__ import annotations

import torch
from monai.utils import MetricReduction

from monai_diffens.metrics import VolumeMetric
from research.metrics.detail import laplacian_of_gaussian, require_detail


def hfen(log_pred: torch.Tensor, log_truth: torch.Tensor) -> torch.Tensor:
    """High-frequency error norm of two filtered volumes: ||log_pred - log_truth|| / ||log_truth||.

    Args:
        log_pred: Laplacian of Gaussian of the prediction, any shape (the voxels that count).
        log_truth: the same of the truth, same shape.

    Returns:
        Scalar, no unit: 0 for the same detail, 1 for a prediction without any.

    Raises:
        ValueError: the truth is flat.
    """
    require_detail(log_truth)
    return (log_pred - log_truth).norm() / log_truth.norm()


class HFENMetric(VolumeMetric):
    """High-frequency error norm, ||LoG(y_pred) - LoG(y)|| / ||LoG(y)||, for each item and channel.

    LoG is the 3D Laplacian of Gaussian of the whole volumes (borders mirrored); the norms run over the
    voxels of the mask, not eroded. 0 for equal volumes; lower is better; no unit. From Ravishankar and
    Bresler, IEEE Trans. Med. Imaging 30 (2011), divided by the truth's norm as is usual since.

    Args:
        sigma: standard deviation of the Gaussian in voxels; 1.5 is the source's.
        background: see VolumeMetric.
        reduction: see VolumeMetric.
        get_not_nans: see VolumeMetric.
    """

    def __init__(
        self,
        sigma: float = 1.5,
        background: float | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(background=background, reduction=reduction, get_not_nans=get_not_nans)
        self.sigma = sigma

    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        log_pred, log_truth = (laplacian_of_gaussian(v, self.sigma)[inside] for v in (pred, truth))
        return hfen(log_pred, log_truth)
