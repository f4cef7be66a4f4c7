"""The guard against NaN and infinite values in what a network gave, before anything is cut to a range."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_diffens.messages import InputRejected, say

__all__ = ["check_finite"]


def check_finite(volume: Tensor, name: str) -> Tensor:
    """The volume, of any shape, where all its values are finite.

    A clamp turns infinity into a bound, and a threshold turns NaN into 0: what comes later cannot tell.

    Args:
        volume: of a result or its maps.
        name: of the case.

    Raises:
        InputRejected: with how many are not.
    """
    finite = torch.isfinite(volume)
    if not bool(finite.all()):
        bad = int(finite.numel() - finite.sum())
        raise InputRejected(say("not_finite_result", name=name, percent=100 * bad / finite.numel()))
    return volume
