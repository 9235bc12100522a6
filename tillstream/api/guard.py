"""
What stands before every route: an id for the request, who may ask, how much may be sent, and the outermost `except`.

Until there are users, loopback is the wall, and a browser is a hole in it: a page from elsewhere can make it send
requests to loopback. So a request that names another host, or that comes from another site's page, is refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Callable
from urllib.parse import unquote_plus, urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import TillError
from tillstream.api import body, problem
from tillstream.api.problem import Refusal

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
CANONICAL = "/api/"  # the seeds' routes read form-encoded JSON too, and answer in their own way
BODY_S = 30.0
_BUG = 500
_DRAINED_BYTES = 4 * body.MAX_BYTES  # so that who sends too much hears why before the connection ends
_GIVEN_ID = re.compile(r"[A-Za-z0-9._\-]{1,100}", re.ASCII)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_JSON = re.compile(r"application/(?:[\w.\-]+\+)?json", re.ASCII)


class Guard:
    """ASGI middleware; the innermost that sees everything a route raises."""

    def __init__(self, app: ASGIApp, *, redact: Callable[[str], str]) -> None:
        self._app = app
        self._redact = redact

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _GIVEN_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                out = MutableHeaders(scope=message)
                out[REQUEST_ID] = request_id
                out.setdefault("Cache-Control", "no-store")
                out["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            _admit(scope, headers)
            taken = await self._body(scope, headers, receive)
            await self._app(scope, taken, answer)
        except _Gone:
            return
        except Exception as exc:
            if isinstance(exc, TillError) and problem.status_of(exc) != _BUG and not started:
                # it was refused, or a server was not there, before any route could tell
                told = problem.answer_of(exc, request_id=request_id, redact=self._redact)
                await told(scope, receive, answer)
                return
            facts = {"request": request_id, "method": scope["method"], "path": scope["path"]}
            logger.exception("a request failed unexpectedly", extra={"facts": facts})
            if started:
                raise  # the connection ends: a half answer must not look whole
            await problem.internal(request_id=request_id)(scope, receive, answer)

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """The body, whole and judged, to be received again."""
        if scope["method"] not in _WITH_BODY:
            return receive
        try:
            async with asyncio.timeout(BODY_S):
                raw = await _read(headers, receive)
        except TimeoutError:
            raise Refusal("request_timeout", f"the body did not come within {BODY_S:.0f} s") from None
        media = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if raw and _JSON.fullmatch(media):
            body.parse(raw)
        elif raw and scope["path"].startswith(CANONICAL):
            raise Refusal(
                "unsupported_media_type", f"the body must be application/json; got {media[:100] or 'no Content-Type'}"
            )
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": raw, "more_body": False}

        return again


def _admit(scope: Scope, headers: Headers) -> None:
    """
    Let a request in, or refuse it.

    Raises:
        Refusal: it names another host than this machine's loopback, comes from a page, or holds NUL.
    """
    host = headers.get("Host", "")
    if host and not is_loopback(_hostname(host)):
        raise Refusal("forbidden", "this API answers on loopback only", hint="call it as 127.0.0.1 or localhost")
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise Refusal("forbidden", "a page of another origin may not use this API")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refusal("forbidden", "a page of another site may not use this API")
    query = unquote_plus(scope["query_string"].decode("latin-1"), encoding="latin-1")
    if not body.is_storable(scope["path"]) or "\x00" in query:
        raise Refusal("invalid", "the address holds NUL, which no text may")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _read(headers: Headers, receive: Receive) -> bytes:
    declared = headers.get("Content-Length", "")
    is_large = declared.isascii() and declared.isdigit() and int(declared[:18]) > body.MAX_BYTES
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= body.MAX_BYTES and not is_large:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > _DRAINED_BYTES:
            break
    if is_large or size > body.MAX_BYTES:
        raise Refusal("too_large", f"the body has more than {body.MAX_BYTES} bytes")
    return b"".join(chunks)


class _Gone(Exception):
    """The client has left."""
