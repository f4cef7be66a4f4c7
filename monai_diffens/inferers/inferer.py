"""Conditions in, volume out: the inferer that the bundles' evaluators call."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from monai_diffens.acquisition.measurement import Measurement, ScanAgreement, cut_off
from monai_diffens.files import case_of
from monai_diffens.inferers.case_denoiser import CaseDenoiser, foreground_box
from monai_diffens.inferers.memory import in_step, plan_memory
from monai_diffens.inferers.sampling import sample_with_prior
from monai_diffens.inferers.settings import (
    GROUPS,
    Consistency,
    Outputs,
    RunTime,
    Sampling,
    changed,
    grouped,
)
from monai_diffens.messages import Console, InputRejected, say
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.schedulers.arithmetic import SamplingScheduler
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.thick_slices import measurement_from_meta

logger = logging.getLogger(__name__)


class DiffEnsemblerInferer(Inferer):
    """Sample the target volume given its conditions.

    Args:
        scheduler: noise schedule and solver; ``prediction_type`` must be the one trained for.
        target: what is diffused, as in the training.
        sampling: number of steps, fusion, seed and the like.
        consistency: how the result keeps to the scan.
        outputs: what is put out behind the volume.
        run_time: precision, memory, progress bar.

    Raises:
        ValueError: where these do not go together.

    Example:
        >>> from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
        >>> inferer = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), num_steps=4, seed=7)
        >>> inferer.sampling.num_steps
        4
    """

    def __init__(
        self,
        scheduler: SamplingScheduler,
        target: ResidualTarget | None = None,
        sampling: Sampling | None = None,
        consistency: Consistency | None = None,
        outputs: Outputs | None = None,
        run_time: RunTime | None = None,
    ) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.target = target or ResidualTarget()
        self.sampling = sampling or Sampling()
        self.consistency = consistency or Consistency()
        self.outputs = outputs or Outputs()
        self.run_time = run_time or RunTime()
        if self.outputs.spread and self.sampling.num_samples < 2:
            raise ValueError("a spread needs num_samples of 2 or more, got 1")
        nothing = torch.zeros(1)
        self.target.from_residual(nothing, nothing, self.sampling.residual_gain)  # refuses a gain of no use
        self.drawn: dict[int, Tensor] | None = None  # residuals by seed, for who needs several gains of them

    @classmethod
    def of(
        cls, scheduler: SamplingScheduler, *, target: ResidualTarget | None = None, **options: Any
    ) -> DiffEnsemblerInferer:
        """An inferer of options by their names, whichever object holds them.

        Args:
            scheduler: as in the class.
            target: likewise.
            **options: of :class:`Sampling`, :class:`Consistency`, :class:`Outputs` and :class:`RunTime`.
        """
        return cls(scheduler, target, **grouped(options))

    def changed(self, **options: Any) -> DiffEnsemblerInferer:
        """This inferer with other options, by name as in :meth:`of`; the scheduler and target are shared."""
        groups = changed({name: getattr(self, name) for name in GROUPS}, options)
        return type(self)(self.scheduler, self.target, **groups)

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
            (B, 1, X, Y, Z) on the conditions' scale and grid; behind it the channels of ``outputs``, named by
            :func:`~monai_diffens.inferers.settings.map_names`.
        """
        network.check_fusion(self.sampling.fusion)
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
        case = case_of(meta)
        conditions = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs).float()
        measurement = None
        if self.consistency.with_scan:
            measurement = measurement_from_meta(conditions.shape[2:], meta)
        region = foreground_box(conditions, self.run_time.margin)
        cropped = conditions[(..., *region)]
        self._fit_memory(network, cropped, conditions, case)
        model = CaseDenoiser(
            network,
            cropped,
            self.scheduler,
            self.sampling,
            self.run_time,
            self._agreement(cropped, measurement, region),
            self.consistency.of_experts,
            -1 if self.target.measured is None else self.target.measured,
        )
        if self.outputs.weights:
            model.weights = cropped.new_zeros(1, network.num_experts, *cropped.shape[2:])
        samples = RunningMoments()
        with self._bar() as model.bar:
            for number in range(self.sampling.num_samples):
                samples.add(check_finite(self.sample_residual(self.seed_of(case, number), model), case))

        def whole(part: Tensor) -> Tensor:
            volume = conditions.new_zeros(1, part.shape[1], *conditions.shape[2:])
            volume[(..., *region)] = part
            return volume

        base = self.target.base_of(conditions)
        restored = self.target.from_residual(whole(samples.mean), base, self.sampling.residual_gain)
        result = [self._cut(check_finite(restored, case), base, measurement, region)]
        if self.outputs.spread:
            factor = self.target.scale * self.sampling.residual_gain * self.outputs.spread_scale
            result.append(whole(samples.std() * factor))
        if model.weights is not None:  # the sum counts the steps
            result.append(whole(model.weights / model.weights.sum(dim=1, keepdim=True)))
        for each in result[1:]:
            check_finite(each, case)
        return torch.cat(result, dim=1) if len(result) > 1 else result[0]

    def sample_residual(self, seed: int, model: CaseDenoiser) -> Tensor:
        """One sample of the residual (1, 1, X, Y, Z) inside the foreground region, before its gain."""
        drawn = {} if self.drawn is None else self.drawn
        if seed not in drawn:
            shape, device = model.conditions[:, :1].shape, model.conditions.device
            # drawn on the CPU, so that it is the same on every device
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(
                device
            )
            ancestral = torch.Generator(device).manual_seed(seed + 1)
            steps, restart = self.sampling.num_steps, self.sampling.restart
            clean = sample_with_prior(model, noise, self.scheduler, steps, restart, ancestral)
            # a scheduler that clips, or mixes several predictions, leaves what agrees with the scan
            drawn[seed] = clean if model.agreement is None else model.agreement(clean)
        return drawn[seed]

    def seed_of(self, case: str, number: int) -> int:
        """Seed that depends on the inferer's seed, the case's name and the sample's number alone."""
        digest = hashlib.sha256(f"{self.sampling.seed}/{case}/{number}".encode()).digest()
        return int.from_bytes(digest[:7], "big")

    def _agreement(
        self, cropped: Tensor, measurement: Measurement | None, region: Sequence[slice]
    ) -> ScanAgreement | None:
        if measurement is None or self.target.measured is None:
            return None
        scan = cropped[:, self.target.measured : self.target.measured + 1]
        return ScanAgreement(measurement, scan, self.target.base_of(cropped), self.target, region)

    def _cut(
        self, restored: Tensor, base: Tensor, measurement: Measurement | None, region: Sequence[slice]
    ) -> Tensor:
        """The result without what lies outside of the brain or below zero, where that is wanted."""
        inside = self.target.base == "brain"
        if self.consistency.non_negative:
            support = base > 0 if inside else torch.ones_like(base, dtype=torch.bool)
            return cut_off(restored, support, measurement, region)
        return restored * (base > 0) if inside else restored

    def _fit_memory(self, network: DiffEnsembler, cropped: Tensor, conditions: Tensor, case: str) -> None:
        """Make the network run in passes that fit into memory, and say what that takes."""
        if not isinstance(network, DiffEnsembler):  # another network sees to its memory itself
            return
        outside = math.ceil(2 * conditions[0].numel() / cropped[0].numel())  # the scan and the result
        maps = 2 * self.outputs.spread + (network.num_experts + 1) * self.outputs.weights
        volumes, device = conditions.shape[1] + outside + maps, conditions.device
        bf16 = computes_in_bf16(self.run_time.amp, device.type)
        plan = plan_memory(network, cropped.shape[2:], volumes, device, self.run_time.max_memory, case, bf16)
        plan.apply(network, self.outputs.weights)
        logger.info("%s: %s", case, plan)
        if cost := plan.cost(case):
            logger.warning(cost)

    def _bar(self) -> tqdm:
        return tqdm(
            total=self.sampling.num_steps * self.sampling.num_samples,
            file=Console(sys.stderr),
            disable=not self.run_time.progress or sys.stderr is None,
            desc="denoising",
            unit="step",
        )


