"""What a training cost and where its loss ended, kept in its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from ignite.engine import Engine, Events


class TrainingLog:
    """Mean loss of the last epoch and processor seconds of a training, kept in its checkpoint."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.loss = float("nan")

    def attach(self, engine: Engine) -> None:
        """Measure each epoch of ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop)

    def _start(self, engine: Engine) -> None:
        self.started, self.losses = time.process_time(), list[float]()

    def _note(self, engine: Engine) -> None:
        self.losses.append(float(cast(Any, engine.state.output)[0]["loss"]))

    def _stop(self, engine: Engine) -> None:
        self.seconds += time.process_time() - self.started
        self.loss = float(np.mean(self.losses))

    def state_dict(self) -> dict[str, float]:
        """Loss and seconds."""
        return {"seconds": self.seconds, "loss": self.loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Undo :meth:`state_dict`."""
        self.seconds, self.loss = state["seconds"], state["loss"]
