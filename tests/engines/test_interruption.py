"""Signals end a run wherever they find it."""

from __future__ import annotations

import signal

import forked
import pytest

RUN = """
import signal, sys, time, weakref
from monai_diffens.inference import Interrupted, interruptible, told_status

class Finaliser:
    def __del__(self):
        signal.raise_signal({number})
        print("not reached")

class Referred:
    pass

class HalfMade:
    def __init__(self):
        signal.raise_signal({number})
        self.whole = True

    def __del__(self):
        print("whole:", self.whole)

def work():
    stop = time.monotonic() + 30
    while time.monotonic() < stop:
        sum(range(1000))
    print("not stopped")

def run():
    try:
        {place}
        work()
    finally:
        print("cleaned up")
        print("a bar is closed", file=sys.stderr)

with interruptible(always=True):  # an earlier run in the process
    pass
try:
    with interruptible(always=True):
        run()
except Interrupted as stopped:
    sys.exit(told_status(stopped))
"""

PLACES = {
    "plain code": "signal.raise_signal({number})",
    "finaliser": "Finaliser()",
    "half made object": "HalfMade()",
    "callback": "r = Referred(); w = weakref.ref(r, lambda _: signal.raise_signal({number})); del r",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_the_run_in_order(place, number):
    code = RUN.format(number=int(number), place=PLACES[place].format(number=int(number)))
    ended = forked.run(["-c", code])
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stdout.splitlines() == ["cleaned up"]
    assert ended.stderr.count(signal.Signals(number).name) == 1
    assert ended.stderr.splitlines()[-1].startswith(f"interrupted by {signal.Signals(number).name}: ")
    assert "Traceback" not in ended.stderr


def test_other_dropped_errors_are_told_as_ever():
    code = """
from monai_diffens.inference import interruptible

class Finaliser:
    def __del__(self):
        raise ValueError("of a finaliser")

with interruptible(always=True):
    Finaliser()
"""
    ended = forked.run(["-c", code])
    assert ended.returncode == 0
    assert "ValueError: of a finaliser" in ended.stderr
