"""Conditions of several contrasts: chosen and varied for training, masked and stacked for the network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_diffens.transforms.intensity import SCALE_KEY
from monai_diffens.transforms.thick_slices import SAMPLING_KEY, measurement_from_meta

# What a restored thick-sliced scan is raised to inside the brain: its spline swings below zero at edges,
# and a voxel above zero is what tells brain from background.
LOWEST_IN_BRAIN = 1e-3
OUTPUT_MEDIAN = 1000.0  # of a result without a scan of its contrast: integers keep its detail


class RandPowerd(Randomizable, MapTransform):
    """Raise median-scaled volumes to a random power, each its own: another contrast, the same median.

    MONAI's RandAdjustContrast works between a volume's extremes and so moves its median, which is what
    tells the brightness of a translated volume.

    Args:
        keys: volumes that are 1 at the brain's median.
        exponents: smallest and largest exponent.
        prob: probability for each volume.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        exponents: tuple[float, float] = (0.7, 1.4),
        prob: float = 0.7,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.exponents = exponents
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if self.R.random() < self.prob:
                d[key] = d[key].clamp(min=0) ** self.R.uniform(*self.exponents)
        return d


class StackConditionsd(MapTransform):
    """Stack the contrasts a case has into the network's condition channels, 0 where it lacks one.

    Everything is masked to the brain: where ``brain_key`` is above zero if given (training), else where a
    finely sampled contrast is, else where the thick-sliced one was measured. A thick-sliced scan's sampling
    is recorded in ``meta`` for the consistency step. The intensity scale there is the thick-sliced scan's, so
    that a result is in its units; without one the brain's median becomes 1000.

    Args:
        keys: contrasts in the order of the network's conditions; a case may lack some.
        thick_key: the contrast that is sampled in thick slices.
        brain_key: volume that is zero outside of the brain, or None.
        name: where the stack (M, X, Y, Z) goes.
        only: leave absent contrasts out instead of zero; for one expert's training.
    """

    def __init__(
        self,
        keys: KeysCollection,
        thick_key: str = "FLAIR",
        brain_key: str | None = None,
        name: str = "image",
        only: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.thick_key = thick_key
        self.brain_key = brain_key
        self.name = name
        self.only = only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Stack, and drop the single contrasts."""
        d = dict(data)
        volumes = {key: d.pop(key) for key in self.keys if key in d}
        if not volumes:
            raise ValueError(f"a case needs one of {', '.join(map(str, self.keys))}")
        thick = volumes.get(self.thick_key)
        fine = [_plain(volume) for key, volume in volumes.items() if key != self.thick_key]
        if self.brain_key is not None:
            brain = _plain(d[self.brain_key]) > 0
        elif fine:
            brain = torch.stack([volume > 0 for volume in fine]).any(dim=0)
        else:
            alone = volumes[self.thick_key]
            everywhere = torch.ones(alone.shape, dtype=torch.bool)
            volumes[self.thick_key] = inside_brain(alone, everywhere, thick=True)
            brain = measured_brain(volumes[self.thick_key])
        channels = []
        for key in self.keys:
            if key in volumes:
                channels.append(inside_brain(volumes[key], brain, key == self.thick_key))
            elif not self.only:
                channels.append(torch.zeros(brain.shape))
        reference = next(iter(data[key] for key in self.keys if key in volumes))
        meta = dict(reference.meta) if isinstance(reference, MetaTensor) else {}
        meta.pop(SAMPLING_KEY, None)
        meta[SCALE_KEY] = OUTPUT_MEDIAN
        if isinstance(thick, MetaTensor):
            meta |= {key: thick.meta[key] for key in (SAMPLING_KEY, SCALE_KEY) if key in thick.meta}
        d[self.name] = MetaTensor(torch.cat(channels).float(), meta=meta)
        return d


def inside_brain(volume: Tensor, brain: Tensor, thick: bool) -> Tensor:
    """(1, X, Y, Z) masked to the brain; a restored thick-sliced scan still agrees with its slices then."""
    if not thick:
        return _plain(volume).clamp(min=0) * brain
    meta = volume.meta if isinstance(volume, MetaTensor) else {}
    measurement = measurement_from_meta(volume.shape[1:], meta)
    if measurement is None:
        return _plain(volume).clamp(min=LOWEST_IN_BRAIN) * brain
    return measurement.restore_inside(_plain(volume).float(), brain, LOWEST_IN_BRAIN)


def measured_brain(scan: Tensor, level: float = 0.1, side: int = 5) -> Tensor:
    """(1, X, Y, Z) bool: the brain of a restored thick-sliced scan alone, dark ventricles included.

    Args:
        scan: (1, X, Y, Z), 1 at the brain's median.
        level: brightness that tells brain from the spline's swings around it.
        side: of the closing that fills what is dark inside, in voxels.
    """
    room = side // 2  # around the volume, whose border must not stop what is grown from shrinking back
    bright = F.pad((scan > level).float()[None], [room] * 6)
    grown = F.max_pool3d(bright, side, 1, room)
    closed = -F.max_pool3d(-grown, side, 1, room)
    return closed[0, :, room:-room, room:-room, room:-room] > 0.5


def _plain(volume: Tensor) -> Tensor:
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume
