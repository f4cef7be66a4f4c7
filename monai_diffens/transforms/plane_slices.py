"""From training volumes to batches of 2.5D slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import ensure_tuple
from torch import Tensor

from monai_diffens.acquisition.slicing import PLANES, neighbour_slices, plane_axis, to_slices

PLANE_KEY = "plane"
SHARP_PLANE_KEY = "sharp_plane"  # of a thick-sliced volume: the plane whose slices are sharp
GROUP_KEY = "group"


class RandPlaneSlabd(Randomizable, MapTransform):
    """Crop a random slab of a random plane out of the foreground, before anything costly is done to it.

    An item that names its ``sharp_plane`` gives slabs of that plane alone.

    Args:
        keys: volumes (C, X, Y, Z) on one grid; the first decides the foreground (voxels above zero).
        planes: planes to draw from; the one drawn is stored under ``plane``.
        slice_size: side of the square slices, in voxels.
        depth: voxels along the slicing axis.
        allow_missing_keys: skip absent keys.
        cropped: the volumes are cropped to their foreground already; it is not looked for again.
    """

    def __init__(
        self,
        keys: KeysCollection,
        planes: Sequence[str] = PLANES,
        slice_size: int = 128,
        depth: int = 48,
        allow_missing_keys: bool = False,
        cropped: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.planes = (planes,) if isinstance(planes, str) else tuple(planes)
        for plane in self.planes:
            plane_axis(plane)  # a misspelt plane fails here, not after an hour
        self.slice_size = slice_size
        self.depth = depth
        self.cropped = cropped

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop every key to the same slab."""
        d = dict(data)
        plane = d.get(SHARP_PLANE_KEY) or self.planes[self.R.randint(len(self.planes))]
        volume = d[self.first_key(d)]
        start: Sequence[int] = (0, 0, 0)
        stop: Sequence[int] = volume.shape[1:]
        if not self.cropped:
            start, stop = generate_spatial_bounding_box(volume, allow_smaller=True)
        region = [slice(None)]
        for axis, size in enumerate(volume.shape[1:]):
            wanted = min(size, self.depth if axis == plane_axis(plane) else self.slice_size)
            low = max(0, min(int(start[axis]), size - wanted))
            high = max(low, min(int(stop[axis]) - wanted, size - wanted))
            begin = self.R.randint(low, high + 1)
            region.append(slice(begin, begin + wanted))
        for key in self.key_iterator(d):
            d[key] = d[key][tuple(region)]
        d[PLANE_KEY] = plane
        return d


class RandSlicesd(Randomizable, MapTransform):
    """Draw slices of the item's plane; the condition carries its neighbours (2.5D).

    Args:
        keys: volumes (C, X, Y, Z) that become (C, H, W).
        condition_keys: volumes that become (C * (2 * reach + 1), H, W).
        num_samples: slices an item; a list of items is returned, as MONAI's crop samplers do.
        reach: neighbours on each side.
    """

    def __init__(
        self, keys: KeysCollection, condition_keys: KeysCollection, num_samples: int = 8, reach: int = 2
    ) -> None:
        super().__init__(keys)
        self.condition_keys = ensure_tuple(condition_keys)
        self.num_samples = num_samples
        self.reach = reach

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:  # type: ignore[override]
        """Cut the slices; of keys that are no volumes only ``group``, the condition group, is kept."""
        plane = data[PLANE_KEY]
        stacks: dict[Hashable, Tensor] = {}
        for key in self.key_iterator(dict(data)):
            stacks[key] = to_slices(_plain(data[key])[None], plane)
        for key in self.condition_keys:
            stacks[key] = neighbour_slices(_plain(data[key])[None], plane, self.reach)
        count = next(iter(stacks.values())).shape[0]
        index = self.R.choice(count, self.num_samples, replace=count < self.num_samples)
        kept = {GROUP_KEY: data[GROUP_KEY]} if GROUP_KEY in data else {}
        return [{key: stack[i] for key, stack in stacks.items()} | kept for i in index]


def _plain(volume: Tensor) -> Tensor:
    return volume.as_tensor() if hasattr(volume, "as_tensor") else torch.as_tensor(volume)
