"""Faults 08 and 11 and their kinds: a caller's process stays as it was; telling decides over nothing."""

import io
import logging
import signal
import subprocess
import sys

import pytest
from tqdm import tqdm

from monai_diffens import messages
from monai_diffens.data.case_list import Rejected, RunOutcome
from monai_diffens.inference import interruptible
from monai_diffens.messages import Console, is_command, tell


def test_08_signals_of_a_program_of_the_user_s_are_left_alone():
    assert not is_command()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook, logging.raiseExceptions
    with interruptible():
        now = [signal.getsignal(number) for number in numbers], sys.unraisablehook, logging.raiseExceptions
        assert now == before
    with interruptible(always=True):
        assert signal.getsignal(signal.SIGINT) != before[0][0] and sys.unraisablehook != before[1]
    now = [signal.getsignal(number) for number in numbers], sys.unraisablehook, logging.raiseExceptions
    assert now == before


@pytest.mark.parametrize(
    ("module", "script", "ours"),
    [
        ("monai.bundle.__main__", "-m", True),
        ("monai_diffens.__main__", "-m", True),
        (None, "/usr/bin/diffens", True),
        (None, "script.py", False),
        ("pytest.__main__", "-m", False),
        ("monai.bundles_of_mine", "-m", False),
        (None, "", False),
    ],
)
def test_08_a_command_is_known(monkeypatch, module, script, ours):
    main = type("Main", (), {"__spec__": type("Spec", (), {"name": module})() if module else None})
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [script])
    assert is_command() is ours


class Closed(io.TextIOBase):
    """A pipe that nobody reads any more."""

    encoding = "utf-8"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def write(self, text):
        raise self.error

    flush = write


BROKEN = [
    BrokenPipeError(32, "Broken pipe"),
    OSError(5, "I/O error"),
    OSError(28, "full"),
    ValueError("closed file"),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: str(error))
def test_11_a_console_that_is_gone_decides_nothing(monkeypatch, error):
    for stream in (Closed(error), None):
        monkeypatch.setattr(sys, "stdout", stream)
        assert RunOutcome().finish({}, (0, 1)) == 0
        bad = RunOutcome(rejected=[Rejected(None, "a: bad")], left_out=["two files"])
        assert bad.finish({}, (0, 1)) == 1
    bar = tqdm(total=3, file=Console(Closed(error)))
    bar.update()
    bar.close()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_11_names_that_a_console_cannot_show(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    tell("rejected: 漢字.nii.gz: bad", stream)
    shown = raw.getvalue().decode(encoding)
    assert shown == ("rejected: 漢字.nii.gz: bad\n" if encoding == "utf-8" else "rejected: ??.nii.gz: bad\n")


FINISH = """
import logging, os, sys
from monai_diffens.data.case_list import RunOutcome

for console in ("gone", "full"):
    if not (child := os.fork()):
        break
    print(console, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
end, written = os.pipe()
os.close(end)  # nobody reads any more
if console == "full":
    written = os.open("/dev/full", os.O_WRONLY)
os.dup2(written, 1)
logging.raiseExceptions = False
logging.StreamHandler(sys.stdout).emit(logging.LogRecord("a", 30, "", 0, "warned", None, None))
sys.exit(RunOutcome().finish({}, (0, 1)))
"""


@pytest.mark.slow
def test_11_the_exit_status_of_a_process_tells_of_its_work():
    """Python ends with 120 where it cannot flush what a log's handler left in the buffer.

    Forks of one interpreter, which end as it would; ``test_cli.py`` begins with a console that is closed.
    """
    done = subprocess.run(
        [sys.executable, "-c", FINISH], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.split("\n") == ["gone 0", "full 0", ""], done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_11_the_log_of_a_command_passes_over_what_cannot_be_shown(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    monkeypatch.setattr(messages, "is_command", lambda: True)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    messages.survive_consoles()
    handler = logging.StreamHandler(stream)
    handler.emit(logging.LogRecord("a", 30, "", 0, "漢字: warned", None, None))
    assert raw.getvalue() == b"??: warned\n" and not logging.raiseExceptions
    logging.StreamHandler(Closed(BrokenPipeError(32, "x"))).emit(
        logging.LogRecord("a", 30, "", 0, "b", None, None)
    )
