"""Where and how large a head lies in its volume, varied for training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import Affine, MapTransform, Randomizable
from torch import Tensor

from monai_diffens.acquisition.slicing import PATCH_GRID, in_plane_axes, plane_axis
from monai_diffens.transforms.plane_slices import SHARP_PLANE_KEY


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
