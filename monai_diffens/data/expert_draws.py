"""One draw of the frozen experts: a random case, timestep and x_t, and what each expert says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.data import MetaTensor, set_rnd
from monai.networks.schedulers import Scheduler
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_diffens.acquisition.measurement import ScanAgreement
from monai_diffens.data.volume_replay import derived_seed
from monai_diffens.networks.calibrator import average_weights, weighted_sum
from monai_diffens.networks.computation import computes_in_bf16
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.schedulers.arithmetic import SamplingScheduler, from_clean, stratum_timesteps, to_clean
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.conditions import HAS_KEY, KEPT, TARGET_KEY, random_subset
from monai_diffens.transforms.thick_slices import measurement_from_meta

STEPS_WALKED = (4, 50)  # numbers of steps whose stride a walked draw may take


class Chance(NamedTuple):
    """What is random in a draw, each part whether or not it is used.

    Attributes:
        within_stratum: where in its stratum of timesteps, 0 to 1.
        source_seed: of the source's transforms.
        noise_seed: of the noise.
        case: number of the source's item.
        subset_seed: of the conditions that are given, where there are several.
        walk: below the share of walked draws it is one.
        stride: how long the step of a walked draw is, 0 to 1.
    """

    within_stratum: float
    source_seed: int
    noise_seed: int
    case: int
    subset_seed: int
    walk: float
    stride: float


@dataclass(frozen=True)
class Drawn:
    """A case as a draw sees it.

    Attributes:
        conditions: (1, M, X, Y, Z), zero where left out.
        residual: (1, 1, X, Y, Z), the truth that is diffused.
        experts: (E,) bool, the experts that are asked: those that see any condition that is given.
        agreement: with the scan that measured the target; None where there is none.
        target: number of the condition whose contrast is made; negative where there is only one.
    """

    conditions: Tensor
    residual: Tensor
    experts: Tensor
    agreement: ScanAgreement | None
    target: int


class ExpertDraws:
    """Function (number) to a draw of :class:`~monai_diffens.data.expert_replay.ExpertReplay`.

    A draw depends on the seed and its number alone. Its x_t is the truth, noised; or, of a ``walked`` draw,
    where a sampler gets to from the noised truth by one DDIM step with the experts' average. There x_t holds
    what the experts did wrong the step before, which the fusion must meet to correct it.

    Args:
        source: dataset of items with ``image`` (M, X, Y, Z) conditions and ``label`` (1, X, Y, Z).
        bank: the frozen experts, on the device that runs them.
        scheduler: noise schedule.
        strata: number of strata of timesteps; draw n is of stratum n modulo it.
        target: what is diffused. Where the scan that measured it is given, every expert's prediction is made
            to agree with it, as in sampling with ``Consistency.of_experts``. By default nothing is measured.
        seed: of cases, timesteps, noise and walks.
        noise_emphasis: see :func:`~monai_diffens.schedulers.arithmetic.stratum_timesteps`.
        amp: bf16 of the experts, see :func:`~monai_diffens.networks.computation.computes_in_bf16`.
        kept: of several conditions, see :func:`~monai_diffens.transforms.conditions.random_subset`.
        walked: share of walked draws, 0 to 1.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        bank: ExpertBank,
        scheduler: Scheduler,
        strata: int = 120,
        target: ResidualTarget | None = None,
        seed: int = 0,
        noise_emphasis: float = 1.0,
        amp: bool | str = "auto",
        kept: tuple[float, float] = KEPT,
        walked: float = 0.0,
    ) -> None:
        self.source = source
        self.bank = bank.train(False).requires_grad_(False)
        self.scheduler = cast(SamplingScheduler, scheduler)  # MONAI's base class lacks what all have
        self.strata = strata
        self.target = target or ResidualTarget(measured=None)
        self.seed = seed
        self.noise_emphasis = noise_emphasis
        self.amp = amp
        self.kept = kept
        self.walked = walked

    @torch.no_grad()
    def __call__(self, number: int) -> dict[str, Any]:
        """Run the experts on a random case at a random timestep of stratum ``number`` modulo ``strata``."""
        chance = self.chance(number)
        case = self.case(chance)
        generator = torch.Generator().manual_seed(chance.noise_seed)
        noise = torch.randn(case.residual.shape, generator=generator).to(case.residual)
        fraction = torch.tensor([(number % self.strata + chance.within_stratum) / self.strata])
        timestep = int(stratum_timesteps(fraction, self.scheduler.num_train_timesteps, self.noise_emphasis))
        if chance.walk < self.walked:
            x_t = self.walk(case, noise, timestep, chance.stride)
        else:
            x_t = self.noised(case.residual, noise, timestep)
        predictions = self.predict(case, x_t, timestep)
        target = from_clean(case.residual, x_t, self.level(timestep), self.scheduler.prediction_type)
        errors = (predictions - target)[0].flatten(1)
        volumes = torch.cat([x_t, target, case.conditions, predictions], dim=1)[0]
        return {
            "volumes": volumes.half().cpu(),
            "timestep": timestep,
            "present": case.experts,
            "gram": (errors @ errors.T / errors.shape[1]).cpu(),
        }

    def chance(self, number: int) -> Chance:
        """What is random in draw ``number``, of the seed and the number alone."""
        random = np.random.RandomState(derived_seed(self.seed, number))
        return Chance(
            within_stratum=random.rand(),
            source_seed=random.randint(2**31),
            noise_seed=random.randint(2**31),
            case=random.randint(len(self.source)),
            subset_seed=random.randint(2**31),
            walk=random.rand(),
            stride=random.rand(),
        )

    def case(self, chance: Chance) -> Drawn:
        """The case of a draw, with the conditions that it is given."""
        set_rnd(self.source, chance.source_seed)
        item = self.source[chance.case]
        device = next(self.bank.parameters()).device
        conditions, label = (_batch(item[key]).to(device) for key in ("image", "label"))
        measured, target = self.target.measured, -1
        if len(self.bank.conditions) > 1:
            measured = target = int(item[TARGET_KEY])
            random = np.random.RandomState(chance.subset_seed)
            given = random_subset(torch.as_tensor(item[HAS_KEY]), measured, random, self.kept)
            conditions *= given.to(conditions)[:, None, None, None]
        base = self.target.base_of(conditions)
        agreement = None
        if measured is not None and bool(conditions[:, measured].any()):
            meta = item["image"].meta if isinstance(item["image"], MetaTensor) else {}
            measurement = measurement_from_meta(conditions.shape[2:], meta)
            if measurement is not None:
                agreement = ScanAgreement(measurement, conditions[:, [measured]], base, self.target)
        experts = self.bank.present(conditions)[0].cpu()
        return Drawn(conditions, self.target.to_residual(label, base), experts, agreement, target)

    def predict(self, case: Drawn, x_t: Tensor, timestep: int) -> Tensor:
        """What the frozen experts say of x_t, (1, E, X, Y, Z), agreeing with the scan; 0 of the absent."""
        device = x_t.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=computes_in_bf16(self.amp, device)):
            timesteps = torch.tensor([timestep], device=x_t.device)
            predictions = self.bank(x_t, case.conditions, timesteps, case.experts, target=case.target)
        if case.agreement is not None:
            predictions = case.agreement.of_prediction(predictions, x_t, timestep, self.scheduler)
            predictions *= case.experts.to(predictions)[None, :, None, None, None]
        return predictions

    def walk(self, case: Drawn, noise: Tensor, timestep: int, stride: float) -> Tensor:
        """x_t at ``timestep``, one DDIM step of the experts' average away from the noised truth.

        ``stride`` of 0 to 1 is that of 50 to 4 steps, evenly in the logarithm of the number.
        """
        few, many = STEPS_WALKED
        last = self.scheduler.num_train_timesteps - 1
        start = min(last, timestep + round(last / (many * (few / many) ** stride)))
        x_s = self.noised(case.residual, noise, start)
        shares = average_weights(case.experts[None]).to(x_s)[:, :, None, None, None]
        mean = weighted_sum(shares, self.predict(case, x_s, start))
        clean = to_clean(mean, x_s, self.level(start), self.scheduler.prediction_type)
        left = from_clean(clean, x_s, self.level(start), "epsilon")
        return self.noised(clean, left, timestep)

    def noised(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """x_t of a clean residual."""
        return self.scheduler.add_noise(clean, noise, torch.tensor([timestep], device=clean.device))

    def level(self, timestep: int) -> float:
        """The signal's share of the variance at a timestep."""
        return float(self.scheduler.alphas_cumprod[timestep])


def _batch(volume: Tensor) -> Tensor:
    return convert_to_tensor(volume, dtype=torch.float32, track_meta=False)[None]
