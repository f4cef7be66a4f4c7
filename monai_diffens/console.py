"""Telling the user: a console that is closed, or cannot show a name, never decides over success.

And whether the process is a command of ours, whose signals and settings are ours too; called from Python, the
package leaves those of its caller alone.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Console", "is_command", "survive_consoles", "tell"]

COMMANDS = ("monai.bundle", "monai_diffens", "research")  # python -m
SCRIPTS = ("diffens",)


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
