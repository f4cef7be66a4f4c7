"""Randomness that depends on the epoch alone, so that a resumed run repeats it."""

from __future__ import annotations

import random
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import set_rnd

from monai_diffens.data.seeding import derived_seed


class EpochSeed:
    """Seed everything random at the start of each epoch from (seed, epoch, process).

    Python, NumPy, torch (with its GPUs), the dataset's MONAI transforms, and so the samplers and the
    loader's workers, which take their seeds from torch. No random state then needs to be saved: an epoch
    draws the same numbers whether the run came from the epoch before or from a checkpoint.

    Args:
        seed: of the run.
        dataset: the trainer's; its ``Randomizable`` parts are seeded.
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Seed when an epoch of ``engine`` starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for ``engine.state.epoch``."""
        seed = derived_seed(self.seed, engine.state.epoch, idist.get_rank())
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
