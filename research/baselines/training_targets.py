"""Translations without a network: another contrast with the target's histogram, and the training mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

MATCHED, TEMPLATE = "histogram-matched contrast", "training mean"
NEAREST = ("T2w", "ce-gadolinium_T1w", "T1w")  # which contrast a FLAIR looks like most, in this order
QUANTILES = 257
BOX = (128, 160, 128)  # voxels of a brain's bounding box in the mean


class Summary(NamedTuple):
    """What is known of the target from training subjects.

    Attributes:
        quantiles: (Q,) values inside the brain from the lowest to the highest, mean of the subjects.
        mean: (X, Y, Z) mean volume, every brain stretched to one box.
    """

    quantiles: Tensor
    mean: Tensor


class TrainingTargets:
    """The target contrast of training subjects, as two simple translations use it.

    Args:
        items: training subjects, with a path for ``target``.
        preprocessing: loads an item and scales its contrasts (1, X, Y, Z).
        target: contrast to make.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        preprocessing: Callable[[Mapping[str, Any]], dict[str, Any]],
        target: str = "FLAIR",
    ) -> None:
        self.items, self.preprocessing, self.target = items, preprocessing, target
        self._summary: Summary | None = None

    @property
    def summary(self) -> Summary:
        """Read from all subjects when it is first asked for."""
        if self._summary is None:
            quantiles, mean = torch.zeros(QUANTILES), torch.zeros(BOX)
            for item in self.items:
                only = {self.target: item[self.target]}
                volume = torch.as_tensor(self.preprocessing(only)[self.target]).float()[0]
                quantiles += quantiles_of(volume[volume > 0])
                mean += resized(volume[bounding_box(volume > 0)], BOX)
            self._summary = Summary(quantiles / len(self.items), mean / len(self.items))
        return self._summary

    def matched(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The condition that is most like the target, (1, X, Y, Z), with the target's histogram.

        Args:
            conditions: contrast -> (1, X, Y, Z), 0 outside of the brain.
        """
        nearest = next((name for name in NEAREST if name in conditions), next(iter(conditions)))
        volume = conditions[nearest].float()
        inside = volume > 0
        own = quantiles_of(volume[inside])
        result = torch.zeros_like(volume)
        result[inside] = along(volume[inside], own, self.summary.quantiles)
        return result

    def template(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The training mean, stretched to the box of the brain, (1, X, Y, Z).

        Args:
            conditions: contrast -> (1, X, Y, Z) of the whole brain, 0 outside.
        """
        brain = torch.stack([volume[0] > 0 for volume in conditions.values()]).any(dim=0)
        box = bounding_box(brain)
        result = torch.zeros(brain.shape)
        result[box] = resized(self.summary.mean, [part.stop - part.start for part in box])
        return (result * brain)[None]


def quantiles_of(values: Tensor) -> Tensor:
    """(Q,) quantiles, evenly spaced from the lowest to the highest of any number of values."""
    ordered = values.sort().values
    places = torch.linspace(0, len(ordered) - 1, QUANTILES).round().long()
    return ordered[places]


def along(values: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Values (N,) mapped by the line through the points (before, after), both (Q,) and rising."""
    right = torch.searchsorted(before, values).clamp(1, len(before) - 1)
    low, high = before[right - 1], before[right]
    share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return after[right - 1] + share * (after[right] - after[right - 1])


def bounding_box(inside: Tensor) -> tuple[slice, ...]:
    """The smallest box that holds all of a bool volume (X, Y, Z)."""
    places = inside.nonzero()
    low, high = places.amin(dim=0), places.amax(dim=0) + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def resized(volume: Tensor, sides: Sequence[int]) -> Tensor:
    """A volume (X, Y, Z) on as many voxels as asked for, trilinear."""
    return interpolate(volume[None, None], list(sides), mode="trilinear")[0, 0]
