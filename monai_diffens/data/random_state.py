"""The random numbers of whoever calls a run: as they were, although building a network draws some."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["keep_random_state", "put_back_random_state"]

_kept: list[tuple[Any, ...]] = []


def keep_random_state() -> None:
    """Note the states of torch (CPU), NumPy and Python, until they are put back."""
    _kept[:] = [(torch.get_rng_state(), np.random.get_state(), random.getstate())]


def put_back_random_state() -> None:
    """Put back what was noted, once; nothing where nothing was."""
    if _kept:
        of_torch, of_numpy, of_python = _kept.pop()
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
