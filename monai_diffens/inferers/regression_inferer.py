"""Volumes from a network that regresses the residual: in windows, then made to agree with the scan."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor, nn

from monai_diffens.inferers.agreement import ScanAgreement, cut_off
from monai_diffens.inferers.residual import from_residual, target_base
from monai_diffens.transforms.thick_slices import measurement_from_meta


class RegressionInferer(Inferer):
    """MONAI's sliding windows, then the agreement with the scan and the cut of :class:`DiffEnsemblerInferer`.

    Args:
        window: side of a window in voxels, that of the training's crops: statistics of instance norm
            depend on it.
        overlap: of neighbouring windows.
        residual_scale: of the training.
        measured_channel: the condition whose thick-slice sampling ``inputs.meta`` records.
        consistency: make the result, thick-sliced again, equal that scan.
    """

    def __init__(
        self,
        window: int = 64,
        overlap: float = 0.5,
        residual_scale: float = 0.3,
        measured_channel: int = 3,
        consistency: bool = True,
    ) -> None:
        super().__init__()
        self.windows = SlidingWindowInferer(window, overlap=overlap, mode="gaussian")
        self.residual_scale = residual_scale
        self.measured_channel = measured_channel
        self.consistency = consistency

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Predict (B, M, X, Y, Z) scaled conditions -> (B, 1, X, Y, Z), 0 outside of the brain."""
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        conditions = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs).float()
        base = target_base(conditions, "brain")
        residual = torch.as_tensor(self.windows(conditions, network))
        measurement = measurement_from_meta(conditions.shape[2:], meta) if self.consistency else None
        if measurement is not None:
            scan = conditions[:, self.measured_channel : self.measured_channel + 1]
            residual = ScanAgreement(measurement, scan, base, self.residual_scale)(residual)
        restored = from_residual(residual, base, self.residual_scale)
        result = cut_off(restored, base > 0, measurement, [slice(None)] * 3)
        if isinstance(inputs, MetaTensor):
            return MetaTensor(result, meta=dict(inputs.meta), applied_operations=inputs.applied_operations)
        return result
