"""PSNR and SSIM inside a mask. For whole boxes MONAI's PSNRMetric and SSIMMetric give the same numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics.regression import RegressionMetric, compute_mean_error_metrics
from monai.utils import MetricReduction, convert_to_tensor


def gaussian_kernel(sigma: float, radius: int) -> torch.Tensor:
    """A Gaussian that sums to 1, (2 * radius + 1,) float64, as scipy.ndimage.gaussian_filter1d has it.

    Args:
        sigma: standard deviation in voxels.
        radius: taps on each side of the centre.

    Raises:
        ValueError: sigma is not a positive number.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive number of voxels, got {sigma}")
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gauss = torch.exp(-0.5 * (x / sigma) ** 2)
    return gauss / gauss.sum()


def filter_axis(volume: torch.Tensor, kernel: torch.Tensor, axis: int) -> torch.Tensor:
    """Filter along one axis; the border mirrors at the voxel's edge (scipy's mode "reflect").

    The filter is written as a matrix with the border built in: one matrix product an axis is several times
    faster on a CPU than a one-channel convolution, and double precision stays cheap.

    Args:
        volume: shape (X, Y, Z), floating point.
        kernel: shape (2 * radius + 1,), symmetric.
        axis: 0, 1 or 2.

    Returns:
        The filtered volume, shape (X, Y, Z).
    """
    size, radius = volume.shape[axis], len(kernel) // 2
    rows = torch.arange(size).unsqueeze(1)
    columns = (rows + torch.arange(-radius, radius + 1)) % (2 * size)
    columns = torch.where(columns < size, columns, 2 * size - 1 - columns)
    matrix = torch.zeros(size, size, dtype=kernel.dtype)
    matrix.scatter_add_(1, columns, kernel.expand(size, -1))
    matrix = matrix.to(volume)
    return torch.matmul(matrix, volume.movedim(axis, -2)).movedim(-2, axis)


def gaussian_smooth(volume: torch.Tensor, sigma: float, radius: int) -> torch.Tensor:
    """Smooth a volume with a Gaussian window.

    Args:
        volume: shape (X, Y, Z), floating point.
        sigma: standard deviation in voxels, the same on every axis.
        radius: taps on each side; the window has 2 * radius + 1 voxels a side.

    Returns:
        The smoothed volume, shape (X, Y, Z).
    """
    kernel = gaussian_kernel(sigma, radius)
    for axis in range(3):
        volume = filter_axis(volume, kernel, axis)
    return volume


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


SSIM_SIGMA = 1.5
SSIM_RADIUS = 5


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
