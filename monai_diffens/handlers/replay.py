"""Keep the calibrator's replay buffer fresh while it trains."""

from __future__ import annotations

from ignite.engine import Engine, Events

from monai_diffens.data.expert_replay import ExpertReplay


class ReplayRenewal:
    """Replace the oldest draws of the buffer after every epoch: fewer are learnt by heart.

    Args:
        replay: the trainer's dataset; its ``refresh`` says how many draws.
    """

    def __init__(self, replay: ExpertReplay) -> None:
        self.replay = replay

    def attach(self, engine: Engine) -> None:
        """Renew at the end of each epoch of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.replay.renew)
