"""Seeds made of several numbers, and what a replay buffer draws from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def derived_seed(*parts: int) -> int:
    """A 32-bit seed from several numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class Chance(NamedTuple):
    """What is random in a draw of :class:`~monai_diffens.data.expert_draws.ExpertDraws`.

    Attributes:
        within_stratum: where in its stratum of timesteps, 0 to 1.
        source_seed: of the source's transforms.
        noise_seed: of the noise.
        case: number of the source's item.
        leave_out: whether it goes without the measured condition.
        subset_seed: of the conditions that a joint expert is given.
    """

    within_stratum: float
    source_seed: int
    noise_seed: int
    case: int
    leave_out: bool
    subset_seed: int


def chance_of(seed: int, number: int, cases: int) -> Chance:
    """What is random in draw ``number``, of its seed and number and the number of cases alone."""
    random = np.random.RandomState(derived_seed(seed, number))
    return Chance(
        within_stratum=random.rand(),
        source_seed=random.randint(2**31),
        noise_seed=random.randint(2**31),
        case=random.randint(cases),
        leave_out=random.rand() < 0.5,
        subset_seed=random.randint(2**31),
    )
