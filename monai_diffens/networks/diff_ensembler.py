"""Diff-Ensembler: 2D experts of several planes, fused by a 3D network at every denoising step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.calibrator import VolumeCalibrator, average_weights, weighted_sum
from monai_diffens.networks.expert_bank import ExpertBank

FUSIONS = ("calibrated", "mean", "alternate")


class FusedPrediction(NamedTuple):
    """What the fusion of one denoising step yields.

    Attributes:
        prediction: (B, 1, X, Y, Z).
        weights: (B, E, X, Y, Z), summing to 1 over E; (B, E, 1, 1, 1) where they are the same everywhere.
    """

    prediction: Tensor
    weights: Tensor


class DiffEnsembler(nn.Module):
    """Expert bank and calibrator behind the call that MONAI's DiffusionInferer makes (mode "concat").

    Source: arXiv 2501.07430. Fusion can be switched from one checkpoint: "calibrated" (the method),
    "mean" (TOSM / MADM), "alternate" (TPDM: planes in turn), or the mean of one plane's, one group's or one
    single expert ("axial", "T1w+T2w", "axial/T1w+T2w").

    With several conditions, a case may lack some: their channels are 0 everywhere, which no scan is.

    Args:
        planes: planes that have experts.
        conditions: names of the condition channels.
        fusion: what :meth:`forward` uses.
        calibrator_channels: width of each calibrator level.
        **bank: further arguments of :class:`ExpertBank`.
    """

    def __init__(
        self,
        planes: Sequence[str] = PLANES,
        conditions: Sequence[str] = ("image",),
        fusion: str = "calibrated",
        calibrator_channels: tuple[int, ...] = (32, 64),
        **bank: Any,
    ) -> None:
        super().__init__()
        self.bank = ExpertBank(planes=planes, conditions=conditions, **bank)
        self.num_experts = len(self.bank.names)
        self.expert_names = self.bank.names
        self.planes = self.bank.planes
        self.expert_planes = self.bank.expert_planes
        self.expert_groups = [self.bank.groups[index] for index in self.bank.expert_groups]
        # of a single group the user never hears: its experts are called after their planes
        self.named_groups = self.bank.groups if len(self.bank.groups) > 1 else ()
        self.calibrator = VolumeCalibrator(self.num_experts, len(self.bank.conditions), calibrator_channels)
        self.check_fusion(fusion)
        self.fusion = fusion
        # How `fuse` runs, never what it gives: the most voxels that the calibrator takes at once (0 for
        # the whole volume), and whether windows keep weights (else zeros of one voxel).
        self.window_voxels = 0
        self.keep_weights = True

    def forward(self, x: Tensor, timesteps: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Predict from cat[x_t, conditions].

        Args:
            x: (B, 1 + M, X, Y, Z).
            timesteps: (B,), or (1,) for all; zeros when None.
            context: unused; MONAI's DiffusionInferer passes it.

        Returns:
            (B, 1, X, Y, Z), in the prediction type the model was trained for. MONAI tells no number of the
            step, so "alternate" is the first plane here.
        """
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        timesteps = timesteps.expand(x.shape[0])  # MONAI's sample gives one for the whole batch
        x_t, conditions = x[:, :1], x[:, 1:]
        present = self.taking_part(conditions, self.fusion)
        predictions = self.bank(x_t, conditions, timesteps, present)
        return self.fuse(x_t, conditions, predictions, timesteps, present, self.fusion).prediction

    def fuse(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        fusion: str = "calibrated",
        emphasis: Tensor | None = None,
    ) -> FusedPrediction:
        """Fuse predictions: their plain average, or the learned fusion, in windows where they are set.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z).
            predictions: (B, E, X, Y, Z), as :class:`ExpertBank` returns them.
            timesteps: (B,).
            present: (B, E) bool, see :meth:`taking_part`.
            fusion: see the class; all but "calibrated" average those present.
            emphasis: (E,), see :meth:`emphasis`; 1 for all when None.
        """
        if fusion != "calibrated":
            weights = average_weights(present, emphasis).to(x_t.dtype)[:, :, None, None, None]
            return FusedPrediction(weighted_sum(weights, predictions), weights)
        if not torch.jit.is_scripting():  # noqa: SIM102 (one window in compiled code)
            if 0 < self.window_voxels < x_t[0, 0].numel() or self.bank.world_size > 1:
                return self._fuse_in_windows(x_t, conditions, predictions, timesteps, present, emphasis)
        weights, bias = self.calibrator(x_t, conditions, predictions, timesteps, present, emphasis)
        return FusedPrediction(weighted_sum(weights, predictions) + bias, weights)

    @torch.jit.unused
    def _fuse_in_windows(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        emphasis: Tensor | None,
    ) -> FusedPrediction:
        """Fuse as :meth:`fuse`, window by window; each process takes its share of the windows."""
        fused = torch.zeros_like(x_t)
        weights = torch.zeros_like(predictions) if self.keep_weights else fused.new_zeros(1, 1, 1, 1, 1)
        voxels, processes = self.window_voxels or x_t[0, 0].numel(), self.bank.world_size
        windows = self.calibrator.windows(x_t.shape[2:], voxels, processes)
        for core, padded, inner in windows[self.bank.rank :: processes]:
            x, c, v = (volume[(..., *padded)] for volume in (x_t, conditions, predictions))
            part, bias = self.calibrator(x, c, v, timesteps, present, emphasis)
            fused[(..., *core)] = (weighted_sum(part, v) + bias)[(..., *inner)]
            if self.keep_weights:
                weights[(..., *core)] = part[(..., *inner)]
        self.bank.sum_over_processes(fused)
        if self.keep_weights:
            self.bank.sum_over_processes(weights)
        return FusedPrediction(fused, weights)

    @torch.jit.unused
    def check_fusion(self, fusion: str) -> None:
        """Raise ValueError, naming the choices, when ``fusion`` is none of them."""
        choices = dict.fromkeys((*FUSIONS, *self.expert_planes, *self.named_groups, *self.expert_names))
        if fusion not in choices:
            raise ValueError(f"unknown fusion '{fusion}': use one of {', '.join(choices)}")

    def taking_part(
        self, conditions: Tensor, fusion: str, step: int = 0, emphasis: Tensor | None = None
    ) -> Tensor:
        """(B, E) bool: the experts that a step runs, among those that the case has conditions for.

        Args:
            conditions: (B, M, X, Y, Z), 0 where absent.
            fusion: see the class.
            step: number of the denoising step; "alternate" takes the planes in turn by it.
            emphasis: (E,), see :meth:`emphasis`; 1 for all when None.

        Raises:
            ValueError: when no expert is left for a case.
        """
        part = self.active(fusion, step, emphasis).to(conditions.device) & self.bank.present(conditions)
        if not bool(part.any(dim=1).all()):
            raise ValueError(f"a case has no condition that fusion '{fusion}' and the weights leave in")
        return part

    def active(self, fusion: str, step: int, emphasis: Tensor | None = None) -> Tensor:
        """(E,) bool: the experts that ``fusion`` runs at ``step``, among those of ``emphasis`` above 0."""
        usable = torch.ones(self.num_experts, dtype=torch.bool)
        if emphasis is not None:
            usable = emphasis.cpu() > 0
        if fusion == "calibrated" or fusion == "mean":
            return usable
        turn = ""
        if fusion == "alternate":
            planes: list[str] = []
            for index, plane in enumerate(self.expert_planes):
                if bool(usable[index]) and plane not in planes:
                    planes.append(plane)
            turn = planes[step % len(planes)] if len(planes) > 0 else ""
        chosen = torch.zeros_like(usable)
        for index in range(self.num_experts):
            chosen[index] = turn == self.expert_planes[index] or fusion in [
                self.expert_names[index],
                self.expert_planes[index],
                self.expert_groups[index],
            ]
        return chosen & usable

    @torch.jit.unused
    def emphasis(self, plane_weights: Mapping[str, float] | None = None) -> Tensor | None:
        """Turn a user's weights into one factor an expert.

        Args:
            plane_weights: factor by plane; those not named keep 1. 0 leaves an expert out, as if it were
                absent; 1 is what was trained; 2 counts its prediction twice.

        Returns:
            (E,), or None when every factor is 1.

        Raises:
            ValueError: for an unknown name, a weight that is no number of 0 or more, or no expert left.
        """
        weights = plane_weights or {}
        for name, weight in weights.items():
            if name not in self.planes:
                raise ValueError(f"plane_weights: unknown '{name}': use {', '.join(self.planes)}")
            if not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
                raise ValueError(f"plane_weights: '{name}' must be a number of 0 or more, got {weight!r}")
        factors = torch.tensor([float(weights.get(name, 1)) for name in self.expert_planes])
        if not factors.any():
            raise ValueError("plane_weights leave no expert")
        return None if bool((factors == 1).all()) else factors
