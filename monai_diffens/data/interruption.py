"""Ctrl-C and a scheduler's SIGTERM end a run with one line and the usual exit status."""

from __future__ import annotations

import _thread
import atexit
import random
import signal
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import torch

from monai_diffens.messages import is_command, say, survive_consoles, tell

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


RETRY_S = 0.01


class _Interrupted(SystemExit):
    """What ends the run; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def end_on_signals(always: bool = False) -> None:
    """From now on SIGINT and SIGTERM raise SystemExit with 128 + the signal's number (130, 143).

    In a command alone, see :func:`~monai_diffens.messages.is_command`: in a program of the user's the signals
    are the user's, Ctrl-C raises KeyboardInterrupt as ever, and nothing is changed here. The states of random
    numbers are noted, and put back at the end of the run.

    An exception, so that a file being written is removed on the way out. The line is written at the very end,
    behind what progress bars and logs say when they are cut short. Python hands signals to the main thread
    only; elsewhere this does nothing, since a server has its own way to end.

    Where a signal comes while a finaliser or a weak reference's callback is run, Python prints the exception
    and drops it (``sys.unraisablehook``); it is then raised again, a moment later.

    Args:
        always: whatever the process is.
    """
    survive_consoles()
    keep_random_state()
    if not (always or is_command()):
        return
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        if sys.unraisablehook is not _raise_again:
            _raise_again.others = sys.unraisablehook
            sys.unraisablehook = _raise_again


def _end(number: int, frame: FrameType | None) -> None:
    if not _raise_again.told:
        _raise_again.told = True
        atexit.register(tell, say("interrupted", signal=signal.Signals(number).name), sys.stderr)
    raise _Interrupted(number)


class _RaiseAgain:
    """The hook for exceptions that Python drops.

    Attributes:
        others: the hook for all others.
        told: whether the user has been told of the interruption.
    """

    def __init__(self) -> None:
        self.others: Any = sys.__unraisablehook__
        self.told = False

    def __call__(self, dropped: Any) -> None:
        """Bring an interruption back once the finaliser has ended; hand on everything else.

        But nothing after an interruption: what it left half made, a progress bar, may fail to be finalised.
        """
        if isinstance(dropped.exc_value, _Interrupted):
            threading.Timer(RETRY_S, _thread.interrupt_main, [dropped.exc_value.number]).start()
        elif not self.told:
            self.others(dropped)


_raise_again = _RaiseAgain()
