"""Data consistency: samples and results agree with the thick-sliced scan that the case was measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.schedulers.arithmetic import SamplingScheduler, project_prediction
from monai_diffens.target import ResidualTarget


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
