"""From training volumes to batches of 2.5D slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple
from torch import Tensor

from monai_diffens.acquisition.slicing import (
    PATCH_GRID,
    PLANES,
    pad_end,
    plane_axis,
    to_slices,
)

PLANE_KEY = "plane"
SHARP_PLANE_KEY = "sharp_plane"  # of a thick-sliced volume: the plane whose slices are sharp
GROUP_KEY = "group"


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
        kept: further entries of an item that its crops keep, where it has them; ``plane`` is always noted.
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
