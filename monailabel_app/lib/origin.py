"""Which web pages may call the server: its own only, and only under a name of this machine.

MONAI Label answers every web page that is open in a browser on the machine, and its setting against that
(MONAI_LABEL_CORS_ORIGINS) stops version 0.8.5 from starting. Programs send no Origin, and pass.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
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
        """Pass a request on, or answer it with status 403."""
        if scope["type"] != "lifespan":
            headers = {
                name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]
            }
            host, origin = headers.get("host", ""), headers.get("origin")
            known = self.any_host or is_loopback(urlsplit(f"//{host}").hostname)
            if not known or (origin is not None and urlsplit(origin).netloc != host):
                await JSONResponse({"detail": say("other_origin")}, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
