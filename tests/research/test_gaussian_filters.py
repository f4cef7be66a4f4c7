"""The separable filters against scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_diffens.metrics import gaussian_kernel, gaussian_smooth
from research.metrics.detail import laplacian_of_gaussian


@pytest.mark.parametrize("shape", [(20, 17, 23), (3, 20, 5), (1, 2, 30)])
def test_filters_are_scipys_also_where_the_window_exceeds_the_volume(shape):
    volume = np.random.default_rng(1).standard_normal(shape)
    smooth = gaussian_smooth(torch.from_numpy(volume), 1.5, 5).numpy()
    np.testing.assert_allclose(smooth, ndimage.gaussian_filter(volume, 1.5, radius=5), atol=1e-12)
    for sigma in (0.8, 1.0, 1.5):
        log = laplacian_of_gaussian(torch.from_numpy(volume), sigma).numpy()
        np.testing.assert_allclose(log, ndimage.gaussian_laplace(volume, sigma), atol=1e-12)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_along_two_axes_every_slice_is_filtered_by_itself(across):
    volume = np.random.default_rng(2).standard_normal((20, 17, 23))
    axes = [axis for axis in range(3) if axis != across]
    log = np.moveaxis(laplacian_of_gaussian(torch.from_numpy(volume), 1.0, axes).numpy(), across, 0)
    for found, image in zip(log, np.moveaxis(volume, across, 0), strict=True):
        np.testing.assert_allclose(found, ndimage.gaussian_laplace(image, 1.0), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_wrong_kernels_are_refused(sigma):
    with pytest.raises(ValueError, match="must be"):
        gaussian_kernel(sigma, 3)
