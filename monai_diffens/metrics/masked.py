"""PSNR and SSIM inside a mask. For whole boxes MONAI's PSNRMetric and SSIMMetric give the same numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.metrics.regression import compute_mean_error_metrics

from .gaussian import gaussian_smooth
from .volume_metric import VolumeMetric

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)


def _check_range(data_range: float) -> float:
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}")
    return float(data_range)


def psnr(pred: torch.Tensor, truth: torch.Tensor, data_range: float) -> torch.Tensor:
    """Peak signal-to-noise ratio: 20 log10(data_range) - 10 log10(mean squared error).

    Args:
        pred: any shape (the voxels that count), floating point.
        truth: same shape.
        data_range: the peak, in the volumes' unit.

    Returns:
        Scalar in dB; infinite for equal voxels.

    Raises:
        ValueError: data_range is not a positive number.
    """
    error = compute_mean_error_metrics(pred.reshape(1, -1), truth.reshape(1, -1), func=torch.square)
    return 20 * math.log10(_check_range(data_range)) - 10 * torch.log10(error.squeeze())


def ssim_map(pred: torch.Tensor, truth: torch.Tensor, data_range: float) -> torch.Tensor:
    """Structural similarity at each voxel (Wang et al., IEEE Trans. Image Processing 13, 2004).

    3D Gaussian window of sigma 1.5, 11 voxels a side, K1 = 0.01, K2 = 0.03, population covariances, borders
    mirrored: the full map of skimage's structural_similarity with gaussian_weights. At 5 voxels or more from
    the border it is MONAI's compute_ssim_and_cs, here with a separable window.

    Args:
        pred: shape (X, Y, Z), float64 (variances are differences of means of squares).
        truth: same shape.
        data_range: range of values that both may take, in their unit.

    Returns:
        Shape (X, Y, Z), from -1 to 1.

    Raises:
        ValueError: data_range is not a positive number.
    """
    return ssim_maps(pred, truth, data_range)[0]


def ssim_maps(
    pred: torch.Tensor, truth: torch.Tensor, data_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The map of :func:`ssim_map`, and its factor of contrast and structure alone, each (X, Y, Z)."""
    c1, c2 = (0.01 * _check_range(data_range)) ** 2, (0.03 * data_range) ** 2
    pairs = ((pred, None), (truth, None), (pred, pred), (truth, truth), (pred, truth))
    mu_p, mu_t, pp, tt, pt = (
        gaussian_smooth(a if b is None else a * b, SSIM_SIGMA, SSIM_RADIUS) for a, b in pairs
    )
    mean_product, mean_squares = mu_p * mu_t, mu_p**2 + mu_t**2
    structure = (2 * (pt - mean_product) + c2) / (pp + tt - mean_squares + c2)
    return (2 * mean_product + c1) / (mean_squares + c1) * structure, structure


def ms_ssim(
    pred: torch.Tensor, truth: torch.Tensor, data_range: float, structure: torch.Tensor | None = None
) -> torch.Tensor | None:
    """Multi-scale SSIM of a whole box over three scales: 1, 2 and 4 voxels.

    It is MONAI's MultiScaleSSIMMetric with the first three weights of Wang et al. (2003), made to sum to 1,
    here with a separable window, several times as fast. The usual five scales need sides above 160 voxels,
    more than a brain has in every direction; three are another number than five, and the same for all boxes.

    Args:
        pred: shape (X, Y, Z), float64.
        truth: same shape.
        data_range: range of values that both may take, in their unit.
        structure: second map of :func:`ssim_maps` of the two, where it is there already.

    Returns:
        Scalar, 1 for equal volumes; None where a side has fewer than 44 voxels, as MONAI wants it.

    Raises:
        ValueError: data_range is not a positive number.
    """
    if min(truth.shape) // (len(MS_SSIM_WEIGHTS) - 1) ** 2 <= 2 * SSIM_RADIUS:
        return None
    interior = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 3
    value = torch.ones((), dtype=truth.dtype, device=truth.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            pred, truth = (torch.nn.functional.avg_pool3d(v[None, None], 2)[0, 0] for v in (pred, truth))
        if scale or structure is None:
            full, structure = ssim_maps(pred, truth, data_range)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        mean = (full if last else structure)[interior].mean()
        value = value * mean.clamp(min=0) ** (weight / sum(MS_SSIM_WEIGHTS))
    return value


class _MaskedMetric(VolumeMetric):
    """A metric with a data range that needs a mask: without one its name would be wrong."""

    def __init__(self, data_range: float, background: float | None = None, **kwargs: Any) -> None:
        super().__init__(background=background, **kwargs)
        self.data_range = _check_range(data_range)

    def _compute_metric(
        self, y_pred: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if mask is None and self.background is None:
            raise ValueError(f"{type(self).__name__} needs a mask, or a background value to make one from y")
        return super()._compute_metric(y_pred, y, mask)


class MaskedPSNRMetric(_MaskedMetric):
    """PSNR in dB over the voxels of a mask, for each item and channel; infinite for equal voxels.

    Args:
        data_range: the peak, in the volumes' unit.
        background: see VolumeMetric; needed where no mask is passed.
        **kwargs: further ones of VolumeMetric.
    """

    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return psnr(pred[inside], truth[inside], self.data_range)


class MaskedSSIMMetric(_MaskedMetric):
    """Mean of the 3D SSIM map (see ssim_map for the window) over the voxels of a mask, not eroded.

    The windows reach 5 voxels past the mask: give both volumes the same background.

    Args:
        data_range: range of values that both volumes may take, in their unit.
        background: see VolumeMetric; needed where no mask is passed.
        **kwargs: further ones of VolumeMetric.
    """

    def _compute_volume(self, pred: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return ssim_map(pred, truth, self.data_range)[inside].mean()
