"""What users read: lines about inputs, runs and bundles, and a console that never decides over success.

The lines are in ``messages.json``, so that wording, translation and tests look nowhere else: what is wrong,
then what to do. ``{name}`` is a file's own name (never its folder, never a header text: those may identify a
patient). Lines never hold a line break.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "SECTIONS",
    "BundleRejected",
    "Console",
    "InputRejected",
    "OutOfStep",
    "TrainingFailed",
    "is_command",
    "is_watched",
    "say",
    "survive_consoles",
    "tell",
    "warn",
]

log = logging.getLogger("monai_diffens")

LONGEST = 1000  # characters of one value in a line
COMMANDS = ("monai.bundle", "monai_diffens", "research")  # python -m
SCRIPTS = ("diffens",)
SECTIONS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
LINES = {key: line for section in SECTIONS.values() for key, line in section["lines"].items()}


class InputRejected(ValueError):
    """An input that cannot be worked on; the message is one line: what is wrong and what to do."""


class TrainingFailed(Exception):
    """A training that cannot begin or go on; the message is one line: what is wrong and what to do."""


class BundleRejected(Exception):
    """A bundle or weights that are not used; the message is one line: what is wrong and what to do."""


class OutOfStep(BaseException):
    """A process failed whose part others wait for; nothing that handles the errors of a case takes it."""


def say(key: str, **values: object) -> str:
    """Return message ``key`` with ``values`` filled in, on one line of printable characters."""
    line = LINES[key].format(**{name: _short(value) for name, value in values.items()})
    return "".join(c if c.isprintable() else "?" for c in line)


def _short(value: object) -> object:
    """A text of the user's, cut where it would fill the screen."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[: LONGEST // 2]}...{value[-LONGEST // 4 :]}"
    return value


def warn(data: dict[Any, Any], line: str) -> None:
    """Log a warning on a case, and add it to ``data["warnings"]``, which the sidecar of its result holds."""
    log.warning("%s: %s", data.get("case", "input"), line)
    data["warnings"] = [*(data.get("warnings") or ()), line]


def is_command() -> bool:
    """Whether this process was started as a command of MONAI's bundles or of this package."""
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", None) or ""
    by_module = any(module == name or module.startswith(f"{name}.") for name in COMMANDS)
    return by_module or Path(sys.argv[0] if sys.argv else "").stem in SCRIPTS


def tell(line: str, stream: TextIO | None = None) -> None:
    """Print a line; characters that the console cannot show become ``?``, and a closed one is passed over.

    Args:
        line: to print.
        stream: standard output when None.
    """
    console = Console(sys.stdout if stream is None else stream)
    console.write(f"{line}\n")
    console.flush()


def is_watched(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; a process may have none, or have closed it."""
    return stream is not None and not stream.closed and stream.isatty()


class Console:
    """A stream that never raises, for what only tells.

    Args:
        stream: to write to; None where the process has none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as much of it as can be shown."""
        if self._stream is None:
            return len(text)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError):  # nobody reads any more; the file is closed
            self._let_go()
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._let_go()

    def __getattr__(self, name: str) -> Any:
        """What else is asked of a stream."""
        return getattr(self._stream, name)

    def _let_go(self) -> None:
        """Let what is left in the stream's buffer go nowhere: Python would end with status 120 for it."""
        if self._stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())  # type: ignore[union-attr]
                os.close(nowhere)
        self._stream = None


def survive_consoles() -> None:
    """Let the log of a command pass over what its console cannot take, in place of a traceback a line."""
    if is_command():
        logging.raiseExceptions = False
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
