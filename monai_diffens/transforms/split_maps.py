"""Take an inferer's channels apart: the result, and the maps that came with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

SPREAD, WEIGHT = (
    "std",
    "weight-",
)  # names of maps: the samples' deviation; an expert's weights, its name behind


class SplitMapsd(MapTransform):
    """Leave the first channel under the key, and put each further one under ``<key>_<map name>``.

    The inferer gives one tensor, since that is what MONAI's engines pass on and take apart by case.

    Args:
        keys: predictions (1 + number of maps, X, Y, Z).
        maps: names of the maps, see :func:`monai_diffens.inferers.settings.map_names`.
        allow_missing_keys: skip absent keys.
    """

    def __init__(
        self, keys: KeysCollection, maps: Sequence[str] = (), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.maps = tuple(maps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Split every key.

        Raises:
            ValueError: a prediction has another number of channels.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            volumes = d[key]
            if volumes.shape[0] != 1 + len(self.maps):
                raise ValueError(
                    f"{key}: {1 + len(self.maps)} channels are needed (the result, then "
                    f"{', '.join(self.maps) or 'no map'}), got {volumes.shape[0]}"
                )
            for index, name in enumerate(self.maps, start=1):
                d[f"{key}_{name}"] = volumes[index : index + 1].clone()
            d[key] = volumes[:1].clone()
        return d
