"""One draw of the frozen experts: a random case, timestep and noise, and what each expert says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor, set_rnd
from monai.networks.schedulers import Scheduler
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.data.seeding import Chance, chance_of
from monai_diffens.inferers.agreement import ScanAgreement
from monai_diffens.inferers.sampling import SamplingScheduler
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.schedulers.arithmetic import stratum_timesteps
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.joint_conditions import HAS_KEY, TARGET_KEY, random_subset
from monai_diffens.transforms.thick_slices import measurement_from_meta


class ExpertDraws:
    """The part of :class:`~monai_diffens.data.expert_replay.ExpertReplay` that makes a draw.

    Args: those of the same name there.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        bank: ExpertBank,
        scheduler: Scheduler,
        draws: int = 120,
        target: ResidualTarget | None = None,
        seed: int = 0,
        noise_emphasis: float = 1.0,
        amp: bool | str = "auto",
        keep: float = 0.65,
        keep_low: float = 0.3,
    ) -> None:
        self.keep, self.keep_low = keep, keep_low
        self.source = source
        self.bank = bank.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.draws = draws
        self.target = target or ResidualTarget(measured=None)
        self.seed = seed
        self.noise_emphasis = noise_emphasis
        self.amp = amp

    @torch.no_grad()
    def draw(self, number: int) -> dict[str, Any]:
        """Run the experts on a random case at a random timestep of stratum ``number`` modulo ``draws``."""
        chance = self.chance(number)
        fraction = (number % self.draws + chance.within_stratum) / self.draws
        set_rnd(self.source, chance.source_seed)
        generator = torch.Generator().manual_seed(chance.noise_seed)
        device = next(self.bank.parameters()).device
        item = self.source[chance.case]
        conditions, label = (_batch(item[key]).to(device) for key in ("image", "label"))
        measured_channel = self.target.measured
        if self.bank.joint:
            measured_channel = self.bank.target = int(item[TARGET_KEY])
            random = np.random.RandomState(chance.subset_seed)
            has = torch.as_tensor(item[HAS_KEY])
            kept = random_subset(has, measured_channel, random, self.keep, self.keep_low)
            conditions *= kept.to(conditions)[:, None, None, None]
        measurement = self.measurement(item["image"], conditions, measured_channel, chance.leave_out)
        residual = self.target.to_residual(label, self.target.base_of(conditions))
        noise = torch.randn(residual.shape, generator=generator).to(device)
        timesteps = stratum_timesteps(
            torch.tensor([fraction]), self.scheduler.num_train_timesteps, self.noise_emphasis
        ).to(device)
        timestep = int(timesteps)
        x_t = self.scheduler.add_noise(residual, noise, timesteps)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        present = conditions[0].flatten(1).any(dim=1).cpu()
        if len(present) == 1:
            present[:] = True
        planes = len(self.bank.planes)
        groups = (
            (present & torch.as_tensor(self.bank.group_masks).cpu()).any(dim=1)
            if self.bank.joint
            else present
        )
        experts = groups.repeat(planes)
        bf16 = computes_in_bf16(self.amp, device.type)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            predictions = self.run_experts(x_t, conditions, timesteps, None if len(present) == 1 else experts)
        if measurement is not None:
            scan, base = conditions[:, [measured_channel]], self.target.base_of(conditions)
            agreement = ScanAgreement(measurement, scan, base, self.target)
            walks = cast(SamplingScheduler, self.scheduler)  # MONAI's base class lacks what all have
            predictions = agreement.of_prediction(predictions, x_t, timestep, walks)
            predictions *= experts.to(predictions)[None, :, None, None, None]
        errors = (predictions - target)[0].flatten(1)
        volumes = torch.cat([x_t, target, conditions, predictions], dim=1)[0]
        return {
            "volumes": volumes.half().cpu(),
            "timestep": timestep,
            "present": present,
            "gram": (errors @ errors.T / errors.shape[1]).cpu(),
        }

    def run_experts(
        self, x_t: Tensor, conditions: Tensor, timesteps: Tensor, present: Tensor | None
    ) -> Tensor:
        """What the frozen experts say, (1, E, X, Y, Z); a subclass may keep more of it."""
        return self.bank(x_t, conditions, timesteps, present)

    def chance(self, number: int) -> Chance:
        """What is random in draw ``number``, of the seed and the number alone."""
        return chance_of(self.seed, number, len(self.source))

    def measurement(
        self, image: Tensor, conditions: Tensor, channel: int | None, leave_out: bool
    ) -> Measurement | None:
        """What the measured condition's scan saw of the target, or None without that condition.

        With ``leave_out`` it is set to zero in ``conditions`` (1, M, X, Y, Z) where there are others; not for
        joint experts, which are given a subset already.
        """
        if channel is None or not isinstance(image, MetaTensor):
            return None
        measured = conditions[:, channel]
        if leave_out and not self.bank.joint and bool((conditions.sum(dim=1) != measured).any()):
            measured.zero_()
        return measurement_from_meta(image.shape[1:], image.meta) if bool(measured.any()) else None


def _batch(volume: Tensor) -> Tensor:
    return convert_to_tensor(volume, dtype=torch.float32, track_meta=False)[None]
