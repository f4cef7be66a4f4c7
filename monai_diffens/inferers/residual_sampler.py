"""One sample of the residual: the experts and their fusion at every step, in agreement with the scan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.inferers.agreement import ScanAgreement
from monai_diffens.inferers.out_of_memory import run_within_memory
from monai_diffens.inferers.precision import check_amp, computes_in_bf16
from monai_diffens.inferers.region import shown_boxes
from monai_diffens.inferers.sampling import Denoise, SamplingScheduler, constrained, sample_with_prior
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.predictions import EmptySpace
from monai_diffens.schedulers.prediction import from_clean
from monai_diffens.target import RESIDUAL_SCALE, target_base


class ResidualSampler(Inferer):
    """The part of :class:`~monai_diffens.inferers.inferer.DiffEnsemblerInferer` that walks one sample.

    Args: those of the same name there.
    """

    def __init__(
        self,
        scheduler: SamplingScheduler,
        num_steps: int = 1,
        seed: int = 0,
        fusion: str = "calibrated",
        restart: float | None = 0.5,
        amp: bool | str = "auto",
        residual_scale: float = RESIDUAL_SCALE,
        base: str = "condition",
        measured_channel: int = 0,
        condition_weights: Mapping[str, float] | None = None,
        plane_weights: Mapping[str, float] | None = None,
        project_experts: bool = False,
        crop_slices: bool = True,
    ) -> None:
        super().__init__()
        check_amp(amp)
        self.scheduler = scheduler
        self.num_steps = num_steps
        self.seed = seed
        self.fusion = fusion
        self.restart = restart
        self.amp = amp
        self.residual_scale = residual_scale
        self.base = base
        self.measured_channel = measured_channel
        self.condition_weights = condition_weights
        self.plane_weights = plane_weights
        self.project_experts = project_experts
        self.crop_slices = crop_slices

    def sample_residual(
        self,
        seed: int,
        conditions: Tensor,
        network: DiffEnsembler,
        measurement: Measurement | None,
        region: Sequence[slice],
        bar: tqdm,
        weights: Tensor | None = None,
    ) -> Tensor:
        """One sample of the scaled residual (1, 1, X, Y, Z) inside the foreground region, before its gain.

        The experts' weights of every pass are added to ``weights`` (1, E, X, Y, Z) where it is given.
        """
        kind = conditions.device.type
        emphasis = network.emphasis(self.condition_weights, self.plane_weights)

        agreement: ScanAgreement | None = None
        if measurement is not None:
            scan = conditions[:, self.measured_channel : self.measured_channel + 1]
            base = target_base(conditions, self.base)
            agreement = ScanAgreement(measurement, scan, base, self.residual_scale, region)

        boxes = shown_boxes(conditions, network.planes) if self.crop_slices else None

        def denoise(x_t: Tensor, t: int, step: int) -> Tensor:
            timesteps = torch.full((x_t.shape[0],), t, device=x_t.device)
            empty = None if boxes is None else EmptySpace(boxes, self.factor_of_nothing(t))
            project = None
            if agreement is not None and self.project_experts:
                project = partial(agreement.of_prediction, x_t=x_t, t=t, scheduler=self.scheduler)
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=computes_in_bf16(self.amp, kind)):
                fused = run_within_memory(
                    lambda: network.predict(
                        x_t, conditions, timesteps, self.fusion, step, emphasis, project, empty
                    ),
                    network,
                    x_t.shape[2:],
                )
            bar.update()
            if weights is not None:
                weights.add_(fused.weights)
            return fused.prediction.float()

        # drawn on the CPU, so that it is the same on every device
        noise = torch.randn(conditions[:, :1].shape, generator=torch.Generator().manual_seed(seed))
        ancestral = torch.Generator(conditions.device).manual_seed(seed + 1)

        def walk(step: Denoise) -> Tensor:
            x = noise.to(conditions.device)
            return sample_with_prior(step, x, self.scheduler, self.num_steps, self.restart, ancestral)

        if agreement is None:
            return walk(denoise)
        # again at the end: a scheduler that clips, or mixes several predictions, leaves the null space
        return agreement(walk(constrained(denoise, agreement, self.scheduler)))

    def factor_of_nothing(self, t: int) -> float:
        """What a prediction of a clean sample of 0 is, over x_t."""
        level, kind = float(self.scheduler.alphas_cumprod[t]), self.scheduler.prediction_type
        return float(from_clean(torch.zeros(()), torch.ones(()), level, kind))

    def seed_of(self, case: str, number: int) -> int:
        """Seed that depends on the inferer's seed, the case's name and the sample's number alone."""
        digest = hashlib.sha256(f"{self.seed}/{case}/{number}".encode()).digest()
        return int.from_bytes(digest[:7], "big")
