"""Replay buffer of frozen experts' predictions: run once, trained on often.

The calibrator costs little, the frozen experts cost much. Their predictions for random (case, timestep,
noise) draws are kept in memory, on regions large enough that the 2D networks see what they see when
sampling, and the calibrator trains on small crops of them with mixed timesteps in one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import Dataset, MetaTensor, set_rnd
from monai.networks.schedulers import Scheduler
from monai.transforms import Compose, RandFlip, Randomizable, RandSpatialCrop
from monai.utils import convert_to_tensor
from torch import Tensor
from tqdm import tqdm

from monai_diffens.data.seeding import Chance, chance_of
from monai_diffens.inferers.agreement import ScanAgreement
from monai_diffens.inferers.consistency import Measurement
from monai_diffens.inferers.precision import computes_in_bf16
from monai_diffens.inferers.residual import RESIDUAL_SCALE, target_base, to_residual
from monai_diffens.inferers.sampling import SamplingScheduler
from monai_diffens.networks.expert_bank import ExpertBank
from monai_diffens.networks.weights import save_atomically
from monai_diffens.schedulers.strata import stratum_timesteps
from monai_diffens.transforms.thick_slices import measurement_from_meta

logger = logging.getLogger(__name__)


class ExpertReplay(Randomizable, Dataset):
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
        residual_scale: of the training.
        base: of the training, see :func:`target_base`.
        seed: of cases, timesteps and noise; crops are drawn from the dataset's random state.
        noise_emphasis: see :func:`~monai_diffens.schedulers.strata.stratum_timesteps`.
        measured_channel: the condition whose thick-slice sampling the meta of ``image`` records. Half the
            draws of cases with other conditions go without it; in the rest every expert's prediction is made
            to agree with it, as in sampling with ``project_experts``. No such condition when None.
        folder: keeps the draws in files that are mapped into memory, so that the buffer may be larger than
            memory and a resumed run need not run the experts again. In memory when None.
        amp: bf16 of the experts, see :func:`~monai_diffens.inferers.precision.computes_in_bf16`.
        flip_prob: probability that a crop is flipped along each axis: a fusion sees what is near a voxel, and
            left and right of a head are nothing to it.
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
        residual_scale: float = RESIDUAL_SCALE,
        seed: int = 0,
        base: str = "condition",
        noise_emphasis: float = 1.0,
        measured_channel: int | None = None,
        folder: str | Path | None = None,
        amp: bool | str = "auto",
        flip_prob: float = 0.0,
        hide_progress: bool | None = None,
    ) -> None:
        self.slots = range(idist.get_rank(), draws, idist.get_world_size())
        if not self.slots:
            raise ValueError(f"{draws} draws are too few for {idist.get_world_size()} processes")
        self.source = source
        self.bank = bank.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.draws = draws
        self.length = length
        self.refresh = refresh
        self.residual_scale = residual_scale
        self.base = base
        self.noise_emphasis = noise_emphasis
        self.measured_channel = measured_channel
        self.seed = seed
        self.amp = amp
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

    @torch.no_grad()
    def draw(self, number: int) -> dict[str, Any]:
        """Run the experts on a random case at a random timestep of stratum ``number`` modulo ``draws``."""
        chance = self.chance(number)
        fraction = (number % self.draws + chance.within_stratum) / self.draws
        set_rnd(self.source, chance.source_seed)
        generator = torch.Generator().manual_seed(chance.noise_seed)
        device = next(self.bank.parameters()).device
        item = self.source[chance.case]
        conditions, label = (_batch(item[key]).to(device) for key in ("image", "label"))
        measurement = self.measurement(item["image"], conditions, leave_out=chance.leave_out)
        residual = to_residual(label, target_base(conditions, self.base), self.residual_scale)
        noise = torch.randn(residual.shape, generator=generator).to(device)
        timesteps = stratum_timesteps(
            torch.tensor([fraction]), self.scheduler.num_train_timesteps, self.noise_emphasis
        ).to(device)
        timestep = int(timesteps)
        x_t = self.scheduler.add_noise(residual, noise, timesteps)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        present = conditions[0].flatten(1).any(dim=1)
        if len(present) == 1:
            present[:] = True
        experts = None if len(present) == 1 else present.repeat(len(self.bank.planes))
        bf16 = computes_in_bf16(self.amp, device.type)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            predictions = self.run_experts(x_t, conditions, timesteps, experts)
        if measurement is not None:
            scan, base = conditions[:, [self.measured_channel]], target_base(conditions, self.base)
            agreement = ScanAgreement(measurement, scan, base, self.residual_scale)
            walks = cast(SamplingScheduler, self.scheduler)  # MONAI's base class lacks what all have
            predictions = agreement.of_prediction(predictions, x_t, timestep, walks)
            predictions *= present.repeat(len(self.bank.planes))[None, :, None, None, None]
        errors = (predictions - target)[0].flatten(1)
        volumes = torch.cat([x_t, target, conditions, predictions], dim=1)[0]
        return {
            "volumes": volumes.half().cpu(),
            "timestep": timestep,
            "present": present.cpu(),
            "gram": (errors @ errors.T / errors.shape[1]).cpu(),
        }

    def run_experts(
        self, x_t: Tensor, conditions: Tensor, timesteps: Tensor, present: Tensor | None
    ) -> Tensor:
        """What the frozen experts say, (1, E, X, Y, Z); a subclass may keep more of it."""
        return self.bank(x_t, conditions, timesteps, present)

    def chance(self, number: int) -> Chance:
        """What is random in draw ``number``, of the seed and the number alone."""
        return chance_of(self.seed, number, len(self.source))

    def measurement(self, image: Tensor, conditions: Tensor, leave_out: bool) -> Measurement | None:
        """What the measured condition's scan saw of the target, or None without that condition.

        With ``leave_out`` it is set to zero in ``conditions`` (1, M, X, Y, Z) where there are others.
        """
        if self.measured_channel is None or not isinstance(image, MetaTensor):
            return None
        measured = conditions[:, self.measured_channel]
        if leave_out and bool((conditions.sum(dim=1) != measured).any()):
            measured.zero_()
        return measurement_from_meta(image.shape[1:], image.meta) if bool(measured.any()) else None

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


def _batch(volume: Tensor) -> Tensor:
    return convert_to_tensor(volume, dtype=torch.float32, track_meta=False)[None]
