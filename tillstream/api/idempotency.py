"""
`Idempotency-Key` on every POST, also of the seeds' routes: the same request gets the first answer again, for a day.

Answers from 500 on are not kept: the request may be tried again, under the same key, and makes nothing twice.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import TillError
from schemas.failpoint import failpoint
from tillstream.api.problem import Refusal
from tillstream.api.world import World
from tillstream.control.idempotency import Begun, Kept, Refused

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)
_KEPT_HEADERS = ("content-type", "location", "etag", "retry-after")
_SERVER_ERROR = 500
_RETRY_S = 1


@dataclass(frozen=True, slots=True)
class Reserved:
    """The id for what a request makes. `again`: an earlier try of it may have made it already."""

    id: UUID
    again: bool = False


async def _reserved(request: Request) -> Reserved:
    return getattr(request.state, "reserved", None) or Reserved(uuid4())


ReservedDep = Annotated[Reserved, Depends(_reserved)]


class Idempotent:
    """ASGI middleware; it stands inside the guard, which has read the body."""

    def __init__(self, app: ASGIApp, *, world: World | None) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or give its answer again."""
        world = self._world
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if key is None or world is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if not _KEY.fullmatch(key):
            raise Refusal("invalid", "must be 1 to 200 printable characters", field=HEADER)
        message = await receive()
        found = await world.keys.begin(world.pool, key, _hash(scope, message.get("body", b"")))
        if isinstance(found, Kept):
            await _send(found, send)
            return
        if not isinstance(found, Begun):
            raise _refusal(found)
        try:
            scope["state"]["reserved"] = Reserved(found.reserved, found.again)
            for each in await self._done(scope, message, receive, key=key, world=world):
                await send(each)
        finally:
            await world.keys.release(key)

    async def _done(self, scope: Scope, message: Message, receive: Receive, *, key: str, world: World) -> list[Message]:
        """The answer, kept before it is sent: who got an answer gets the same one again."""
        taken = False
        out: list[Message] = []

        async def again() -> Message:
            nonlocal taken
            if taken:
                return await receive()
            taken = True
            return message

        async def keep(given: Message) -> None:
            out.append(given)

        await self._app(scope, again, keep)
        answer = _kept(out)
        if answer is not None and answer.status < _SERVER_ERROR:
            try:
                await world.keys.end(world.pool, key, answer)
            except TillError as exc:
                logger.warning("an answer could not be kept", extra={"facts": {"error": exc}})
        failpoint("api_before_answer")
        return out


def _kept(out: list[Message]) -> Kept | None:
    if not out:
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in out[0]["headers"]}
    chosen = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    body = b"".join(each.get("body", b"") for each in out[1:])
    return Kept(int(out[0]["status"]), chosen, body.decode("utf-8"))


async def _send(kept: Kept, send: Send) -> None:
    body = kept.body.encode()
    headers = {**kept.headers, REPLAYED: "true", "content-length": str(len(body))}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": kept.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _refusal(found: Refused) -> Refusal:
    if found is Refused.REUSED:
        return Refusal(
            "idempotency_key_reused", "this key belongs to another request", hint="use a new key", field=HEADER
        )
    return Refusal("idempotency_in_progress", "the first request under this key is at work", retry_after_s=_RETRY_S)


def _hash(scope: Scope, body: bytes) -> bytes:
    told = b"\n".join([scope["method"].encode(), scope["raw_path"], scope["query_string"], body])
    return hashlib.sha256(told).digest()
