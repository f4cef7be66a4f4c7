"""Volumes with and without a lesion, made from real lesions and their label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LOWEST_CONTRAST = 0.03  # of the range; fainter lesions tell nothing


class Change(NamedTuple):
    """One lesion, with and without.

    Attributes:
        kind: "removed" or "planted".
        number: of the lesion in its label map, counted by connected parts.
        volume: of the lesion, in voxels.
        mask: (X, Y, Z) bool, the lesion.
        difference: (X, Y, Z), what the lesion adds to the tissue.
        without: (X, Y, Z), the truth without it.
    """

    kind: str
    number: int
    volume: int
    mask: NDArray[np.bool_]
    difference: NDArray[np.floating]
    without: NDArray[np.floating]

    def inside(self, box: tuple[slice, ...]) -> Change:
        """The same in a box of the volume."""
        return self._replace(mask=self.mask[box], difference=self.difference[box], without=self.without[box])


def lesion_changes(
    truth: NDArray[np.floating],
    label: NDArray[np.bool_],
    sizes: Sequence[tuple[int, int]],
    per_class: int,
) -> Iterator[Change]:
    """Lesions of each size class, removed, and where the other hemisphere is healthy, planted there.

    Args:
        truth: (X, Y, Z), scaled, RAS, 0 outside of the brain.
        label: (X, Y, Z) bool, all lesions.
        sizes: (least, most) voxels a class.
        per_class: lesions a class that are removed, and as many that are planted, the largest first.
    """
    parts, count = ndimage.label(label)
    volumes = np.bincount(parts.ravel(), minlength=count + 1)
    brain = truth > 0
    for least, most in sizes:
        left = {"removed": per_class, "planted": per_class}
        for index in sorted(range(1, count + 1), key=lambda i: -volumes[i]):
            if not any(left.values()) or not least <= volumes[index] <= most:
                continue
            mask, volume = parts == index, int(volumes[index])
            difference = lesion_difference(truth, mask, label, brain)
            if abs(difference[mask].mean()) < LOWEST_CONTRAST:
                continue
            if left["removed"]:
                left["removed"] -= 1
                yield Change("removed", index, volume, mask, difference, truth - difference)
            mirrored = mirror(mask, brain)
            whole = mirrored.sum() == volume and brain[mirrored].all()
            if left["planted"] and whole and not label[ndimage.binary_dilation(mirrored)].any():
                left["planted"] -= 1
                planted = mirror(difference, brain)
                planted = np.where(truth + planted > 0, planted, 0) * brain
                yield Change("planted", index, volume, mirrored, planted, truth)


def lesion_difference(
    truth: NDArray[np.floating],
    mask: NDArray[np.bool_],
    label: NDArray[np.bool_],
    brain: NDArray[np.bool_],
) -> NDArray[np.floating]:
    """What a lesion adds to the tissue around it: (X, Y, Z), fading out over its rim.

    The tissue is the average of the healthy brain nearby, by a Gaussian as wide as the lesion.
    """
    width = max(2.0, float((mask.sum() * 3 / (4 * np.pi)) ** (1 / 3)))
    healthy = brain & ~ndimage.binary_dilation(label)
    weight = ndimage.gaussian_filter(healthy.astype(float), width)
    tissue = ndimage.gaussian_filter(truth * healthy, width) / np.maximum(weight, 1e-6)
    rim = np.clip(2 * ndimage.gaussian_filter(mask.astype(float), 0.7), 0, 1)
    soft = np.maximum(rim, mask) * brain * (weight > 1e-3)
    return soft * (truth - tissue)


def mirror(volume: NDArray[Any], brain: NDArray[np.bool_]) -> NDArray[Any]:
    """A volume (X, Y, Z), left and right exchanged about the middle of the brain's box."""
    filled = np.flatnonzero(brain.any(axis=(1, 2)))
    source = int(filled[0] + filled[-1]) - np.arange(volume.shape[0])
    inside = (source >= 0) & (source < volume.shape[0])
    result = np.zeros_like(volume)
    result[inside] = volume[source[inside]]
    return result


def lesion_box(mask: NDArray[np.bool_], region: Sequence[int]) -> tuple[slice, ...]:
    """Box of ``region`` voxels around a mask (X, Y, Z), inside the volume."""
    middle = [(part.start + part.stop) // 2 for part in ndimage.find_objects(mask.astype(np.uint8))[0]]
    starts = [
        max(0, min(int(m) - side // 2, n - side))
        for m, side, n in zip(middle, region, mask.shape, strict=True)
    ]
    return tuple(slice(start, start + side) for start, side in zip(starts, region, strict=True))
