"""The one rule about paths: nothing outside of the studies folder is read or written for a client."""

from __future__ import annotations

import os
import re
import shutil
from os import PathLike
from pathlib import Path

from monai_diffens.files import LONGEST_NAME
from monai_diffens.messages import InputRejected, say

__all__ = ["inside", "link_or_copy", "plain_name", "workspace"]

WORKSPACE = ".monailabel"  # beside the images; hidden, so that it is never listed as one


def plain_name(name: str) -> str:
    """Return an image's id or a label's tag when it is a plain file name.

    Raises:
        InputRejected: it is empty, hidden, too long for a file, holds a folder or an unprintable sign.
    """
    plain = isinstance(name, str) and name.isprintable() and re.fullmatch(r"[^./\\][^/\\]*", name)
    if not plain or len(name.encode()) > LONGEST_NAME:
        raise InputRejected(say("bad_id", name=repr(name)[:60]))
    return name


def inside(folder: str | PathLike[str], path: str | PathLike[str]) -> Path:
    """Return ``path`` with every link followed, when that lies in ``folder``.

    Raises:
        InputRejected: it lies elsewhere.
    """
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise InputRejected(say("outside_studies")) from error
    if not resolved.is_relative_to(Path(folder).resolve()):
        raise InputRejected(say("outside_studies"))
    return resolved


def workspace(studies: str | PathLike[str], *parts: str) -> Path:
    """Return a folder of this app's own inside the studies folder, made readable for its owner alone.

    Raises:
        InputRejected: a link leads out of the studies folder.
    """
    folder = Path(studies) / WORKSPACE
    for part in ("", *parts):
        folder = inside(studies, folder / part)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name without a second copy, where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
