"""Training of the fusion: batches of cached predictions, and the loss relative to the plain average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from torch import Tensor, nn

from monai_diffens.networks.calibrator import average_weights
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
        """Return x_t, (target, baseline), no arguments, and the keyword arguments of :class:`FusionStep`."""
        volumes = batchdata["volumes"].to(device, non_blocking=non_blocking)
        x_t, target = volumes[:, :1], volumes[:, 1:2]
        present = torch.as_tensor(batchdata["present"], device=volumes.device)
        arguments = {
            "conditions": volumes[:, 2 : 2 + self.num_conditions],
            "predictions": volumes[:, 2 + self.num_conditions :],
            "timesteps": torch.as_tensor(batchdata["timestep"], device=volumes.device),
            "present": present,
        }
        baseline = average_error(batchdata["gram"].to(volumes.device), present)
        return x_t, (target, baseline), (), arguments


def average_error(gram: Tensor, present: Tensor) -> Tensor:
    """Mean squared error of the plain average of the experts present.

    Args:
        gram: (B, E, E) mean products of the experts' errors.
        present: (B, E) bool.

    Returns:
        (B,).
    """
    share = average_weights(present)
    return torch.einsum("be,bef,bf->b", share, gram.float(), share)


class FusionStep(nn.Module):
    """:meth:`DiffEnsembler.fuse` on cached predictions as a module, so that DDP can wrap it.

    Args:
        ensembler: the model; its frozen experts are not run.
    """

    def __init__(self, ensembler: DiffEnsembler) -> None:
        super().__init__()
        self.ensembler = ensembler

    def forward(
        self, x_t: Tensor, conditions: Tensor, predictions: Tensor, timesteps: Tensor, present: Tensor
    ) -> Tensor:
        """Fused prediction (B, 1, X, Y, Z); the arguments are those of ``fuse``."""
        return self.ensembler.fuse(x_t, conditions, predictions, timesteps, present).prediction


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
