"""Replay buffer of frozen experts' predictions: run once, trained on often.

The calibrator costs little, the frozen experts cost much. Their predictions for random (case, timestep,
noise) draws are kept in memory, on regions large enough that the 2D networks see what they see when
sampling, and the calibrator trains on small crops of them with mixed timesteps in one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import Dataset
from monai.networks.schedulers import Scheduler
from monai.transforms import Compose, RandFlip, Randomizable, RandSpatialCrop
from monai.utils import convert_to_tensor
from tqdm import tqdm

from monai_diffens.data.expert_draws import ExpertDraws
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.networks.weights import save_atomically
from monai_diffens.target import ResidualTarget

logger = logging.getLogger(__name__)


class ExpertReplay(ExpertDraws, Randomizable, Dataset):
    """Dataset of random crops of cached draws.

    Draw n depends on the seed and n alone. Slot s holds draws s, s + draws, s + 2 draws, ... in turn, all of
    one stratum of timesteps. Several processes share the slots: each holds every n-th.

    Args:
        source: dataset of items with ``image`` (M, X, Y, Z) conditions and ``label`` (1, X, Y, Z).
        bank: the frozen experts, on the device that runs them.
        scheduler: noise schedule.
        draws: slots of the buffer, of all processes together; each holds 2 + M + E half-precision volumes.
        length: crops an epoch.
        crop_size: side of a crop in voxels.
        refresh: draws that each process replaces in :meth:`renew`.
        target: what is diffused. Half the draws of cases that have its measured condition beside others go
            without it; in the rest every expert's prediction is made to agree with it, as in sampling with
            ``Consistency.of_experts``. By default nothing is measured.
        seed: of cases, timesteps and noise; crops are drawn from the dataset's random state.
        noise_emphasis: see :func:`~monai_diffens.schedulers.arithmetic.stratum_timesteps`.
        folder: keeps the draws in files that are mapped into memory, so that the buffer may be larger than
            memory and a resumed run need not run the experts again. In memory when None.
        amp: bf16 of the experts, see :func:`~monai_diffens.networks.computation.computes_in_bf16`.
        flip_prob: probability that a crop is flipped along each axis: a fusion sees what is near a voxel, and
            left and right of a head are nothing to it.
        keep: of joint experts: probability that a draw is given each condition.
        keep_low: likewise, of the target's own thick-sliced scan.
        hide_progress: no bar while the experts run; None shows it on terminals alone.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        bank: ExpertBank,
        scheduler: Scheduler,
        draws: int = 120,
        length: int = 400,
        crop_size: int = 48,
        refresh: int = 0,
        target: ResidualTarget | None = None,
        seed: int = 0,
        noise_emphasis: float = 1.0,
        folder: str | Path | None = None,
        amp: bool | str = "auto",
        flip_prob: float = 0.0,
        keep: float = 0.65,
        keep_low: float = 0.3,
        hide_progress: bool | None = None,
    ) -> None:
        self.slots = range(idist.get_rank(), draws, idist.get_world_size())
        if not self.slots:
            raise ValueError(f"{draws} draws are too few for {idist.get_world_size()} processes")
        super().__init__(
            source,
            bank,
            scheduler,
            draws,
            target,
            seed,
            noise_emphasis,
            amp,
            keep,
            keep_low,
        )
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
                if not self.resumed and int(path.stem[5:]) % self.draws in self.slots:
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
                _file(self.folder, number - 2 * self.draws).unlink(missing_ok=True)

    def number_in(self, place: int) -> int:
        """Number of the draw in a place of :attr:`entries`."""
        rounds, ahead = divmod(self.renewed, len(self.slots))
        return self.slots[place] + self.draws * (rounds + (place < ahead))

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
