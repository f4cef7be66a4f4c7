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

from monai_diffens.acquisition.slicing import (
    PATCH_GRID,
    PLANES,
    neighbour_slices,
    pad_end,
    plane_axis,
    to_slices,
)

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


class RandPlaneCropsd(Randomizable, MapTransform):
    """Cut square crops of random slices of a random plane from whole volumes, neighbours included (2.5D).

    A crop begins on the patch grid, as the region does that sampling restores, and shows something of the
    first key's foreground (voxels above zero).

    Args:
        keys: volumes (C, X, Y, Z) that become (C, S, S).
        condition_keys: volumes that become (C * (2 * reach + 1), S, S), volume by volume.
        planes: planes to draw from. An item that names its ``sharp_plane`` gives slices of that plane alone.
        slice_size: S in voxels; volumes that are smaller are padded with 0 at their end.
        num_samples: crops an item, all of one plane.
        reach: neighbours on each side; those beyond the volume's ends are the last slices again.
        blurred_planes: items that name their ``sharp_plane`` give slices of the other planes too.
        kept: further entries of an item that its crops keep, where it has them; their ``plane`` is always noted.
    """

    def __init__(
        self,
        keys: KeysCollection,
        condition_keys: KeysCollection,
        planes: str | Sequence[str] = PLANES,
        slice_size: int = 64,
        num_samples: int = 4,
        reach: int = 2,
        blurred_planes: bool = False,
        kept: Sequence[str] = (),
    ) -> None:
        super().__init__(keys)
        self.condition_keys = ensure_tuple(condition_keys)
        self.planes = (planes,) if isinstance(planes, str) else tuple(planes)
        for plane in self.planes:
            plane_axis(plane)  # a misspelt plane fails here, not after an hour
        if slice_size % PATCH_GRID:
            raise ValueError(f"slice_size must be a multiple of {PATCH_GRID}, got {slice_size}")
        self.slice_size = slice_size
        self.num_samples = num_samples
        self.reach = reach
        self.blurred_planes = blurred_planes
        self.kept = tuple(kept)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:  # type: ignore[override]
        """Cut the crops."""
        d = dict(data)
        sharp = None if self.blurred_planes else d.get(SHARP_PLANE_KEY)
        plane = sharp or self.planes[self.R.randint(len(self.planes))]
        volumes = [*self.key_iterator(d), *self.condition_keys]
        stacks = {
            key: to_slices(pad_end(_plain(d[key])[None], PATCH_GRID, self.slice_size), plane)
            for key in volumes
        }
        kept = {key: d[key] for key in self.kept if key in d} | {PLANE_KEY: plane}
        crops = []
        for _ in range(self.num_samples):
            place, window = self.random_window(stacks[self.first_key(d)])
            crop: dict[Hashable, Any] = dict(kept)
            for key, stack in stacks.items():
                near = [place]
                if key in self.condition_keys:
                    reach = range(-self.reach, self.reach + 1)
                    near = [min(max(place + k, 0), len(stack) - 1) for k in reach]
                shown = stack[near][..., window[0], window[1]].transpose(0, 1)
                crop[key] = shown.flatten(0, 1).float()
            crops.append(crop)
        return crops

    def random_window(self, stack: Tensor, tries: int = 12, least: float = 0.1) -> tuple[int, list[slice]]:
        """Slice number and window of a crop that shows something of (N, C, H, W), if there is luck."""
        for _ in range(tries):
            place = int(self.R.randint(len(stack)))
            window = []
            for side in stack.shape[2:]:
                begin = PATCH_GRID * int(self.R.randint((side - self.slice_size) // PATCH_GRID + 1))
                window.append(slice(begin, begin + self.slice_size))
            if (stack[place, 0, window[0], window[1]][::4, ::4] > 0).float().mean() >= least:
                break
        return place, window


def _plain(volume: Tensor) -> Tensor:
    return volume.as_tensor() if hasattr(volume, "as_tensor") else torch.as_tensor(volume)
