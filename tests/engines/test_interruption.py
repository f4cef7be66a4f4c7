"""Signals end a run wherever they find it. The main thread that gets them is that of the tests."""

from __future__ import annotations

import signal
import sys
import time
from types import SimpleNamespace

import pytest

from monai_diffens.inference import Interrupted, interruptible

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
def test_a_signal_ends_the_run_in_order(place, number, capsys):
    code = RUN.format(number=int(number), place=PLACES[place].format(number=int(number)))
    with pytest.raises(SystemExit) as ended:
        exec(compile(code, "<string>", "exec"), {})
    assert ended.value.code == 128 + number
    out, err = capsys.readouterr()
    assert out.splitlines() == ["cleaned up"]
    assert err.count(signal.Signals(number).name) == 1
    assert err.splitlines()[-1].startswith(f"interrupted by {signal.Signals(number).name}: ")
    assert "Traceback" not in err


def test_other_dropped_errors_are_told_as_ever(monkeypatch):
    class Finaliser:
        def __del__(self):
            raise ValueError("of a finaliser")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(str(dropped.exc_value)))
    with interruptible(always=True):
        Finaliser()
    assert told == ["of a finaliser"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_a_dropped_one_is_told_is_not_lost(number, monkeypatch):
    """On a busy machine the second try may come before the first has been told."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: signal.raise_signal(number))

    def work():
        sys.unraisablehook(SimpleNamespace(exc_value=ValueError()))
        for _ in range(3000):
            time.sleep(0.01)

    with pytest.raises(Interrupted) as stopped, interruptible(always=True):
        work()
    assert stopped.value.number == number
