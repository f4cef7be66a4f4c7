"""Removing what requests leave behind: MONAI Label deletes an upload after an answer, not after a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

__all__ = ["SweepWhenIdle"]


class SweepWhenIdle:
    """Empties a folder whenever the last of the requests under way has been answered.

    Args:
        app: the ASGI application behind.
        folder: of files that no request needs after its answer.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path) -> None:
        self.app = app
        self.folder = folder
        self.under_way = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, and sweep after it."""
        self.under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.sweep()

    def sweep(self) -> None:
        """Remove everything in the folder."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
