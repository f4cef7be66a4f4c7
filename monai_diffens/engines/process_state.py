"""What a run changes of its process, and puts back: the answer to signals, the states of random numbers."""

from __future__ import annotations

import _thread
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from monai_diffens.messages import is_command, say, tell

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_S = 0.01


class Interrupted(BaseException):
    """A signal ended the run; nothing that handles errors takes it for one.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible(always: bool = False) -> Iterator[None]:
    """SIGINT (Ctrl-C) and SIGTERM (schedulers) raise :class:`Interrupted` here, so that unfinished files go.

    In a command alone, see :func:`~monai_diffens.messages.is_command`: in a program of the user's the signals
    are the user's. Python hands signals to the main thread only; elsewhere this does nothing, since a server
    has its own way to end.

    Args:
        always: whatever the process is.
    """
    if not (always or is_command()) or threading.current_thread() is not threading.main_thread():
        yield
        return
    others, stopping = sys.unraisablehook, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        raise Interrupted(number)

    def raise_again(dropped: Any) -> None:
        """Python drops what a finaliser or a callback raises: an interruption comes again a moment later."""
        if isinstance(dropped.exc_value, Interrupted):
            threading.Timer(RETRY_S, _thread.interrupt_main, [dropped.exc_value.number]).start()
        elif not stopping:  # what an interruption left half made may fail to be finalised
            others(dropped)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    sys.unraisablehook = raise_again
    try:
        yield
    except Interrupted as stopped:
        traceback.clear_frames(stopped.__traceback__)  # finalises what is half made while that is not told
        raise
    finally:
        sys.unraisablehook = others
        for number, handler in before.items():
            signal.signal(number, handler)


def told_status(stopped: Interrupted) -> int:
    """Tell that a signal ended the run, and return the exit status that is usual then: 130, 143."""
    tell(say("interrupted", signal=signal.Signals(stopped.number).name), sys.stderr)
    return 128 + stopped.number


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the states of torch (CPU), NumPy and Python: building a network draws from them."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)
