"""From training volumes to varied crops of 2.5D slices: heads placed, shrunk, or made of label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import Affine, GaussianSmooth, MapTransform, Randomizable
from monai.utils import ensure_tuple
from torch import Tensor

from monai_diffens.acquisition.slicing import (
    PATCH_GRID,
    PLANES,
    in_plane_axes,
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


class RandPlacementd(Randomizable, MapTransform):
    """Turn and shrink a head at random, or only move it by whole voxels.

    A resampled volume is blurred by up to a voxel of the source; shrunk by 0.7 to 0.95 that is less than a
    voxel of the result, so edges stay sharp, and heads get smaller than the training set's. Every volume
    moves against the grid that slices are pooled on.

    An item that names its ``sharp_plane`` was acquired in thick slices: it is turned and shrunk in that plane
    alone, so that its slices stay slices.

    Args:
        keys: volumes (C, X, Y, Z) on one grid; all are placed alike.
        prob: probability of turning and shrinking.
        zoom: smallest and largest factor of the size.
        degrees: largest turn about each axis.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        zoom: tuple[float, float] = (0.7, 0.95),
        degrees: float = 12.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.prob = prob
        self.zoom = zoom
        self.degrees = degrees

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Place every key."""
        d = dict(data)
        names = list(self.key_iterator(d))
        volumes = [torch.as_tensor(d[name]).float() for name in names]
        sizes = [volume.shape[0] for volume in volumes]
        placed = self.place(torch.cat(volumes), d.get(SHARP_PLANE_KEY))
        for name, volume in zip(names, placed.split(sizes), strict=True):
            d[name] = volume
        return d

    def place(self, volume: Tensor, sharp_plane: str | None) -> Tensor:
        """Draw, and place (C, X, Y, Z); the sides of the result are multiples of the patch grid."""
        if self.R.random() < self.prob:
            turned = self.R.uniform(-self.degrees, self.degrees, 3) * np.pi / 180
            scale = np.full(3, 1 / self.R.uniform(*self.zoom))
            if sharp_plane is not None:
                turned[in_plane_axes(sharp_plane)] = 0.0
                scale[plane_axis(sharp_plane)] = 1.0
            resample = Affine(
                rotate_params=turned.tolist(),
                scale_params=scale.tolist(),
                mode="bilinear",
                padding_mode="zeros",
                image_only=True,
            )
            volume = torch.as_tensor(resample(volume))
        before = self.R.randint(0, PATCH_GRID, 3)
        sides: list[int] = []
        for size, begin in zip(reversed(volume.shape[1:]), reversed(before), strict=True):
            sides += [int(begin), int(-(size + begin) % PATCH_GRID)]
        return F.pad(volume, sides)


# FreeSurfer's numbers of the right side, and of the same structure on the left
LEFT_OF = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18}
LEFT_OF |= {58: 26, 60: 28, 62: 30, 63: 31}
FIRST_OUTSIDE = 500  # labels from here on lie outside of the brain


class RandSyntheticHeadd(Randomizable, MapTransform):
    """Give each label of a map a random brightness and texture: a head of a contrast that nobody acquired.

    Source: SynthSeg (Billot et al., Medical Image Analysis 2023) and SynthSR (Iglesias et al., Science
    Advances 2023). Brightness is uniform a label, both sides of the brain alike; texture is smooth noise and
    white noise; both are blurred by less than a voxel, as by partial volume.

    Args:
        keys: label maps (1, X, Y, Z), FreeSurfer's numbers inside the brain, 500 and above outside of it.
        name: where the head goes; the map is dropped.
        stripped_prob: probability that the brain alone is kept.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        name: str = "label",
        stripped_prob: float = 0.3,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.name = name
        self.stripped_prob = stripped_prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make a head of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.name] = self.head(torch.as_tensor(d.pop(key)))
        return d

    def head(self, labels: Tensor) -> Tensor:
        """Volume (1, X, Y, Z), 0 to about 1, 0 outside of the head, of a label map of that shape."""
        index = labels.long()
        brightness, texture = torch.zeros(int(index.max()) + 1), torch.zeros(int(index.max()) + 1)
        for label in torch.unique(index).tolist():
            if label == 0:
                continue
            same = LEFT_OF.get(label)
            if same is not None and same < len(brightness) and brightness[same] > 0:
                brightness[label], texture[label] = brightness[same], texture[same]
            else:
                brightness[label] = self.R.uniform(0.05, 1.0)
                texture[label] = self.R.uniform(0.0, 0.06)
        if self.R.random() < self.stripped_prob:
            brightness[FIRST_OUTSIDE:] = texture[FIRST_OUTSIDE:] = 0.0
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        noise = torch.randn(labels.shape, generator=generator)
        coarse = GaussianSmooth(self.R.uniform(1.0, 3.0))(torch.randn(labels.shape, generator=generator))
        coarse = torch.as_tensor(coarse)
        share = float(self.R.uniform(0.3, 0.9))  # of the smooth noise
        noise = (1 - share) ** 0.5 * noise + share**0.5 * coarse / coarse.std()
        volume = brightness[index] + texture[index] * noise
        blurred = torch.as_tensor(GaussianSmooth(self.R.uniform(0.3, 0.6))(volume))
        return blurred.clamp(min=0) * (brightness[index] > 0)
