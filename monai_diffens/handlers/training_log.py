"""What a training cost and how it went, epoch by epoch: a CSV beside its checkpoint."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

FIELDS = ("epoch", "iteration", "core_hours", "seconds_a_step", "loss")


class TrainingLog:
    """Mean loss, steps and processor time of each epoch, kept in the checkpoint and in a CSV.

    Processor time is that of the process and its threads, so a training that shares the machine or is paused
    counts what it used.

    Args:
        path: of the CSV, a row an epoch; only the checkpoint keeps the figures when None. A resumed run drops
            the rows of epochs that it does again.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
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
        spent = time.process_time() - self.started
        self.seconds += spent
        self.loss = float(np.mean(self.losses))
        if self.path is not None and idist.get_rank() == 0:
            row = (
                engine.state.epoch,
                engine.state.iteration,
                f"{self.seconds / 3600:.4f}",
                f"{spent / len(self.losses):.3f}",
                f"{self.loss:.5f}",
            )
            self._append(row)

    def _append(self, row: tuple[Any, ...]) -> None:
        rows: list[list[str]] = []
        if cast(Path, self.path).is_file():
            with cast(Path, self.path).open(newline="", encoding="utf-8") as file:
                rows = [each for each in list(csv.reader(file))[1:] if each and int(each[0]) < row[0]]
        cast(Path, self.path).parent.mkdir(parents=True, exist_ok=True)
        with cast(Path, self.path).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([FIELDS, *rows, row])

    def state_dict(self) -> dict[str, float]:
        """Loss and seconds."""
        return {"seconds": self.seconds, "loss": self.loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Undo :meth:`state_dict`."""
        self.seconds, self.loss = state["seconds"], state["loss"]
