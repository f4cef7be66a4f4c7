"""A training as a config's ``run`` starts it: what ends it early is one line and a status."""

from __future__ import annotations

from ignite.engine import Engine

from monai_diffens.handlers.training import TrainingFailed


def train(trainer: Engine) -> None:
    """Run a trainer to its end.

    Args:
        trainer: with its handlers.

    Raises:
        SystemExit: status 1 and one line, where the training cannot begin or go on. The last checkpoint is
            as the epoch before left it.
    """
    try:
        trainer.run()
    except TrainingFailed as error:
        raise SystemExit(str(error)) from None
