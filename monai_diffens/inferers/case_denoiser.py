"""The model at work on one case: precision, memory, crops and counting are wrapped around its parts here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor
from tqdm import tqdm

from monai_diffens.acquisition.slicing import PATCH_GRID
from monai_diffens.inferers.agreement import ScanAgreement
from monai_diffens.inferers.memory import run_within_memory
from monai_diffens.inferers.sampling import SamplingScheduler, factor_of_nothing
from monai_diffens.inferers.settings import RunTime, Sampling
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.predictions import EmptySpace, ExpertOutputs
from monai_diffens.networks.slice_passes import slice_boxes

Result = TypeVar("Result")
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
    ) -> None:
        self.network = network
        self.conditions = conditions
        self.scheduler = scheduler
        self.fusion = sampling.fusion
        self.emphasis = network.emphasis(sampling.condition_weights, sampling.plane_weights)
        self.agreement = agreement
        self.project_experts = project_experts
        self.kind = conditions.device.type
        self.bf16 = computes_in_bf16(run_time.amp, self.kind)
        self.boxes = shown_boxes(conditions, network.planes) if run_time.crop_slices else None
        self.bar: tqdm | None = None
        self.weights: Tensor | None = None  # the experts' weights of every step are added to it

    def experts(self, x_t: Tensor, t: int, step: int) -> ExpertOutputs:
        """Run the experts that the fusion needs and the case has, in passes that fit into memory."""
        empty = None
        if self.boxes is not None:
            empty = EmptySpace(self.boxes, factor_of_nothing(self.scheduler, t))
        outputs = self.computed(
            lambda: self.network.run_experts(
                x_t, self.conditions, self.timesteps(t), self.fusion, step, self.emphasis, empty
            )
        )
        if self.agreement is not None and self.project_experts:
            for index in outputs.present.any(dim=0).nonzero().flatten().tolist():
                prediction = outputs.predictions[:, index : index + 1]
                prediction.copy_(self.agreement.of_prediction(prediction, x_t, t, self.scheduler))
        return outputs

    def fuse(self, predictions: ExpertOutputs, x_t: Tensor, t: int) -> Tensor:
        """Fuse, in windows that fit into memory."""
        fused = self.computed(
            lambda: self.network.fuse_experts(
                predictions, x_t, self.conditions, self.timesteps(t), self.fusion
            )
        )
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
        return torch.full((self.conditions.shape[0],), t, device=self.conditions.device)

    def computed(self, run: Callable[[], Result]) -> Result:
        """The result of ``run``, in the case's precision, again in smaller passes where memory runs out."""
        with torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.bf16):
            return run_within_memory(run, self.network, self.conditions.shape[2:])


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
