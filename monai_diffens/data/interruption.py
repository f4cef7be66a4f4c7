"""Ctrl-C and a scheduler's SIGTERM end a run with one line and the usual exit status."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from monai_diffens.transforms.messages import say

__all__ = ["end_on_signals"]


def end_on_signals() -> None:
    """From now on SIGINT and SIGTERM raise SystemExit with 128 + the signal's number (130, 143).

    An exception, so that a file being written is removed on the way out. Python hands signals to the main
    thread only; elsewhere this does nothing, since a server has its own way to end.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    print(say("interrupted", signal=signal.Signals(number).name), file=sys.stderr, flush=True)
    raise SystemExit(128 + number)
