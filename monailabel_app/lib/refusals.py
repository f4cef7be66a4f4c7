"""From an error inside to the line a client reads; the server's log gets where, never what."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from monai_diffens.messages import InputRejected, say

__all__ = ["FAILED", "as_reply", "reason"]

FAILED = b"x-model-failed"  # marks a 500 that is this server's fault; see boundary.py

log = logging.getLogger("monai_diffens.label")


@contextmanager
def as_reply(status: int = 400) -> Iterator[None]:
    """Turn a rejected input into an HTTP reply that holds its line, and any other error into a short one."""
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:
        line = reason(error)
        if line is not None:
            raise HTTPException(status, line) from None
        places = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s at\n%s", type(error).__name__, places)  # its text may name a patient's file
        line = say("failed", kind=type(error).__name__)
        raise HTTPException(500, line, {FAILED.decode(): "1"}) from None


def reason(error: BaseException | None) -> str | None:
    """The line that an error, or one that caused it, has for the user; None where none has."""
    while error is not None:
        if isinstance(error, InputRejected):
            return str(error)
        if type(error) is ValueError and _raised_here(error):
            return " ".join(str(error).split())
        error = error.__cause__ or error.__context__
    return None


def _raised_here(error: BaseException) -> bool:
    """Whether this project raised it: others' texts may hold paths and data."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "monai_diffens" in frames[-1].filename
