"""The model at work on one case: precision, memory, crops and counting are wrapped around its parts here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor
from tqdm import tqdm

from monai_diffens.acquisition.measurement import ScanAgreement
from monai_diffens.acquisition.slicing import PATCH_GRID
from monai_diffens.inferers.memory import smaller_until_it_fits
from monai_diffens.inferers.settings import RunTime, Sampling
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.expert_bank import slice_boxes
from monai_diffens.schedulers.arithmetic import SamplingScheduler, from_clean

FOREGROUND = 1e-3  # scaled intensity above which a voxel is no background


class CaseDenoiser:
    """Experts, fusion and data consistency of a case, as the loop calls them.

    It is what :class:`~monai_diffens.inferers.sampling.Denoiser` asks for.

    Args:
        network: the model.
        conditions: (1, M, X, Y, Z), cropped to the foreground.
        scheduler: noise schedule and prediction type.
        sampling: which fusion, with what weights.
        run_time: precision, and whether slices are cropped to what they show.
        agreement: with the scan; None where nothing was measured.
        project_experts: every expert agrees with the scan before the fusion.
        target: number of the condition whose contrast is made; where negative, the network's own.
    """

    def __init__(
        self,
        network: DiffEnsembler,
        conditions: Tensor,
        scheduler: SamplingScheduler,
        sampling: Sampling,
        run_time: RunTime,
        agreement: ScanAgreement | None = None,
        project_experts: bool = False,
        target: int = -1,
    ) -> None:
        self.network = network
        self.conditions, self.target = conditions, target
        self.scheduler = scheduler
        self.fusion = sampling.fusion
        self.emphasis = network.emphasis(sampling.plane_weights)
        self.agreement = agreement
        self.project_experts = project_experts and agreement is not None
        kind = conditions.device.type
        self.precision = torch.autocast(kind, torch.bfloat16, computes_in_bf16(run_time.amp, kind))
        self.boxes = shown_boxes(conditions, network.planes) if run_time.crop_slices else None
        self.bar: tqdm | None = None
        self.weights: Tensor | None = None  # the experts' weights of every step are added to it

    def experts(self, x_t: Tensor, t: int, step: int) -> tuple[Tensor, Tensor]:
        """Run the experts that the fusion needs and the case has: what they predict, and which they are."""
        level = float(self.scheduler.alphas_cumprod[t])
        # a clean sample of 0 is what they predict where nothing is seen, over x_t
        empty = from_clean(torch.zeros(()), torch.ones(()), level, self.scheduler.prediction_type)
        present = self.network.taking_part(self.conditions, self.fusion, step, self.emphasis)
        for attempt in smaller_until_it_fits(self.network, self.conditions.shape[2:]):
            with attempt, self.precision:
                predictions = self.network.bank(
                    x_t, self.conditions, self.timesteps(t), present, self.boxes, float(empty), self.target
                )
        if self.project_experts:
            for index in present[0].nonzero().flatten().tolist():
                predictions[:, index : index + 1] = self.agree(predictions[:, index : index + 1], x_t, t)
        return predictions, present

    def fuse(self, predictions: tuple[Tensor, Tensor], x_t: Tensor, t: int) -> Tensor:
        """Fuse what the experts predict."""
        given = (x_t, self.conditions, predictions[0], self.timesteps(t), predictions[1])
        for attempt in smaller_until_it_fits(self.network, self.conditions.shape[2:]):
            with attempt, self.precision:
                fused = self.network.fuse(*given, self.fusion, self.emphasis)
        if self.bar is not None:
            self.bar.update()
        if self.weights is not None:
            self.weights.add_(fused.weights)
        return fused.prediction.float()

    def agree(self, prediction: Tensor, x_t: Tensor, t: int) -> Tensor:
        """Data consistency with the scan, if there is one."""
        if self.agreement is None:
            return prediction
        return self.agreement.of_prediction(prediction, x_t, t, self.scheduler)

    def timesteps(self, t: int) -> Tensor:
        """(1,)."""
        return torch.full((1,), t, device=self.conditions.device)


def foreground_box(conditions: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Box of the voxels above zero.

    It begins at a multiple of ``PATCH_GRID``: pooled slices then lie in the experts' patches as they did in
    training, where every crop begins with a whole slice. Two voxels off, x4 pooling loses two thirds of what
    the experts explain of the residual (measured on the val subject).

    Args:
        conditions: (1, M, X, Y, Z), scaled.
        margin: voxels to keep around them.
    """
    start, stop = generate_spatial_bounding_box(
        conditions[0], select_fn=lambda x: x > FOREGROUND, margin=margin, allow_smaller=False
    )
    x, y, z = (
        slice(max(0, int(low)) // PATCH_GRID * PATCH_GRID, min(size, int(high)))
        for low, high, size in zip(start, stop, conditions.shape[2:], strict=True)
    )
    return x, y, z


def shown_boxes(conditions: Tensor, planes: Sequence[str]) -> list[list[list[int]]]:
    """For each plane, the boxes of what its slices show of any condition (B, M, X, Y, Z)."""
    seen = (conditions > FOREGROUND).any(dim=1, keepdim=True)
    return [slice_boxes(seen, plane) for plane in planes]
