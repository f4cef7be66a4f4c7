"""The outermost layer of the server: whatever a client sends, it gets one line, and its own fault is a 4xx.

MONAI Label 0.8.5 reads parts of a request without a check (``params`` that are not JSON, no image at all),
and answers 500 with a traceback in its log. Here a 500 is kept for what really failed in this server.
"""

from __future__ import annotations

import errno
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse

from lib.refusals import FAILED, reason
from monai_diffens.messages import say

__all__ = ["Boundary"]

log = logging.getLogger("monai_diffens.label")

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

# Beginnings of paths, with the methods, of what needs another kind of store, or reaches past this app.
NOT_OFFERED = (
    ("/proxy", None, "the DICOM proxy", "the studies are a folder; send .nii or .nii.gz"),
    ("/infer/wsi", None, "whole-slide inference", "use /infer"),
    ("/batch", ("POST",), "batch inference", "run the bundle's inference with --input FOLDER"),
    ("/model", ("PUT", "DELETE"), "another file of weights", "fine-tune instead"),
    ("/reload", None, "starting anew", "stop the server and start it"),
    ("/logs/gpu", None, "the state of the GPU", "ask nvidia-smi"),
)
FAULTS_OF_REQUESTS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)
BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EILSEQ)


class Boundary:
    """Answers what the application behind cannot, and turns its tracebacks into a line.

    Args:
        app: the ASGI application behind.
        prefix: of all its paths.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], prefix: str = "") -> None:
        self.app = app
        self.prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (line := self.not_offered(scope)) is not None:
            await JSONResponse({"detail": line}, 404)(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self.app(scope, receive, answer.send)
        except (Exception, SystemExit) as error:  # a task that runs in this process ends with SystemExit
            log.error("%s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            if answer.begun:
                return  # too late for another; the client sees that it is cut
            status, line = _told(error)
            await JSONResponse({"detail": line}, status)(scope, receive, send)
            return
        await answer.release()

    def not_offered(self, scope: Scope) -> str | None:
        """The line for what this server does not do; None for the rest."""
        path = scope["path"].removeprefix(self.prefix)
        for begin, methods, what, instead in NOT_OFFERED:
            if path.startswith(begin) and (methods is None or scope["method"] in methods):
                return say("not_offered", what=what, instead=instead)
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if path.startswith("/infer/") and "dicom_seg" in query.get("output", []):
            return say("not_offered", what="a DICOM segmentation", instead="ask for the image")
        return None


class _Answer:
    """Passes an answer on, but holds back one of status 500 until it is known where that comes from."""

    def __init__(self, send: Send) -> None:
        self.send_on = send
        self.begun = False
        self.held: list[Any] = []

    async def send(self, message: Any) -> None:
        own = message["type"] == "http.response.start" and FAILED in dict(message.get("headers", ()))
        if self.held or (message["type"] == "http.response.start" and message["status"] == 500 and not own):
            self.held.append(message)
            return
        self.begun = True
        await self.send_on(message)

    async def release(self) -> None:
        """Pass on what was held: a refusal of MONAI Label's own, which is of the request."""
        for message in self.held:
            await self.send_on({**message, "status": 400} if "status" in message else message)


def _told(error: BaseException) -> tuple[int, str]:
    """Status and line for an error that came through."""
    line = reason(error)
    if line is None and isinstance(error, SystemExit) and isinstance(error.code, str):
        line = " ".join(error.code.split())
    if line is not None:
        return 400, line
    unknown = any(kind.__name__ == "MONAILabelException" for kind in type(error).__mro__)
    if unknown or isinstance(error, FAULTS_OF_REQUESTS):
        return 400, say("bad_request")
    if isinstance(error, OSError) and error.errno in BAD_NAMES:
        return 400, say("bad_request")
    return 500, say("failed", kind=type(error).__name__)
