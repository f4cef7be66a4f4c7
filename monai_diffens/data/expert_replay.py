"""Replay buffer of frozen experts' predictions: run once, trained on often.

The calibrator costs little, the frozen experts cost much. Their predictions for random (case, timestep,
noise) draws are kept in memory, on regions large enough that the 2D networks see what they see when
sampling, and the calibrator trains on small crops of them with mixed timesteps in one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import Dataset
from monai.networks.schedulers import Scheduler
from monai.transforms import Randomizable, RandSpatialCrop
from monai.utils import convert_to_tensor
from torch import Tensor
from tqdm import tqdm

from monai_diffens.inferers.residual import RESIDUAL_SCALE, target_base, to_residual
from monai_diffens.networks.expert_bank import ExpertBank

logger = logging.getLogger(__name__)


class ExpertReplay(Randomizable, Dataset):
    """Dataset of random crops of cached draws.

    Args:
        source: dataset of items with ``image`` (M, X, Y, Z) conditions and ``label`` (1, X, Y, Z).
        bank: the frozen experts, on the device that runs them.
        scheduler: noise schedule.
        draws: entries of the buffer; each holds 2 + M + E half-precision volumes.
        length: crops an epoch.
        crop_size: side of a crop in voxels.
        refresh: draws replaced by :meth:`renew`.
        residual_scale: of the training.
        base: of the training, see :func:`target_base`.
        seed: of cases, timesteps, noise and crops.
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
    ) -> None:
        self.source = source
        self.bank = bank.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.draws = draws
        self.length = length
        self.refresh = refresh
        self.residual_scale = residual_scale
        self.base = base
        self.crop = RandSpatialCrop(crop_size, random_size=False)
        self.set_random_state(seed=seed)
        self.crop.set_random_state(seed=seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.entries: list[dict[str, Any]] = []
        self.cursor = 0

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
        volumes = convert_to_tensor(self.crop(entry["volumes"]), dtype=torch.float32, track_meta=False)
        return entry | {"volumes": volumes}

    def fill(self) -> None:
        """Fill the buffer; timesteps are stratified over it."""
        for number in tqdm(range(self.draws), desc="running frozen experts", unit="draw"):
            self.entries.append(self.draw((number + self.R.rand()) / self.draws))

    def renew(self, engine: Any = None) -> None:
        """Replace the oldest ``refresh`` draws, keeping their strata of timesteps."""
        for _ in range(min(self.refresh, len(self.entries))):
            self.entries[self.cursor] = self.draw((self.cursor + self.R.rand()) / self.draws)
            self.cursor = (self.cursor + 1) % len(self.entries)

    @torch.no_grad()
    def draw(self, fraction: float) -> dict[str, Any]:
        """Run the experts on a random case at the timestep ``fraction`` of the schedule."""
        device = next(self.bank.parameters()).device
        item = self.source[self.R.randint(len(self.source))]
        conditions, label = (_batch(item[key]).to(device) for key in ("image", "label"))
        residual = to_residual(label, target_base(conditions, self.base), self.residual_scale)
        noise = torch.randn(residual.shape, generator=self.generator).to(device)
        timestep = min(
            int(fraction * self.scheduler.num_train_timesteps), self.scheduler.num_train_timesteps - 1
        )
        timesteps = torch.tensor([timestep], device=device)
        x_t = self.scheduler.add_noise(residual, noise, timesteps)
        target = self.scheduler.get_velocity(residual, noise, timesteps)
        present = conditions[0].flatten(1).any(dim=1)
        if len(present) == 1:
            present[:] = True
            predictions = self.bank(x_t, conditions, timesteps)
        else:
            predictions = self.bank(x_t, conditions, timesteps, present.repeat(len(self.bank.planes)))
        errors = (predictions - target)[0].flatten(1)
        volumes = torch.cat([x_t, target, conditions, predictions], dim=1)[0]
        return {
            "volumes": volumes.half().cpu(),
            "timestep": timestep,
            "present": present.cpu(),
            "gram": (errors @ errors.T / errors.shape[1]).cpu(),
        }


def _batch(volume: Tensor) -> Tensor:
    return convert_to_tensor(volume, dtype=torch.float32, track_meta=False)[None]
