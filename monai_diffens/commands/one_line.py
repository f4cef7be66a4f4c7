"""A group of commands whose mistakes end in one line on stderr and the right status."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from monai_diffens.bundle.manifest import BundleRejected
from monai_diffens.messages import InputRejected, say, tell
from monai_diffens.options import OptionError, nearest

__all__ = ["NOT_USABLE", "SOME_FAILED", "STATUSES", "WRONG_USE", "OneLine"]

SOME_FAILED, WRONG_USE, NOT_USABLE, INTERRUPTED = 1, 2, 3, 130
STATUSES = (
    "Exit status: 0 all done; 1 a scan was rejected or failed; 2 wrong use; 3 a bundle that cannot be used; "
    "130, 143 interrupted."
)


class OneLine(TyperGroup):
    """Turns what its commands raise into a line and a status, listed in :data:`STATUSES`."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; always ends in SystemExit."""
        kwargs["standalone_mode"] = False
        try:
            status, line = super().main(*args, **kwargs) or 0, None
        except typer.Exit as stopped:
            status, line = stopped.exit_code, None
        except (typer.Abort, KeyboardInterrupt):
            status, line = INTERRUPTED, None
        except SystemExit as stopped:  # of a bundle's run
            text = isinstance(stopped.code, str)
            status, line = (NOT_USABLE, str(stopped.code)) if text else (int(stopped.code or 0), None)
        except OptionError as error:
            status, line = WRONG_USE, f"--{error}"
        except InputRejected as error:
            status, line = WRONG_USE, str(error)
        except BundleRejected as error:
            status, line = NOT_USABLE, str(error)
        except OSError as error:
            status, line = SOME_FAILED, f"{error.filename or 'disk'}: {error.strerror or error}"
        except Exception as error:
            if not hasattr(error, "format_message"):  # not one of typer's own
                raise
            status, line = WRONG_USE, _usage_line(error)
        if line is not None:
            tell(line, sys.stderr)
        sys.exit(status)


def _usage_line(error: Any) -> str:
    """What typer found wrong, on one line."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    name = getattr(error, "option_name", None)
    if name is not None and command is not None:
        known = [word.lstrip("-") for each in command.params for word in each.opts if word.startswith("--")]
        plain = name.lstrip("-").replace("-", "_")
        return say("unknown_option", name=plain, hint=nearest(plain, known, "--"))
    return " ".join(str(error.format_message()).split())
