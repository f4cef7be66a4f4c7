"""What the scanner measured: thick slices along any axis, their inverse, and consistency with them.

A thick-slice scan is linear in the fine volume and separable over the axes: y = A x with one small
matrix an axis. With the matrices at hand, the Moore-Penrose inverse is exact for any axis, factor and
slice profile, and a sampled residual is made to agree with the measurement by x - A+ A x
(DDNM, arXiv 2212.00490).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import ndtr
from torch import Tensor

from monai_diffens.schedulers.arithmetic import SamplingScheduler, project_prediction
from monai_diffens.target import ResidualTarget

PROFILES = ("box", "gaussian")
# Overlapping slices hardly see what alternates from one to the next; dividing by that would leave noise alone
# (2 % of it, slices of 10 mm every 5 mm: 4 dB where now 23 dB are reached). Slices that do not overlap see at
# least 0.4 of everything.
LEAST_SEEN = 0.1
FIT_ITERATIONS = 8  # of alternating projections: slices then differ by less than 0.1 % (val subject)
# A Gaussian slice is described by its full width at half maximum, as scanners do.
FWHM_TO_SIGMA = float(1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0))))


@dataclass(frozen=True)
class AxisSampling:
    """How one axis of a fine grid was sampled; both grids share their centre.

    Args:
        n_high: voxels of the fine grid.
        n_low: slices measured.
        factor: slice spacing in fine voxels.
        thickness: slice thickness in fine voxels (full width at half maximum for a Gaussian profile).
        profile: "box" or "gaussian".
    """

    n_high: int
    n_low: int
    factor: float
    thickness: float
    profile: str = "box"

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"unknown slice profile '{self.profile}': use one of {', '.join(PROFILES)}")
        if min(self.n_high, self.n_low) < 1 or min(self.factor, self.thickness) <= 0:
            raise ValueError(f"sizes, factor and thickness must be positive: {self}")

    @classmethod
    def from_factor(
        cls, n_high: int, factor: float, thickness: float | None = None, profile: str = "box"
    ) -> AxisSampling:
        """Sample ``n_high`` fine voxels every ``factor`` voxels, without gaps unless a thickness is given."""
        thickness = factor if thickness is None else thickness
        return cls(n_high, max(1, round(n_high / factor)), factor, thickness, profile)

    @property
    def slice_centres(self) -> NDArray[np.float64]:
        """(n_low,) centres of the slices in fine voxel coordinates."""
        middle = (self.n_high - 1) / 2
        return middle + (np.arange(self.n_low, dtype=np.float64) - (self.n_low - 1) / 2) * self.factor

    def measure(self) -> NDArray[np.float64]:
        """(n_low, n_high) matrix A: each row the slice profile, integrated over the fine voxels."""
        edges = np.arange(self.n_high + 1) - 0.5 - self.slice_centres[:, None]
        if self.profile == "box":
            cumulative = np.clip(edges / self.thickness + 0.5, 0.0, 1.0)
        else:
            cumulative = ndtr(edges / (self.thickness * FWHM_TO_SIGMA))
        rows = np.diff(cumulative, axis=1)
        covered = rows.sum(axis=1, keepdims=True)
        return rows / np.where(covered > 0, covered, 1)

    def interpolate(self) -> NDArray[np.float64]:
        """(n_high, n_low) matrix of cubic spline interpolation; beyond the outer slices the value is held."""
        if self.n_low < 4:
            centres, target = self.slice_centres, np.arange(self.n_high)
            return np.stack([np.interp(target, centres, row) for row in np.eye(self.n_low)], axis=1)
        target = np.clip(np.arange(self.n_high), self.slice_centres[0], self.slice_centres[-1])
        return CubicSpline(self.slice_centres, np.eye(self.n_low), bc_type="natural")(target)


class Measurement:
    """The linear operator A of a scan over the three axes of a volume.

    Args:
        axes: one sampling an axis, None where the scan is already fine.
    """

    def __init__(self, axes: Sequence[AxisSampling | None]) -> None:
        if len(axes) != 3:
            raise ValueError(f"a measurement has three axes, got {len(axes)}")
        self.axes = tuple(axes)
        self._matrices = [None if axis is None else axis.measure() for axis in axes]

    def __call__(self, volume: Tensor) -> Tensor:
        """Thick-slice a fine volume (..., X, Y, Z) to (..., x, y, z)."""
        return _apply(volume, self._matrices)

    def interpolate(self, low: Tensor) -> Tensor:
        """Cubic spline interpolation of a scan (..., x, y, z) to the fine grid (..., X, Y, Z)."""
        return _apply(low, [None if axis is None else axis.interpolate() for axis in self.axes])

    def knots(self, low: Tensor) -> Tensor:
        """Values (..., x, y, z) at the slices' centres whose spline, measured, is the scan: (A B)^-1 y.

        For who evaluates the spline elsewhere than on the fine grid, so that there is one interpolation.
        """
        return _apply(low, self._sharpening)

    def restore(self, low: Tensor) -> Tensor:
        """Smoothest cubic spline volume that agrees with the scan: B (A B)^-1 y, so that A of it is y.

        Interpolation B alone treats thick slices as points; dividing by A B undoes the slice profile as
        far as the spline can follow, and leaves the residual to the truth inside the null space of A.
        """
        return _apply(low, self._restoring)

    def restore_inside(self, restored: Tensor, support: Tensor, lowest: float = 0.0) -> Tensor:
        """The restored scan without what lies outside of a support, see :func:`fit_inside`.

        Args:
            restored: (..., X, Y, Z) of :meth:`restore`.
            support: bool, of the same shape: where the volume may differ from zero.
            lowest: smallest value inside of the support.
        """
        seen = [
            None if back is None or measure is None else back @ measure
            for back, measure in zip(self._restoring, self._matrices, strict=True)
        ]
        return fit_inside(restored, seen, support, lowest)

    @cached_property
    def _sharpening(self) -> list[NDArray[np.floating] | None]:
        """(A B)^-1, one matrix (n_low, n_low) an axis."""
        return [
            None
            if axis is None or measure is None
            else np.linalg.pinv(measure @ axis.interpolate(), rcond=LEAST_SEEN)
            for axis, measure in zip(self.axes, self._matrices, strict=True)
        ]

    @cached_property
    def _restoring(self) -> list[NDArray[np.float64] | None]:
        """B (A B)^-1, one matrix (n_high, n_low) an axis."""
        return [
            None if axis is None or sharpen is None else axis.interpolate() @ sharpen
            for axis, sharpen in zip(self.axes, self._sharpening, strict=True)
        ]

    def null_space(self, box: Sequence[slice] | None = None) -> NullSpaceProjection:
        """Projection of residuals onto what the scan cannot see, x - A+ A x.

        Args:
            box: region outside which the residual is zero (the foreground); the whole grid when None.
        """
        sides = [slice(None)] * 3 if box is None else box
        inside = [None if a is None else a[:, side] for a, side in zip(self._matrices, sides, strict=True)]
        # A+ A is separable too: one square matrix an axis
        return NullSpaceProjection([None if a is None else np.linalg.pinv(a, rcond=1e-6) @ a for a in inside])


class NullSpaceProjection:
    """x -> x - A+ A x for residual volumes (..., X, Y, Z); built by :meth:`Measurement.null_space`."""

    def __init__(self, projectors: Sequence[NDArray[np.floating] | None]) -> None:
        self._projectors = projectors

    def __call__(self, residual: Tensor) -> Tensor:
        """Remove from a residual what the scan would have seen."""
        if all(matrix is None for matrix in self._projectors):
            return residual
        return residual - _apply(residual, self._projectors)

    def fit_inside(self, volume: Tensor, support: Tensor) -> Tensor:
        """A volume without what lies outside of a support or below zero, see :func:`fit_inside`."""
        return fit_inside(volume, self._projectors, support, 0.0)


def fit_inside(
    volume: Tensor,
    seen: Sequence[NDArray[np.floating] | None],
    support: Tensor,
    lowest: float,
) -> Tensor:
    """Cut a volume off without losing its agreement with the scan, by alternating projections.

    A magnitude image is not negative, and a skull-stripped one is zero outside of the brain; a spline or a
    network is neither. Cutting alone loses signal that the slices saw at the edge: x <- cut(x + B (v - x))
    gives it back inside, where B keeps what the scan sees of a volume.

    Args:
        volume: v, (..., X, Y, Z), which agrees with the scan.
        seen: B, one matrix an axis; None for a fine axis.
        support: bool, of the same shape: where the result may differ from zero.
        lowest: smallest value inside of the support.
    """
    inside = support.to(volume.dtype)
    fitted = volume.clamp(min=lowest) * inside
    if all(matrix is None for matrix in seen):
        return fitted
    for _ in range(FIT_ITERATIONS):
        fitted = (fitted + _apply(volume - fitted, seen)).clamp(min=lowest) * inside
    return fitted


def _apply(volume: Tensor, matrices: Sequence[NDArray[np.floating] | None]) -> Tensor:
    """Apply one matrix along each of the last three axes."""
    for dim, matrix in zip((-3, -2, -1), matrices, strict=True):
        if matrix is not None:
            if not volume.is_floating_point():  # the matrix, cast to integers, would be all zero
                raise TypeError(f"a floating point volume is needed, got {volume.dtype}")
            operator = torch.as_tensor(matrix, dtype=volume.dtype, device=volume.device)
            volume = torch.tensordot(volume, operator, dims=([dim], [1])).movedim(-1, dim)
    return volume


class ScanAgreement:
    """Clean residual in, the nearest residual out whose volume, thick-sliced, is the scan.

    Args:
        measurement: how the scan was sliced.
        scan: (B, 1, X, Y, Z), restored so that it agrees with the slices; the part inside ``region``.
        base: of that shape.
        target: what is diffused.
        region: box outside which the residual is zero; the whole grid when None.
    """

    def __init__(
        self,
        measurement: Measurement,
        scan: Tensor,
        base: Tensor,
        target: ResidualTarget,
        region: Sequence[slice] | None = None,
    ) -> None:
        self.unseen = measurement.null_space(region)
        self.known = target.to_residual(scan, base)

    def __call__(self, clean: Tensor) -> Tensor:
        """Clean residuals (B, n, X, Y, Z) -> the same shape."""
        return self.known + self.unseen(clean - self.known)

    def of_prediction(self, prediction: Tensor, x_t: Tensor, t: int, scheduler: SamplingScheduler) -> Tensor:
        """The prediction (B, n, X, Y, Z) at timestep t, its clean residual made to agree."""
        return project_prediction(prediction, x_t, t, self, scheduler)


def cut_off(
    restored: Tensor, support: Tensor, measurement: Measurement | None, region: Sequence[slice]
) -> Tensor:
    """Cut a result off at 0 and outside of its support, and give what is lost back where the scan saw it.

    Args:
        restored: (B, 1, X, Y, Z).
        support: bool, of that shape: where it may be above 0.
        measurement: how the scan was sliced; None where nothing can be given back.
        region: box that agrees with the scan.
    """
    cut = restored.clamp(min=0) * support
    if measurement is not None:
        here: tuple[Any, ...] = (..., *region)
        cut[here] = measurement.null_space(region).fit_inside(restored[here], support[here])
    return cut
