"""Replay buffer of frozen experts' predictions: run once, trained on often.

The calibrator costs little, the frozen experts cost much. Their predictions for random (case, timestep,
noise) draws are kept in memory, on regions large enough that the 2D networks see what they see when
sampling, and the calibrator trains on small crops of them with mixed timesteps in one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandFlip, Randomizable, RandSpatialCrop
from monai.utils import convert_to_tensor
from tqdm import tqdm

from monai_diffens.data.expert_draws import ExpertDraws
from monai_diffens.networks.weights import save_atomically

logger = logging.getLogger(__name__)


class ExpertReplay(Randomizable, Dataset):
    """Dataset of random crops of cached draws.

    Slot s holds draws s, s + slots, s + 2 slots, ... in turn, all of one stratum of timesteps. Several
    processes share the slots: each holds every n-th.

    Args:
        draws: what makes a draw; the buffer has a slot for each of its strata, of all processes together.
            A slot holds 2 + M + E half-precision volumes.
        length: crops an epoch.
        crop_size: side of a crop in voxels.
        refresh: draws that each process replaces in :meth:`renew`.
        seed: of the choice of draws and crops.
        folder: keeps the draws in files that are mapped into memory, so that the buffer may be larger than
            memory and a resumed run need not run the experts again. In memory when None.
        flip_prob: probability that a crop is flipped along each axis: a fusion sees what is near a voxel, and
            left and right of a head are nothing to it.
        hide_progress: no bar while the experts run; None shows it on terminals alone.

    Raises:
        ValueError: for fewer slots than processes.
    """

    def __init__(
        self,
        draws: ExpertDraws,
        length: int = 400,
        crop_size: int = 48,
        refresh: int = 0,
        seed: int = 0,
        folder: str | Path | None = None,
        flip_prob: float = 0.0,
        hide_progress: bool | None = None,
    ) -> None:
        self.draw, self.strata = draws, draws.strata
        self.slots = range(idist.get_rank(), self.strata, idist.get_world_size())
        if not self.slots:
            raise ValueError(f"{self.strata} draws are too few for {idist.get_world_size()} processes")
        self.length = length
        self.refresh = refresh
        self.folder = None if folder is None else Path(folder)
        self.crop_size = crop_size
        self.flip_prob = flip_prob
        self.hide_progress = True if idist.get_rank() else hide_progress
        flips = [RandFlip(flip_prob, axis) for axis in range(3)]
        self.cut = Compose([RandSpatialCrop(crop_size, random_size=False), *flips])
        self.set_random_state(seed=seed)
        self.entries: list[dict[str, Any]] = []
        self.renewed = 0
        self.resumed = False

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> ExpertReplay:
        """Seed the choice of entries and of crops."""
        super().set_random_state(seed, state)
        self.cut.set_random_state(seed, state)
        return self

    def __len__(self) -> int:
        """Crops an epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """One random crop ``volumes`` (2 + M + E, S, S, S), and ``timestep``, ``present``, ``gram``.

        ``present`` (M,) says which conditions the case has; ``gram`` (E, E) holds the mean products of the
        experts' errors over the whole draw, see :func:`~monai_diffens.engines.fusion.average_error`.
        """
        if not self.entries:
            self.fill()
        entry = self.entries[self.R.randint(len(self.entries))]
        volumes = convert_to_tensor(self.cut(entry["volumes"]), dtype=torch.float32, track_meta=False)
        return entry | {"volumes": volumes}

    def fill(self) -> None:
        """Fill the buffer as of :attr:`renewed`; files are used again in a resumed run alone."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("draw_*.pt"):
                if not self.resumed and int(path.stem[5:]) % self.strata in self.slots:
                    path.unlink()
        numbers = [self.number_in(place) for place in range(len(self.slots))]
        logger.info("running the frozen experts for %d draws", len(numbers))
        bar = tqdm(numbers, desc="frozen experts", unit="draw", disable=self.hide_progress)
        self.entries = [self.entry(number) for number in bar]

    def renew(self, engine: Any = None) -> None:
        """Replace the oldest ``refresh`` draws, keeping their strata of timesteps."""
        for _ in range(min(self.refresh, len(self.entries))):
            place = self.renewed % len(self.slots)
            self.renewed += 1
            number = self.number_in(place)
            self.entries[place] = self.entry(number)
            if self.folder is not None:  # the one before it is needed again when killed before the checkpoint
                _file(self.folder, number - 2 * self.strata).unlink(missing_ok=True)

    def number_in(self, place: int) -> int:
        """Number of the draw in a place of :attr:`entries`."""
        rounds, ahead = divmod(self.renewed, len(self.slots))
        return self.slots[place] + self.strata * (rounds + (place < ahead))

    def entry(self, number: int) -> dict[str, Any]:
        """Draw ``number``, from its file where there is one."""
        if self.folder is None:
            return self.draw(number)
        path = _file(self.folder, number)
        if not path.is_file():
            save_atomically(self.draw(number), path)
        return torch.load(path, mmap=True, weights_only=True)

    def state_dict(self) -> dict[str, int]:
        """How many draws were replaced: with seed and settings it says what the buffer holds."""
        return {"renewed": self.renewed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Undo :meth:`state_dict`; draws are read from their files, and made again where one is missing."""
        self.renewed = state["renewed"]
        self.resumed = True
        self.entries = []


def _file(folder: Path, number: int) -> Path:
    return folder / f"draw_{number:06d}.pt"