class RunningMoments:
    """Mean and standard deviation of a stream of tensors, in two tensors however many come.

    Source: Welford, Technometrics 4(3), 1962.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, value: Tensor) -> None:
        """Take in one tensor; all have one shape."""
        self.count += 1
        if self.count == 1:
            self.mean = value.clone()
            return
        before = value - self.mean
        self.mean += before / self.count
        self.squares = self.squares + before * (value - self.mean)

    def std(self) -> Tensor:
        """Standard deviation of a sample (divisor: count - 1).

        Raises:
            ValueError: fewer than two tensors came.
        """
        if self.count < 2:
            raise ValueError(f"a spread needs two samples or more, got {self.count}")
        return (self.squares / (self.count - 1)).sqrt()


def check_finite(volume: Tensor, name: str) -> Tensor:
    """The volume, of any shape, where all its values are finite.

    A clamp turns infinity into a bound, and a threshold turns NaN into 0: what comes later cannot tell.

    Args:
        volume: of a result or its maps.
        name: of the case.

    Raises:
        InputRejected: with how many are not.
    """
    finite = torch.isfinite(volume)
    if not bool(finite.all()):
        bad = int(finite.numel() - finite.sum())
        raise InputRejected(say("not_finite_result", name=name, percent=100 * bad / finite.numel()))
    return volume
