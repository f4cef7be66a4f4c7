"""Conditions in, volume out: the inferer that the bundles' evaluators call."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from monai_diffens.console import Console, is_command
from monai_diffens.files import case_of
from monai_diffens.inferers.agreement import cut_off
from monai_diffens.inferers.finite import check_finite
from monai_diffens.inferers.maps import RunningMoments, check_spread
from monai_diffens.inferers.memory import CPU_WORK, check_limit, plan_case
from monai_diffens.inferers.out_of_memory import in_step
from monai_diffens.inferers.precision import computes_in_bf16
from monai_diffens.inferers.region import foreground_box
from monai_diffens.inferers.residual_sampler import ResidualSampler
from monai_diffens.inferers.sampling import SamplingScheduler
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.reuse import keep_for_next_pass
from monai_diffens.target import RESIDUAL_SCALE, check_gain, from_residual, target_base
from monai_diffens.transforms.thick_slices import measurement_from_meta

logger = logging.getLogger(__name__)


class DiffEnsemblerInferer(ResidualSampler):
    """Sample the target volume given its conditions.

    Args:
        scheduler: noise schedule and solver; ``prediction_type`` must be the one trained for.
        num_steps: network passes a sample, the dial from regression (1) to realism (10 and more).
        num_samples: samples a case; their voxel-wise mean is returned.
        seed: with the case's name it seeds the noise, so that the same case gives the same volume
            whatever ran before it.
        fusion: "calibrated", "mean", "alternate", a plane, a condition or one expert's name.
        restart: see :func:`sample_with_prior`; None for a plain walk.
        consistency: make the result, thick-sliced again, equal the input where ``inputs.meta`` says how
            it was sliced.
        amp: bf16 autocast: True, False, or "auto" (where the processor computes in bf16).
        progress: show a progress bar.
        residual_scale: of the training.
        residual_gain: factor on the predicted residual, with base "condition" alone: 1 is the network's
            estimate, more is sharper and further from the truth. The scan saw nothing of the residual, so
            the result agrees with it whatever the gain.
        margin: voxels kept around the foreground; what lies outside is left as the base has it.
        base: of the training, see :func:`target_base`; with "brain" the result is 0 outside of the brain.
        measured_channel: the condition whose thick-slice sampling ``inputs.meta`` records.
        condition_weights: factor of each condition in the fusion, see :meth:`DiffEnsembler.emphasis`.
        plane_weights: factor of each plane.
        project_experts: make every expert agree with the scan before the fusion, as well as the result, where
            the fusion was trained on such experts.
        non_negative: cut the result off at 0, and give what is lost back where the scan saw it, see
            :func:`~monai_diffens.acquisition.measurement.fit_inside`.
        spread: add a channel: the standard deviation over the samples, 0 outside of the foreground.
        spread_scale: factor on that channel.
        max_memory: limit in GiB beside the model; what the device has left when None.
        crop_slices: run the experts on what slices show alone, a fifth fewer products. Their norms then see
            less background; on whole slices the result is to rounding that of MONAI's own pieces.
        weights: add a channel for each expert: its weight, averaged over all passes of all samples. They
            sum to 1, are 0 outside of the foreground, and with fusion "calibrated" may leave [0, 1].
    """

    def __init__(
        self,
        scheduler: SamplingScheduler,
        num_steps: int = 1,
        num_samples: int = 1,
        seed: int = 0,
        fusion: str = "calibrated",
        restart: float | None = 0.5,
        consistency: bool = True,
        amp: bool | str = "auto",
        progress: bool = True,
        residual_scale: float = RESIDUAL_SCALE,
        residual_gain: float = 1.0,
        margin: int = 4,
        spread: bool = False,
        spread_scale: float = 1.0,
        weights: bool = False,
        base: str = "condition",
        measured_channel: int = 0,
        condition_weights: Mapping[str, float] | None = None,
        plane_weights: Mapping[str, float] | None = None,
        max_memory: float | None = None,
        project_experts: bool = False,
        non_negative: bool = False,
        crop_slices: bool = True,
    ) -> None:
        super().__init__(
            scheduler,
            num_steps,
            seed,
            fusion,
            restart,
            amp,
            residual_scale,
            base,
            measured_channel,
            condition_weights,
            plane_weights,
            project_experts,
            crop_slices,
        )
        if min(num_steps, num_samples) < 1:
            counts = f"{num_steps} and {num_samples}"
            raise ValueError(f"num_steps and num_samples must be 1 or more, got {counts}")
        check_spread(spread, spread_scale, num_samples)
        check_gain(residual_gain, base)
        check_limit(max_memory)
        self.num_samples = num_samples
        self.consistency = consistency
        self.progress = progress
        self.residual_gain = residual_gain
        self.margin = margin
        self.spread = spread
        self.spread_scale = spread_scale
        self.weights = weights
        self.max_memory = max_memory
        self.non_negative = non_negative
        self.drawn: dict[int, Tensor] | None = None  # residuals by seed, for who needs several gains of them

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: DiffEnsembler, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Sample one volume a case.

        Args:
            inputs: (B, M, X, Y, Z) scaled conditions, RAS, 0 where a case lacks one.
            network: the model.
            *args: unused; MONAI's engines may pass some.
            **kwargs: unused, likewise.

        Returns:
            (B, 1, X, Y, Z) on the conditions' scale and grid; behind it the channels of ``spread``
            and ``weights``, named by :func:`~monai_diffens.inferers.maps.map_names`.
        """
        network.check_fusion(self.fusion)
        with in_step(network):
            volumes = [self.restore_case(inputs[i : i + 1], network) for i in range(inputs.shape[0])]
        result = volumes[0] if len(volumes) == 1 else torch.cat(volumes)
        if isinstance(inputs, MetaTensor):
            return MetaTensor(result, meta=dict(inputs.meta), applied_operations=inputs.applied_operations)
        return result

    @torch.no_grad()
    def restore_case(self, inputs: Tensor, network: DiffEnsembler) -> Tensor:
        """Sample one case (1, M, X, Y, Z) -> (1, 1 and the maps, X, Y, Z)."""
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        conditions = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        conditions = conditions.float()
        measurement = measurement_from_meta(conditions.shape[2:], meta) if self.consistency else None
        region = foreground_box(conditions, self.margin)
        cropped = conditions[(..., *region)]
        base = target_base(conditions, self.base)
        case = case_of(meta)
        if isinstance(network, DiffEnsembler):  # another network sees to its memory itself
            maps = 2 * self.spread + (network.num_experts + 1) * self.weights
            bf16 = computes_in_bf16(self.amp, conditions.device.type)
            plan = plan_case(network, cropped, conditions, maps, self.max_memory, case, bf16)
            plan.apply(network, self.weights)
            if is_command():  # a setting of the whole process, for good
                keep_for_next_pass(CPU_WORK)
            logger.info("%s: %s", case, plan)
            if cost := plan.cost(case):
                logger.warning(cost)
        samples = RunningMoments()
        weights = cropped.new_zeros(1, network.num_experts, *cropped.shape[2:]) if self.weights else None
        with tqdm(
            total=self.num_steps * self.num_samples,
            file=Console(sys.stderr),
            disable=not self.progress or sys.stderr is None,
            desc="denoising",
            unit="pass",
        ) as bar:
            for number in range(self.num_samples):
                seed = self.seed_of(case, number)
                drawn = {} if self.drawn is None else self.drawn
                if seed not in drawn:
                    drawn[seed] = self.sample_residual(
                        seed, cropped, network, measurement, region, bar, weights
                    )
                samples.add(check_finite(drawn[seed], case))

        def whole(part: Tensor) -> Tensor:
            volume = conditions.new_zeros(1, part.shape[1], *conditions.shape[2:])
            volume[(..., *region)] = part
            return volume

        scale = self.residual_scale * self.residual_gain
        restored = check_finite(from_residual(whole(samples.mean), base, scale), case)
        if self.non_negative:
            support = base > 0 if self.base == "brain" else torch.ones_like(base, dtype=torch.bool)
            restored = cut_off(restored, support, measurement, region)
        elif self.base == "brain":
            restored = restored * (base > 0)
        result = [restored]
        if self.spread:
            result.append(whole(samples.std() * (scale * self.spread_scale)))
        if weights is not None:
            result.append(whole(weights / weights.sum(dim=1, keepdim=True)))  # the sum counts the passes
        for each in result[1:]:
            check_finite(each, case)
        return torch.cat(result, dim=1) if len(result) > 1 else restored
