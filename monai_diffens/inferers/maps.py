"""Maps beside a result: how far samples of it spread, and which expert decided each voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_diffens.transforms.split_maps import SPREAD, WEIGHT


def map_names(spread: bool, experts: Sequence[str] = ()) -> list[str]:
    """Names of the maps of a run, in the order of the inferer's channels; they serve as file name suffixes.

    Args:
        spread: whether there is a map of the standard deviation.
        experts: names of the experts whose weights are wanted, "axial" or "axial/T1w".

    Returns:
        For example ``["std", "weight-axial", "weight-axial-T1w"]``.
    """
    return [SPREAD] * bool(spread) + [WEIGHT + name.replace("/", "-") for name in experts]


class RunningMoments:
    """Mean and standard deviation of a stream of tensors, in two tensors however many come.

    Source: Welford, Technometrics 4(3), 1962.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, value: Tensor) -> None:
        """Take in one tensor; all have one shape."""
        self.count += 1
        if self.count == 1:
            self.mean = value.clone()
            return
        before = value - self.mean
        self.mean += before / self.count
        self.squares = self.squares + before * (value - self.mean)

    def std(self) -> Tensor:
        """Standard deviation of a sample (divisor: count - 1).

        Raises:
            ValueError: fewer than two tensors came.
        """
        if self.count < 2:
            raise ValueError(f"a spread needs two samples or more, got {self.count}")
        return (self.squares / (self.count - 1)).sqrt()
