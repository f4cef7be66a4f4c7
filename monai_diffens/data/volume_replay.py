"""Replay buffer of varied volumes: made once, cut into crops of slices often, renewed a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from monai.data import Dataset, MetaTensor, set_rnd
from monai.transforms import Randomizable
from torch import Tensor


def derived_seed(*parts: int) -> int:
    """A 32-bit seed from several numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class VolumeReplay(Randomizable, Dataset):
    """Dataset of random crops of slices, cut from a buffer of volumes that were varied at random.

    To turn, zoom, degrade and recolour a whole volume costs about a second; a step of a 2D network takes less
    and wants crops of many volumes. So the buffer holds some varied volumes in half precision, and each
    epoch makes a few of them anew.

    Volume n of a process depends on the seed and n alone: slot s holds volumes s, s + slots, s + 2 slots,
    ... in turn. A resumed run fills the buffer with what the killed one held.

    Args:
        source: dataset of items whose random transforms vary them.
        crops: transform that cuts a list of crops from an item of the buffer.
        slots: volumes in the buffer.
        refresh: volumes that are made anew after each epoch.
        length: items an epoch; each gives what ``crops`` makes of one volume.
        weights: how often each item of the source is drawn, relative to the others; alike when None.
        seed: of the choice of items and of how they are varied.

    Raises:
        ValueError: without slots, or with more to refresh than there are.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        crops: Callable[[Mapping[str, Any]], list[dict[Any, Any]]],
        slots: int = 48,
        refresh: int = 6,
        length: int = 800,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= refresh <= slots or slots < 1:
            raise ValueError(f"refresh must be 0 to the number of slots, got {refresh} of {slots}")
        self.source = source
        self.crops = crops
        self.slots = slots
        self.refresh = refresh
        self.length = length
        share = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=float)
        self.share = share / share.sum()
        self.seed = seed
        self.entries: list[dict[str, Any]] = []
        self.renewed = 0
        self.set_random_state(seed=seed)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> VolumeReplay:
        """Seed the choice of slots and of crops; how volumes are varied depends on their number alone."""
        super().set_random_state(seed, state)
        if isinstance(self.crops, Randomizable):
            self.crops.set_random_state(seed, state)
        return self

    def __len__(self) -> int:
        """Items an epoch."""
        return self.length

    def __getitem__(self, index: int) -> list[dict[Any, Any]]:  # type: ignore[override]
        """Crops of the volume in a random slot."""
        if not self.entries:
            self.entries = [self.make(self.number_in(slot)) for slot in range(self.slots)]
        return self.crops(self.entries[self.R.randint(self.slots)])

    def make(self, number: int) -> dict[str, Any]:
        """Volume ``number``: a random item of the source, varied; its tensors in half precision."""
        random = np.random.RandomState(derived_seed(self.seed, number, idist.get_rank()))
        case = int(random.choice(len(self.share), p=self.share))
        set_rnd(self.source, int(random.randint(2**31)))
        return {key: _half(value) for key, value in self.source[case].items()}

    def number_in(self, slot: int) -> int:
        """Number of the volume in a slot."""
        rounds, ahead = divmod(self.renewed, self.slots)
        return slot + self.slots * (rounds + (slot < ahead))

    def renew(self, engine: Any = None) -> None:
        """Make the oldest ``refresh`` volumes anew."""
        for _ in range(self.refresh):
            slot = self.renewed % self.slots
            self.renewed += 1
            if self.entries:
                self.entries[slot] = self.make(self.number_in(slot))

    def state_dict(self) -> dict[str, int]:
        """How many volumes were renewed: with seed and settings it says what the buffer holds."""
        return {"renewed": self.renewed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Undo :meth:`state_dict`; the volumes are made again when the first crop is wanted."""
        self.renewed = state["renewed"]
        self.entries = []


def _half(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    plain = value.as_tensor() if isinstance(value, MetaTensor) else value
    return plain.half() if plain.is_floating_point() else plain
