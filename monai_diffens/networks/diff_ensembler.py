"""Diff-Ensembler: 2D experts of several planes, fused by a 3D network at every denoising step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_diffens.networks.calibrator import VolumeCalibrator, average_weights
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.networks.feature_alignment import FeatureAlignment
from monai_diffens.networks.slicing import PLANES

FUSIONS = ("calibrated", "mean", "alternate")


class FusedPrediction(NamedTuple):
    """What one denoising step yields.

    Attributes:
        prediction: (B, 1, X, Y, Z).
        weights: (B, E, X, Y, Z), summing to 1 over E; (B, E, 1, 1, 1) where they are the same everywhere.
        bias: (B, 1, X, Y, Z), or zeros (1, 1, 1, 1, 1).
    """

    prediction: Tensor
    weights: Tensor
    bias: Tensor


class DiffEnsembler(nn.Module):
    """Expert bank and calibrator behind the call that MONAI's DiffusionInferer makes (mode "concat").

    Source: arXiv 2501.07430. Fusion can be switched from one checkpoint: "calibrated" (the method),
    "mean" (TOSM / MADM), "alternate" (TPDM: planes in turn), or the name of one expert.

    Args:
        planes: planes that have experts.
        conditions: names of the condition channels.
        fusion: what :meth:`forward` uses.
        calibrator_channels: width of each calibrator level.
        with_features: feed the experts' decoder maps to the calibrator (hierarchical alignment).
        **bank: further arguments of :class:`ExpertBank`.
    """

    def __init__(
        self,
        planes: Sequence[str] = PLANES,
        conditions: Sequence[str] = ("image",),
        fusion: str = "calibrated",
        calibrator_channels: tuple[int, ...] = (32, 64),
        with_features: bool = False,
        **bank: Any,
    ) -> None:
        super().__init__()
        self.bank = ExpertBank(planes=planes, conditions=conditions, **bank)
        self.num_experts = len(self.bank.names)
        self.calibrator = VolumeCalibrator(self.num_experts, len(self.bank.conditions), calibrator_channels)
        self.alignment: FeatureAlignment | None = None
        if with_features:
            denoiser: Any = self.bank.experts[0]
            self.alignment = FeatureAlignment(
                self.bank.expert_planes,
                denoiser.feature_channels,
                denoiser.feature_strides,
                calibrator_channels[1:],
                self.calibrator.level_strides[1:],
            )
        self.expert_names = self.bank.names
        self.check_fusion(fusion)
        self.fusion = fusion

    @torch.jit.unused
    def check_fusion(self, fusion: str) -> None:
        """Raise ValueError, naming the choices, when ``fusion`` is none of them."""
        choices = (*FUSIONS, *self.expert_names)
        if fusion not in choices:
            raise ValueError(f"unknown fusion '{fusion}': use one of {', '.join(choices)}")

    def forward(self, x: Tensor, timesteps: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Predict from cat[x_t, conditions].

        Args:
            x: (B, 1 + M, X, Y, Z).
            timesteps: (B,), or (1,) for all; zeros when None.
            context: unused; MONAI's DiffusionInferer passes it.

        Returns:
            (B, 1, X, Y, Z), in the prediction type the model was trained for. MONAI tells no number of the
            step, so "alternate" is the first expert here; :meth:`predict` takes turns.
        """
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        timesteps = timesteps.expand(x.shape[0])  # MONAI's sample gives one for the whole batch
        return self.predict(x[:, :1], x[:, 1:], timesteps, self.fusion, 0).prediction

    def predict(
        self, x_t: Tensor, conditions: Tensor, timesteps: Tensor, fusion: str = "calibrated", step: int = 0
    ) -> FusedPrediction:
        """Run the experts that ``fusion`` needs, and fuse.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z).
            timesteps: (B,).
            fusion: see the class.
            step: number of the denoising step; "alternate" takes the experts in turn by it.
        """
        present = self.active(fusion, step)
        predictions, features = self.bank.predict_with_features(
            x_t, conditions, timesteps, present, self.alignment is not None and fusion == "calibrated"
        )
        everyone = present.to(x_t.device).unsqueeze(0).expand(x_t.shape[0], -1)
        if fusion == "calibrated":
            return self.fuse(x_t, conditions, predictions, timesteps, everyone, features)
        weights = average_weights(everyone).to(x_t.dtype)[:, :, None, None, None]
        fused = (weights * predictions).sum(dim=1, keepdim=True)
        return FusedPrediction(fused, weights, torch.zeros([1, 1, 1, 1, 1], device=x_t.device))

    def fuse(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        features: list[list[Tensor]] | None = None,
    ) -> FusedPrediction:
        """Fuse given predictions (B, E, X, Y, Z) with the calibrator.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z).
            predictions: (B, E, X, Y, Z), as :class:`ExpertBank` returns them.
            timesteps: (B,).
            present: (B, E) bool.
            features: the experts' decoder maps; needed when built with ``with_features``.
        """
        aligned: list[Tensor] | None = None
        if self.alignment is not None and features is not None:
            aligned = self.alignment(features, x_t.shape[0])
        weights, bias = self.calibrator(x_t, conditions, predictions, timesteps, present, aligned)
        fused = (weights * predictions).sum(dim=1, keepdim=True) + bias
        return FusedPrediction(fused, weights, bias)

    def active(self, fusion: str, step: int) -> Tensor:
        """(E,) bool: the experts that ``fusion`` runs at ``step``."""
        if fusion == "calibrated" or fusion == "mean":
            return torch.ones(self.num_experts, dtype=torch.bool)
        active = torch.zeros(self.num_experts, dtype=torch.bool)
        if fusion == "alternate":
            active[step % self.num_experts] = True
        else:
            active[self.expert_names.index(fusion)] = True
        return active
