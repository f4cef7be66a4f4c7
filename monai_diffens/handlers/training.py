"""What a trainer does at each step and epoch: look at the loss, clip, seed, renew its data."""

from __future__ import annotations

import math
import random
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler

from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.data.volume_replay import VolumeReplay, derived_seed
from monai_diffens.messages import TrainingFailed, say

CHECKPOINT = "last.pt"  # what an epoch leaves in the output folder


class FiniteLoss:
    """End a training whose loss is no number any more, before the epoch's checkpoint is written."""

    def attach(self, engine: Engine) -> None:
        """Look at the loss of each iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss.

        Raises:
            TrainingFailed: where it is NaN or infinite.
        """
        loss = float(cast(Any, engine.state.output)[0]["loss"])
        if not math.isfinite(loss):
            at = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            raise TrainingFailed(say("loss_not_finite", name=CHECKPOINT, loss=loss, **at))


def ends_with_step(engine: SupervisedTrainer) -> bool:
    """Whether this iteration steps; the others leave gradients half accumulated."""
    length = engine.state.epoch_length or 1
    number = (engine.state.iteration - 1) % length + 1
    return number % engine.accumulation_steps == 0 or number == length


class GradientClipping:
    """Scale the gradients down to a largest norm before each step, after undoing mixed precision's scale.

    Args:
        max_norm: of all gradients together; 0 switches clipping off.
    """

    def __init__(self, max_norm: float) -> None:
        if max_norm < 0:
            raise ValueError(f"max_norm must not be negative, got {max_norm}")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Clip after the backward pass of ``engine``, a SupervisedTrainer."""
        if self.max_norm:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip where this iteration steps."""
        if not ends_with_step(engine):
            return
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        parameters = [each for group in engine.optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)


class StepLrSchedule(LrScheduleHandler):
    """MONAI's handler of learning rates, moved on by steps of the optimiser."""

    def __call__(self, engine: SupervisedTrainer) -> None:  # type: ignore[override]
        """Move on where this iteration stepped."""
        if ends_with_step(engine):
            super().__call__(engine)


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


class ReplayRenewal:
    """Replace the oldest entries of the buffer after every epoch: fewer are learnt by heart.

    Args:
        replay: the trainer's dataset; its ``refresh`` says how many entries.
    """

    def __init__(self, replay: ExpertReplay | VolumeReplay) -> None:
        self.replay = replay

    def attach(self, engine: Engine) -> None:
        """Renew at the end of each epoch of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.replay.renew)
