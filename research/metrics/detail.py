"""Detail of a volume: its Laplacian of Gaussian, and SSIM over several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_diffens.metrics import SSIM_RADIUS, filter_axis, gaussian_kernel, ssim_maps

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)


def laplacian_of_gaussian(
    volume: torch.Tensor, sigma: float, axes: Sequence[int] = (0, 1, 2)
) -> torch.Tensor:
    """Laplacian of Gaussian, equal to scipy.ndimage.gaussian_laplace(volume, sigma).

    Args:
        volume: shape (X, Y, Z), floating point.
        sigma: standard deviation of the Gaussian in voxels; the filter is cut at 4 sigma, as scipy's.
        axes: along which to filter; two of them filter each slice across the third by itself.

    Returns:
        The response, shape (X, Y, Z), in the volume's unit per voxel squared.
    """
    radius = int(4 * sigma + 0.5)
    smooth = gaussian_kernel(sigma, radius)
    x = torch.arange(-radius, radius + 1, dtype=smooth.dtype)
    curve = smooth * (x**2 / sigma**4 - 1 / sigma**2)  # the second derivative
    # After each axis: `blurred` is smoothed along the axes so far, `response` is the Laplacian over them.
    first, *others = axes
    response, blurred = filter_axis(volume, curve, first), filter_axis(volume, smooth, first)
    for axis in others:
        response = filter_axis(response, smooth, axis) + filter_axis(blurred, curve, axis)
        if axis != axes[-1]:
            blurred = filter_axis(blurred, smooth, axis)
    return response


def require_detail(log_truth: torch.Tensor) -> None:
    """Refuse a truth without detail, to which nothing can be compared.

    Args:
        log_truth: Laplacian of Gaussian of the truth, any shape (the voxels that count).

    Raises:
        ValueError: the response is the same everywhere, to rounding.
    """
    if log_truth.std(correction=0) <= 1e-9 * log_truth.abs().max():
        raise ValueError("truth is flat inside the mask: it has no detail to compare with")


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
