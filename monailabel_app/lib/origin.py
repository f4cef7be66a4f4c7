"""Which web pages may call the server: its own only, and only under a name of this machine.

MONAI Label answers every web page that is open in a browser on the machine, and its setting against that
(MONAI_LABEL_CORS_ORIGINS) stops version 0.8.5 from starting. Programs send no Origin, and pass.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from monai_diffens.messages import say

__all__ = ["OriginGuard", "is_loopback"]

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class OriginGuard:
    """Turns away what a web page of another origin sends, before it does anything.

    Args:
        app: the ASGI application behind.
        any_host: answer under any host name; else only under one of the loopback interface, since a page can
            give its own name any address.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], any_host: bool) -> None:
        self.app = app
        self.any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with status 403, or 400 where its headers cannot be read."""
        if scope["type"] != "lifespan":
            try:
                known = self.is_known(scope["headers"])
            except ValueError:  # of urlsplit, as for "["
                await JSONResponse({"detail": say("bad_request")}, 400)(scope, receive, send)
                return
            if not known:
                await JSONResponse({"detail": say("other_origin")}, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def is_known(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether host and origin are this server.

        Raises:
            ValueError: one of them cannot be read, or is there twice.
        """
        given: dict[str, list[str]] = {"host": [], "origin": []}
        for name, text in headers:
            given.get(name.decode("latin-1").lower(), []).append(text.decode("latin-1"))
        if len(given["host"]) > 1 or len(given["origin"]) > 1:
            raise ValueError("a header that is there twice")
        host = "".join(given["host"])
        if not re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:/@?#\s]*)(:\d*)?", host):
            raise ValueError("no host")
        if not self.any_host and not is_loopback(urlsplit(f"//{host}").hostname):
            return False
        return all(urlsplit(origin).netloc == host for origin in given["origin"])


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
