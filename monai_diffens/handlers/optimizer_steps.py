"""What belongs to a step of the optimiser, not to every mini-batch of it: clipping and learning rate."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler


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
