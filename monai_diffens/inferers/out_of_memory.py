"""What is done where memory runs out: smaller passes, and no process that goes on out of step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from monai_diffens.inferers.memory import smallest_window
from monai_diffens.messages import say
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.transforms.input_gate import InputRejected

logger = logging.getLogger(__name__)

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch raises a plain RuntimeError on a processor."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    )


def run_within_memory(run: Callable[[], Result], network: nn.Module, shape: Sequence[int]) -> Result:
    """Run the network on (X, Y, Z) voxels; where memory runs out, halve chunk and window, and run again.

    The result is the same, see :class:`ExpertBank` and :mod:`monai_diffens.networks.windows`.

    Raises:
        RuntimeError: what ``run`` raised, once single slices and the smallest windows are too much.
    """
    while True:
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            # several processes would run different passes from here on
            if not _alone(network) or not is_out_of_memory(error) or not _halve(network, shape):
                raise
        # outside of `except`: the error's traceback holds the tensors of the failed pass
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def in_step(network: nn.Module) -> Iterator[None]:
    """End this process where it fails while others wait for its slices.

    Going on with the next case would give the others slices of another scan.

    Raises:
        SystemExit: what went wrong, with several processes.
    """
    try:
        yield
    except Exception as error:
        if _alone(network):
            raise
        logger.debug("details", exc_info=error)
        line = error if isinstance(error, InputRejected) else type(error).__name__
        raise SystemExit(say("out_of_step", why=line)) from error


def _alone(network: nn.Module) -> bool:
    """Whether no other process waits for this one's slices."""
    return not isinstance(network, DiffEnsembler) or network.bank.world_size == 1


def _halve(network: nn.Module, shape: Sequence[int]) -> bool:
    """Halve chunk and window; False when both are as small as they get, or the network has none."""
    if not isinstance(network, DiffEnsembler):
        return False
    before = network.bank.slice_chunk, network.window_voxels or math.prod(shape)
    network.bank.slice_chunk = max(1, before[0] // 2)
    network.window_voxels = max(smallest_window(network, shape), before[1] // 2)
    if (network.bank.slice_chunk, network.window_voxels) == before:
        return False
    logger.warning(
        "out of memory: going on with %d slices or %d voxels at once",
        network.bank.slice_chunk,
        network.window_voxels,
    )
    return True
