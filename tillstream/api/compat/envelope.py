"""
The seeds' envelope around what went wrong: `{"success": false, "error": …}`, with the fields of RFC 9457 beside.

Everything outside of `/api/` that is told as a problem gets it, also what no route has seen: a body that is too large,
a path that is none.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tillstream.api.guard import CANONICAL
from tillstream.api.problem import MEDIA_TYPE


class Envelope:
    """ASGI middleware; outside of the guard, whose refusals are told in the same way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith(CANONICAL):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        parts: list[bytes] = []

        async def answer(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = enveloped(b"".join(parts))
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body, "more_body": False})

        await self._app(scope, receive, answer)


def enveloped(problem: bytes) -> bytes:
    """A problem in the seeds' envelope."""
    told: dict[str, Any] = json.loads(problem)  # what we wrote ourselves
    return json.dumps(
        {"success": False, "error": _error(told), **told}, ensure_ascii=False, separators=(",", ":")
    ).encode()


def _error(told: dict[str, Any]) -> str:
    """What is wrong, in one text that names the fields."""
    detail = str(told["detail"])
    fields = "; ".join(
        f"{each['field']}: {each['message']}" if each["field"] else each["message"]
        for each in told.get("errors") or []
        if each["message"] not in detail
    )
    return f"{detail}: {fields}" if fields else detail


def _is_problem(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("Content-Type", "").partition(";")[0] == MEDIA_TYPE
