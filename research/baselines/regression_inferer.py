"""Volumes from a network that regresses the residual: in windows, then made to agree with the scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer, sliding_window_inference
from torch import Tensor, nn

from monai_diffens.acquisition.measurement import ScanAgreement, cut_off
from monai_diffens.acquisition.slicing import PATCH_GRID, pad_end
from monai_diffens.inferers.case_denoiser import foreground_box
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.thick_slices import measurement_from_meta


class RegressionInferer(Inferer):
    """MONAI's sliding windows, then the agreement with the scan and the cut of :class:`DiffEnsemblerInferer`.

    With base "condition" windows and box are those of that inferer too: they begin on the patch grid.

    Args:
        window: side of a window in voxels, that of the training's crops: statistics of instance norm
            depend on it.
        overlap: of neighbouring windows.
        target: what the training's residual was; with base "brain" the result is 0 outside of the brain.
        consistency: make the result, thick-sliced again, equal that scan.
        residual_gain: factor on the residual, with base "condition" alone.
        margin: voxels kept around the foreground with base "condition".
    """

    def __init__(
        self,
        window: int = 64,
        overlap: float = 0.5,
        target: ResidualTarget | None = None,
        consistency: bool = True,
        residual_gain: float = 1.0,
        margin: int = 4,
    ) -> None:
        super().__init__()
        self.target = target or ResidualTarget("brain", 0.3, 3)
        nothing = torch.zeros(1)
        self.target.from_residual(nothing, nothing, residual_gain)  # refuses a gain of no use
        self.windows = SlidingWindowInferer(window, overlap=overlap, mode="gaussian")
        self.window = window
        self.overlap = overlap
        self.consistency = consistency
        self.residual_gain = residual_gain
        self.margin = margin
        self.drawn: dict[int, Tensor] | None = None  # the residual, for who needs several gains of it

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Predict (B, M, X, Y, Z) scaled conditions -> (B, 1, X, Y, Z)."""
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        conditions = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs).float()
        base = self.target.base_of(conditions)
        on_grid = self.target.base == "condition"
        region = foreground_box(conditions.amax(0, True), self.margin) if on_grid else (slice(None),) * 3
        here: tuple[Any, ...] = (..., *region)
        measurement = measurement_from_meta(conditions.shape[2:], meta) if self.consistency else None
        drawn = {} if self.drawn is None else self.drawn
        if not drawn:
            drawn[0] = self.predict(conditions[here], network)
        residual = drawn[0]
        if measurement is not None and self.target.measured is not None:
            scan = conditions[:, self.target.measured : self.target.measured + 1]
            agree = ScanAgreement(measurement, scan[here], base[here], self.target, region)
            residual = agree(residual)
        whole = torch.zeros_like(base)
        whole[here] = residual
        restored = self.target.from_residual(whole, base, self.residual_gain)
        support = torch.ones_like(base, dtype=torch.bool) if on_grid else base > 0
        result = cut_off(restored, support, measurement, region)
        if isinstance(inputs, MetaTensor):
            return MetaTensor(result, meta=dict(inputs.meta), applied_operations=inputs.applied_operations)
        return result

    def predict(self, conditions: Tensor, network: nn.Module) -> Tensor:
        """Scaled residual (B, 1, X, Y, Z) of conditions (B, M, X, Y, Z), before it agrees with the scan."""
        if self.target.base == "condition":
            return on_patch_grid(conditions, network, self.window, self.overlap)
        return torch.as_tensor(self.windows(conditions, network))


def on_patch_grid(
    volume: Tensor, network: Callable[[Tensor], Tensor], window: int, overlap: float = 0.5
) -> Tensor:
    """Run a 3D network in MONAI's sliding windows, each of which begins on the patch grid.

    MONAI pads a small volume on both sides and moves the last window back by any number of voxels, so the
    volume is padded at its end beforehand.

    Args:
        volume: (B, C, X, Y, Z), its first voxel on the grid.
        network: function of windows (B, C, w, w, w) to (B, n, w, w, w).
        window: their side in voxels, a multiple of ``PATCH_GRID``.
        overlap: of neighbouring windows; ``window`` times it is a multiple of ``PATCH_GRID`` too.

    Returns:
        (B, n, X, Y, Z).

    Raises:
        ValueError: when windows would leave the grid.
    """
    if window % PATCH_GRID or int(window * overlap) % PATCH_GRID:
        raise ValueError(f"window {window} with overlap {overlap} leaves the grid of {PATCH_GRID} voxels")
    shape = volume.shape[2:]
    padded = pad_end(volume, PATCH_GRID, window)
    result = sliding_window_inference(padded, window, 1, network, overlap, mode="gaussian")
    return torch.as_tensor(result)[..., : shape[0], : shape[1], : shape[2]]
