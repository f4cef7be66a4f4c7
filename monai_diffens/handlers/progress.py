"""A progress bar over the whole training with the time left, and a line in the log for each epoch."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from tqdm import tqdm

logger = logging.getLogger(__name__)


class TrainingProgress:
    """Show iterations done, epoch, loss, and the time left over all epochs; log each epoch's mean loss.

    ignite's bar knows one epoch; MONAI's StatsHandler detaches the logger it is given from its parents.

    Args:
        disable: show nothing; None shows it on terminals alone.
    """

    def __init__(self, disable: bool | None = None) -> None:
        self.disable = disable
        self.bar: tqdm | None = None
        self.losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def start(self, engine: SupervisedTrainer) -> None:
        """Begin where the run stands; a resumed one does not begin at 0."""
        if self.bar is None:
            total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
            done = engine.state.iteration
            self.bar = tqdm(total=total, initial=done, unit="it", disable=self.disable, desc="training")

    def __call__(self, engine: SupervisedTrainer) -> None:
        """One iteration more."""
        output: Any = engine.state.output
        loss = float(output[0]["loss"])
        self.losses.append(loss)
        if self.bar is not None:
            self.bar.set_postfix(epoch=engine.state.epoch, loss=f"{loss:.4f}", refresh=False)
            self.bar.update()

    def report(self, engine: Engine) -> None:
        """Log the epoch's mean loss."""
        mean = sum(self.losses) / len(self.losses)
        logger.info("epoch %d of %s: mean loss %.4f", engine.state.epoch, engine.state.max_epochs, mean)
        self.losses = []

    def close(self, engine: Engine) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
