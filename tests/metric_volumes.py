"""Volumes that the metrics' tests share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

SHAPE = (26, 31, 23)


@pytest.fixture
def truth() -> torch.Tensor:
    """A smooth random volume with some noise, shape SHAPE, values in [0, 1], float32."""
    rng = np.random.default_rng(0)
    volume = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5) + 0.01 * rng.standard_normal(SHAPE)
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    return torch.from_numpy(volume.astype(np.float32))


@pytest.fixture
def pred(truth: torch.Tensor) -> torch.Tensor:
    """The truth blurred by a Gaussian of one voxel, float32."""
    return torch.from_numpy(ndimage.gaussian_filter(truth.numpy(), 1.0))


@pytest.fixture
def ball() -> torch.Tensor:
    """A bool mask: a ball that touches no border of SHAPE."""
    grid = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    return sum(axis**2 for axis in grid) < 8.5**2
