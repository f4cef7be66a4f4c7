"""Separable Gaussian filters of a 3D volume, equal to scipy.ndimage's to rounding, on any torch device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def gaussian_kernel(sigma: float, order: int, radius: int) -> torch.Tensor:
    """Sample a Gaussian or its second derivative, as scipy.ndimage.gaussian_filter1d does.

    Args:
        sigma: standard deviation in voxels, above 0.
        order: 0 for the Gaussian itself (sums to 1), 2 for its second derivative.
        radius: taps on each side of the centre.

    Returns:
        Tensor of shape (2 * radius + 1,), float64.

    Raises:
        ValueError: sigma is not a positive number, or order is neither 0 nor 2.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive number of voxels, got {sigma}")
    if order not in (0, 2):
        raise ValueError(f"order must be 0 or 2, got {order}")
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gauss = torch.exp(-0.5 * (x / sigma) ** 2)
    gauss = gauss / gauss.sum()
    return gauss if order == 0 else gauss * (x**2 / sigma**4 - 1 / sigma**2)


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
    kernel = gaussian_kernel(sigma, 0, radius)
    for axis in range(3):
        volume = filter_axis(volume, kernel, axis)
    return volume


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
    smooth, curve = gaussian_kernel(sigma, 0, radius), gaussian_kernel(sigma, 2, radius)
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
