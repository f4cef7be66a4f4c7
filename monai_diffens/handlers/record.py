"""What an epoch leaves behind: its state, for exact resume; what it cost, in a CSV; what is told of it."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from tqdm import tqdm

from monai_diffens.messages import TrainingFailed, say
from monai_diffens.networks.weights import save_atomically

logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Write the training state after every epoch; take it up again where a run is resumed.

    The file is replaced in one step, so a run killed at any moment leaves a whole one. With
    :class:`~monai_diffens.handlers.training.EpochSeed` a killed and resumed run ends with the weights of
    an uninterrupted one. Put it after the handlers whose work belongs to the epoch.

    Args:
        path: the file. Entry "ema" holds the averaged weights.
        objects: name -> object with ``state_dict`` and ``load_state_dict``.
        ema: the run's moving average.
        settings: name -> value of what a resumed run must share with the first.
        resume: go on from the file where there is one. A new run refuses to replace the file of another.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        ema: EMAHandler,
        settings: Mapping[str, Any],
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.ema = ema
        self.settings = {**settings, "processes": idist.get_world_size()}
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Load when ``engine`` starts, save after each of its epochs."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def start(self, engine: Engine) -> None:
        """Take up the state in the file.

        Raises:
            TrainingFailed: the file is another run's or damaged, or the settings differ.
        """
        if not self.path.is_file():
            if self.resume:
                logger.info("nothing to resume at %s: a new run starts", self.path)
            return
        if not self.resume:
            raise TrainingFailed(say("training_there", name=self.path))
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # of damaged bytes torch raises whatever comes first
            raise TrainingFailed(say("training_damaged", name=self.path, why=type(error).__name__)) from error
        for name, value in self.settings.items():
            was = state["settings"].get(name)
            if was != value:
                differs = {"setting": name, "was": was, "now": value}
                raise TrainingFailed(say("training_differs", name=self.path, **differs))
        for name, each in self.objects.items():
            each.load_state_dict(state[name])
        self.ema.ema_model.load_state_dict(state["ema"])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        if self.ema.momentum_scheduler is not None:  # it counts iterations by itself
            self.ema.momentum_scheduler.event_index = state["iteration"]
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        logger.info("resumed after epoch %d from %s", engine.state.epoch, self.path)

    def save(self, engine: Engine) -> None:
        """Replace the file; the first process alone writes."""
        if idist.get_rank() > 0:
            return
        scaler = getattr(engine, "scaler", None)
        state = {name: each.state_dict() for name, each in self.objects.items()}
        state |= {
            "ema": self.ema.ema_model.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "settings": self.settings,
        }
        save_atomically(state, self.path)


FIELDS = ("epoch", "iteration", "core_hours", "seconds_a_step", "loss")


class TrainingLog:
    """Mean loss, steps and processor time of each epoch: in log, checkpoint and CSV; and a bar.

    Processor time is that of the process and its threads, so a training that shares the machine or is paused
    counts what it used. The bar shows the time left over all epochs: ignite's knows one epoch, and MONAI's
    StatsHandler detaches the logger it is given from its parents.

    Args:
        path: of the CSV, a row an epoch; none is written when None. A resumed run drops the rows of epochs
            that it does again.
        hide_bar: show no bar; None shows it on terminals alone.
    """

    def __init__(self, path: str | Path | None = None, hide_bar: bool | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.hide_bar = hide_bar
        self.bar: tqdm | None = None
        self.seconds = 0.0
        self.loss = float("nan")

    def attach(self, engine: Engine) -> None:
        """Measure each epoch of ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _start(self, engine: Engine) -> None:
        self.started, self.losses = time.process_time(), list[float]()
        if self.bar is None and idist.get_rank() == 0:
            total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
            done = engine.state.iteration  # a resumed run does not begin at 0
            self.bar = tqdm(total=total, initial=done, unit="it", disable=self.hide_bar, desc="training")

    def _note(self, engine: Engine) -> None:
        loss = float(cast(Any, engine.state.output)[0]["loss"])
        self.losses.append(loss)
        if self.bar is not None:
            self.bar.set_postfix(epoch=engine.state.epoch, loss=f"{loss:.4f}", refresh=False)
            self.bar.update()

    def _stop(self, engine: Engine) -> None:
        spent = time.process_time() - self.started
        self.seconds += spent
        self.loss = float(np.mean(self.losses))
        state = engine.state
        if idist.get_rank() == 0:
            logger.info("epoch %d of %s: mean loss %.4f", state.epoch, state.max_epochs, self.loss)
            if self.path is not None:
                hours, step = f"{self.seconds / 3600:.4f}", f"{spent / len(self.losses):.3f}"
                self._append(self.path, [state.epoch, state.iteration, hours, step, f"{self.loss:.5f}"])

    def _append(self, path: Path, row: list[Any]) -> None:
        rows: list[list[str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [each for each in list(csv.reader(file))[1:] if each and int(each[0]) < row[0]]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([FIELDS, *rows, row])

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()

    def state_dict(self) -> dict[str, float]:
        """Loss and seconds."""
        return {"seconds": self.seconds, "loss": self.loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Undo :meth:`state_dict`."""
        self.seconds, self.loss = state["seconds"], state["loss"]
