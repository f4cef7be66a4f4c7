"""Heads with skull, made from label maps: T1w, T2w and FLAIR contrast, noise, bias field; and their brains.

The label maps have FreeSurfer's numbers, and 5xx for what lies outside of the brain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from monai_diffens.transforms.registration import Scan

WHITE = (2, 7, 16, 28, 41, 46, 60, 85)
FLUID = (4, 5, 14, 15, 24, 43, 44, 72)
FIRST_OUTSIDE = 500
# brightness of white matter, grey matter, fluid, and of what lies outside: soft tissue with fat, skin, bone,
# marrow, sinuses, eyes, nose, cord, optic nerves, tongue, others
OUTSIDE = (507, 511, 515, 516, 514, 506, 509, 512, 508, 502, 530)
CONTRASTS = {
    "T1w": (1.0, 0.7, 0.25, (0.85, 0.7, 0.08, 0.9, 0.4, 0.2, 0.35, 0.9, 0.7, 0.6, 0.3)),
    "T2w": (0.4, 0.6, 1.0, (0.5, 0.4, 0.05, 0.45, 0.2, 1.0, 0.8, 0.4, 0.3, 0.4, 0.3)),
    "FLAIR": (0.55, 0.75, 0.12, (0.6, 0.4, 0.05, 0.5, 0.2, 0.15, 0.5, 0.5, 0.4, 0.4, 0.3)),
}
NOISE = 0.03
BIAS = 0.25  # of the logarithm, over the head
WHITE_VALUE = 300.0


def head(labels: Scan, contrast: str, seed: int) -> Scan:
    """A magnitude image of a label map, with noise and a bias field drawn from the seed."""
    white, grey, fluid, outside = CONTRASTS[contrast]
    d, draw = labels.values.astype(int), np.random.default_rng(seed)
    values = np.where((d > 0) & (d < FIRST_OUTSIDE), grey, 0.0)
    values[np.isin(d, WHITE)], values[np.isin(d, FLUID)] = white, fluid
    for label, value in zip(OUTSIDE, outside, strict=True):
        values[d == label] = value
    bias = zoom(draw.normal(size=(3, 3, 3)), np.array(d.shape) / 3, order=3)
    values = gaussian_filter(values, 0.5) * np.exp(BIAS * bias)
    real, imaginary = NOISE * draw.normal(size=(2, *d.shape))
    noisy = np.hypot(values + real, imaginary) * WHITE_VALUE
    return Scan(noisy.astype(np.float32), labels.affine)


def brain_with_fluid(labels: Scan) -> NDArray[np.bool_]:
    """The brain and the fluid around it, down to its lowest tissue."""
    d = labels.values.astype(int)
    inside = (d > 0) & (d < FIRST_OUTSIDE)
    inside[:, :, : np.argwhere(tissue(labels))[:, 2].min()] = False
    return inside


def tissue(labels: Scan) -> NDArray[np.bool_]:
    """The brain without the fluid around it."""
    d = labels.values.astype(int)
    return (d > 0) & (d < FIRST_OUTSIDE) & (d != 24)
