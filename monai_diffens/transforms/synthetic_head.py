"""Heads of any contrast, made of label maps: skull, scalp and sharp edges for training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import GaussianSmooth, MapTransform, Randomizable
from torch import Tensor

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
