"""A few numbers of one scan that tell whether it is like others: intensities, size, spacing, shape."""

from __future__ import annotations

from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.transforms.intensity import foreground_percentile

__all__ = ["PERCENTILES", "ScanTraits"]

PERCENTILES = (2, 10, 25, 50, 75, 90, 98)
BRIGHT_PERCENTILE = 99.5  # of the voxels above zero
FOREGROUND = 0.02  # of that value: what is darker is background, for the shape
AIR = 0.005  # of that value: what is darker is 0 with the ripples of interpolation
SHORTEST_FIELD = 90.0  # mm, of a volume that may hold a brain
STRIDE = 2  # of voxels, for the shape


@dataclass(frozen=True)
class ScanTraits:
    """What is compared: a few numbers of one scan.

    Attributes:
        intensities: (7,) percentiles of what is not 0, over the percentile that the model's scaling makes 1.
        extent: (3,) of the foreground, right-left, front-back and head-foot, mm.
        spacing: (3,) of the voxels along the same axes, mm.
        covariance: (3, 3) of foreground positions in mm, scaled to a trace of 3.
        skewness: (3, 3, 3) third central moments of the same positions.
        cut: (3,) bool: whether the foreground reaches the end of the volume along each axis, or the volume is
            shorter than any brain there.
    """

    intensities: NDArray[np.floating]
    extent: NDArray[np.floating]
    spacing: NDArray[np.floating]
    covariance: NDArray[np.floating]
    skewness: NDArray[np.floating]
    cut: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(3, dtype=bool))

    @classmethod
    def of(
        cls, scan: MetaTensor, scaled_by: float = BRIGHT_PERCENTILE, brain: Tensor | None = None
    ) -> ScanTraits:
        """Measure a scan.

        Args:
            scan: (1, X, Y, Z) in RAS order with an affine in mm.
            scaled_by: percentile of the voxels above zero that the model's scaling makes 1.
            brain: bool, of the scan's shape: what is measured, of a head with its skull; all when None.
        """
        values = scan.as_tensor()[0].float().cpu()
        if brain is not None:
            values = values * brain.as_subclass(Tensor)[0].cpu()
        bright = foreground_percentile(values, BRIGHT_PERCENTILE)
        volume = values.numpy() / bright
        foreground = volume > FOREGROUND
        spacing = nib.affines.voxel_sizes(np.asarray(scan.affine, dtype=float))
        sides = [
            np.flatnonzero(foreground.any(axis=tuple(other for other in range(3) if other != axis)))
            for axis in range(3)
        ]
        extent = np.array([side[-1] - side[0] + 1 for side in sides]) * spacing
        places = np.argwhere(foreground[::STRIDE, ::STRIDE, ::STRIDE]) * spacing
        places = places - places.mean(axis=0)
        places /= max(np.sqrt(np.square(places).sum(axis=1).mean() / 3), 1e-6)
        covariance = places.T @ places / len(places)
        skewness = np.einsum("ni,nj,nk->ijk", places, places, places, optimize=True) / len(places)
        seen = volume[volume > AIR]
        # not of all voxels above zero: the ripples of a restored scan would draw its median down
        unit = 1.0 if scaled_by == BRIGHT_PERCENTILE else np.percentile(seen, scaled_by)
        intensities = np.percentile(seen, PERCENTILES) / unit
        cut = np.array(
            [
                side[0] == 0 or side[-1] == size - 1 or size * step < SHORTEST_FIELD
                for side, size, step in zip(sides, volume.shape, spacing, strict=True)
            ]
        )
        return cls(intensities, extent, spacing, covariance, skewness, cut)
