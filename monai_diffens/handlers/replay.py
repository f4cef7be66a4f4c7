"""Keep a replay buffer fresh while a network trains on it."""

from __future__ import annotations

from ignite.engine import Engine, Events

from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.data.volume_replay import VolumeReplay


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
