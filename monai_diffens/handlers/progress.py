"""A progress bar over the whole training, with the time that is left."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from tqdm import tqdm


class TrainingProgress:
    """Show iterations done, epoch, loss, and the time left over all epochs (ignite's bar knows one epoch).

    Args:
        disable: show nothing; None shows it on terminals alone.
    """

    def __init__(self, disable: bool | None = None) -> None:
        self.disable = disable
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def start(self, engine: SupervisedTrainer) -> None:
        """Begin where the run stands; a resumed one does not begin at 0."""
        if self.bar is None:
            total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
            done = engine.state.iteration
            self.bar = tqdm(total=total, initial=done, unit="it", disable=self.disable, desc="training")

    def __call__(self, engine: SupervisedTrainer) -> None:
        """One iteration more."""
        if self.bar is not None:
            output: Any = engine.state.output
            loss = float(output[0]["loss"])
            self.bar.set_postfix(epoch=engine.state.epoch, loss=f"{loss:.4f}", refresh=False)
            self.bar.update()

    def close(self, engine: Engine) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
