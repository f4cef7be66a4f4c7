"""Training of a fusion that reads the experts' decoder maps, on cached draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_diffens.engines.fusion import FusionPrepareBatch, FusionStep


class FeaturePrepareBatch(FusionPrepareBatch):
    """:class:`FusionPrepareBatch` that hands the maps of :class:`~.study_replay.StudyReplay` on, if any."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[()], dict[str, Any]]:
        """Return what :class:`FusionPrepareBatch` does; keyword "maps" for :class:`FeatureFusionStep`."""
        x_t, target, rest, arguments = super().__call__(batchdata, device, non_blocking, **kwargs)
        extra = {}
        if "maps" in batchdata:
            maps = batchdata["maps"]
            extra["maps"] = {
                plane: each.to(device, non_blocking=non_blocking) for plane, each in maps.items()
            }
        return x_t, target, rest, arguments | extra


class FeatureFusionStep(FusionStep):
    """:class:`FusionStep` that also aligns decoder maps.

    Each sample of a batch has conditions of its own, and what is absent is not aligned at all, as in
    sampling: a convolution adds its bias even to maps of zeros.
    """

    def forward(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        maps: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Fused prediction (B, 1, X, Y, Z).

        Args:
            x_t: this and the next four are those of ``fuse``.
            conditions: (B, M, X, Y, Z).
            predictions: (B, E, X, Y, Z).
            timesteps: (B,).
            present: (B, E).
            maps: for each plane (B, M, N, C, H / p, W / p), or None.
        """
        if maps is None:
            return super().forward(x_t, conditions, predictions, timesteps, present)
        model = self.ensembler
        fused = []
        for row in range(x_t.shape[0]):
            experts = [each for plane in model.bank.planes for each in maps[plane][row]]
            features = [[m] if there else [] for m, there in zip(experts, present[row], strict=True)]
            part = slice(row, row + 1)
            arguments = (x_t[part], conditions[part], predictions[part], timesteps[part], present[part])
            fused.append(model.fuse(*arguments, features=features).prediction)
        return torch.cat(fused)
