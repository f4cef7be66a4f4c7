"""Training of the fusion: batches of cached predictions, and the loss relative to the plain average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from monai.inferers import Inferer
from torch import Tensor, nn

from monai_diffens.networks.diff_ensembler import DiffEnsembler


class FusionPrepareBatch(PrepareBatch):
    """Split the crops of :class:`ExpertReplay` into the arguments of :meth:`DiffEnsembler.fuse`.

    Args:
        num_conditions: M.
    """

    def __init__(self, num_conditions: int = 1) -> None:
        self.num_conditions = num_conditions

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[()], dict[str, Tensor]]:
        """Return x_t, (target, baseline), no arguments, and the keyword arguments of the inferer."""
        volumes = batchdata["volumes"].to(device, non_blocking=non_blocking)
        x_t, target = volumes[:, :1], volumes[:, 1:2]
        conditions = volumes[:, 2 : 2 + self.num_conditions]
        predictions = volumes[:, 2 + self.num_conditions :]
        baseline = torch.as_tensor(batchdata["baseline"], dtype=torch.float32, device=volumes.device)
        arguments = {
            "conditions": conditions,
            "predictions": predictions,
            "timesteps": torch.as_tensor(batchdata["timestep"], device=volumes.device),
            "present": torch.ones(predictions.shape[:2], dtype=torch.bool, device=volumes.device),
        }
        return x_t, (target, baseline), (), arguments


class FusionInferer(Inferer):
    """Call :meth:`DiffEnsembler.fuse` on cached predictions, with the signature that MONAI's trainer uses."""

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: DiffEnsembler, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Fused prediction (B, 1, X, Y, Z); ``kwargs`` are the arguments of ``fuse``."""
        return network.fuse(inputs, *args, **kwargs).prediction


class RelativeSquaredError(nn.Module):
    """Squared error of each sample over the plain average's at that draw, averaged over the batch.

    1 is the plain average of the experts. The error of a denoiser spans orders of magnitude over t; as a
    ratio all timesteps count alike, and the log reads as the gain of fusion.
    """

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Compare (B, 1, X, Y, Z) with (target of that shape, baseline (B,))."""
        truth, baseline = target
        errors = (prediction - truth).square().flatten(1).mean(dim=1)
        return (errors / baseline).mean()
