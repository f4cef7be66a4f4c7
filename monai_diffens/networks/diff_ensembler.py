"""Diff-Ensembler: 2D experts of several planes, fused by a 3D network at every denoising step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.networks.calibrator import VolumeCalibrator, average_weights, weighted_sum
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.networks.expert_selection import ExpertSelection
from monai_diffens.networks.predictions import EmptySpace, ExpertOutputs, FusedPrediction
from monai_diffens.networks.reuse import give_back_freed
from monai_diffens.networks.windows import Box, run_in_windows


class DiffEnsembler(ExpertSelection):
    """Expert bank and calibrator behind the call that MONAI's DiffusionInferer makes (mode "concat").

    Source: arXiv 2501.07430. Fusion can be switched from one checkpoint: "calibrated" (the method),
    "mean" (TOSM / MADM), "alternate" (TPDM: planes in turn), or the mean of one plane's, one condition's or
    one single expert ("axial", "T2w", "axial/T2w").

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
        super().__init__(ExpertBank(planes=planes, conditions=conditions, **bank))
        self.calibrator = VolumeCalibrator(self.num_experts, len(self.bank.conditions), calibrator_channels)
        # a study puts a module here that brings the experts' decoder maps to the calibrator's levels
        self.alignment: nn.Module | None = None
        self.check_fusion(fusion)
        self.fusion = fusion
        # How `predict` runs, never what it gives: the most voxels that the calibrator takes at once (0 for
        # the whole volume), and whether windows keep weights and bias (else zeros of one voxel).
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
            step, so "alternate" is the first expert here; :meth:`predict` takes turns.
        """
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], device=x.device)
        timesteps = timesteps.expand(x.shape[0])  # MONAI's sample gives one for the whole batch
        x_t, conditions = x[:, :1], x[:, 1:]
        experts = self.run_experts(x_t, conditions, timesteps, self.fusion, 0, None)
        return self.fuse_experts(experts, x_t, conditions, timesteps, self.fusion).prediction

    @torch.jit.unused
    def predict(
        self,
        x_t: Tensor,
        conditions: Tensor,
        timesteps: Tensor,
        fusion: str = "calibrated",
        step: int = 0,
        emphasis: Tensor | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
        empty: EmptySpace | None = None,
    ) -> FusedPrediction:
        """Run the experts that ``fusion`` needs and the case has, and fuse.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z), 0 where absent.
            timesteps: (B,).
            fusion: see the class.
            step: number of the denoising step; "alternate" takes the planes in turn by it.
            emphasis: (E,), see :meth:`emphasis`; 1 for all when None.
            project: what each expert's prediction (B, 1, X, Y, Z) passes before the fusion.
            empty: slices are cropped to what they show; whole ones are run when None.

        Raises:
            ValueError: when no expert is left for a case.
        """
        experts = self.run_experts(x_t, conditions, timesteps, fusion, step, emphasis, empty)
        if project is not None:
            for index in experts.present.any(dim=0).nonzero().flatten().tolist():
                prediction = experts.predictions[:, index : index + 1]
                prediction.copy_(project(prediction))
        return self.fuse_experts(experts, x_t, conditions, timesteps, fusion)

    def run_experts(
        self,
        x_t: Tensor,
        conditions: Tensor,
        timesteps: Tensor,
        fusion: str,
        step: int,
        emphasis: Tensor | None,
        empty: EmptySpace | None = None,
    ) -> ExpertOutputs:
        """First half of :meth:`predict`: every slice through the experts, in all processes together."""
        present = self.active(fusion, step, emphasis).to(x_t.device) & self.present(conditions)
        if not bool(present.any(dim=1).all()):
            raise ValueError(f"a case has no condition that fusion '{fusion}' and the weights leave in")
        with_features = self.alignment is not None and fusion == "calibrated"
        predictions, features = self.bank.predict_with_features(
            x_t, conditions, timesteps, present, with_features, empty
        )
        if not torch.jit.is_scripting():  # one process in compiled code
            self.bank.sum_over_processes(predictions)
        factors: Tensor | None = None
        if emphasis is not None:
            factors = emphasis.to(x_t.device).unsqueeze(0).expand(x_t.shape[0], -1)
        return ExpertOutputs(predictions, present, features, factors)

    def fuse_experts(
        self, experts: ExpertOutputs, x_t: Tensor, conditions: Tensor, timesteps: Tensor, fusion: str
    ) -> FusedPrediction:
        """Second half of :meth:`predict`: the plain or the learned fusion, in windows where they are set."""
        predictions, present, features, factors = experts
        if not torch.jit.is_scripting():  # noqa: SIM102 (one window in compiled code)
            if fusion == "calibrated" and self.window_voxels > 0:
                return self._fuse_in_windows(
                    x_t, conditions, predictions, timesteps, present, features, factors
                )
        if fusion == "calibrated":
            return self.fuse(x_t, conditions, predictions, timesteps, present, features, factors)
        weights = average_weights(present, factors).to(x_t.dtype)[:, :, None, None, None]
        fused = weighted_sum(weights, predictions)
        return FusedPrediction(fused, weights, torch.zeros([1, 1, 1, 1, 1], device=x_t.device))

    def fuse(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        features: list[list[Tensor]] | None = None,
        emphasis: Tensor | None = None,
    ) -> FusedPrediction:
        """Fuse given predictions (B, E, X, Y, Z) with the calibrator.

        Args:
            x_t: (B, 1, X, Y, Z).
            conditions: (B, M, X, Y, Z).
            predictions: (B, E, X, Y, Z), as :class:`ExpertBank` returns them.
            timesteps: (B,).
            present: (B, E) bool.
            features: the experts' decoder maps; heard where there is an ``alignment``.
            emphasis: (B, E), see :func:`average_weights`.
        """
        aligned: list[Tensor] | None = None
        if self.alignment is not None and features is not None:
            aligned = self.alignment(features, x_t.shape[0])
        return self._weigh(x_t, conditions, predictions, timesteps, present, aligned, emphasis)

    def _weigh(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        aligned: list[Tensor] | None,
        emphasis: Tensor | None,
    ) -> FusedPrediction:
        weights, bias = self.calibrator(x_t, conditions, predictions, timesteps, present, aligned, emphasis)
        fused = weighted_sum(weights, predictions) + bias
        return FusedPrediction(fused, weights, bias)

    @torch.jit.unused
    def _fuse_in_windows(
        self,
        x_t: Tensor,
        conditions: Tensor,
        predictions: Tensor,
        timesteps: Tensor,
        present: Tensor,
        features: list[list[Tensor]],
        emphasis: Tensor | None,
    ) -> FusedPrediction:
        """Fuse as :meth:`fuse`, window by window; each process takes its share of the windows."""
        aligned = None if self.alignment is None else self.alignment(features, x_t.shape[0])

        def weigh(box: Box, levels: list[Tensor] | None) -> FusedPrediction:
            if math.prod(side.stop - side.start for side in box) < x_t[0, 0].numel():
                give_back_freed()  # by the experts or the window before; a volume of several is a large one
            x, c, v = (volume[(..., *box)] for volume in (x_t, conditions, predictions))
            return self._weigh(x, c, v, timesteps, present, levels, emphasis)

        nothing = predictions.new_zeros(1, 1, 1, 1, 1)
        whole = FusedPrediction(
            torch.zeros_like(x_t),
            torch.zeros_like(predictions) if self.keep_weights else nothing,
            torch.zeros_like(x_t) if self.keep_weights else nothing,
        )
        outputs = whole if self.keep_weights else whole[:1]
        run_in_windows(
            weigh,
            outputs,
            self.window_voxels,
            self.calibrator.level_strides,
            aligned,
            self.bank.rank,
            self.bank.world_size,
        )
        for output in outputs:
            self.bank.sum_over_processes(output)
        return whole
