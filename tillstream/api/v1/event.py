"""
What happens to connectors and runs, as it happens: server-sent events, whose ids are positions of the activity log.

Who comes back with `Last-Event-ID` misses nothing. Nothing is kept for a client beyond what is being sent to it; one
that takes nothing for half a minute is let go of, and may come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.errors import ConfigError, TillError
from tillstream.api.problem import PROBLEMS, Refusal
from tillstream.api.v1.activity import ActivityShape
from tillstream.api.world import World, WorldDep
from tillstream.control import activity
from tillstream.control import connector as connectors
from tillstream.control.activity import Position

router = APIRouter(prefix="/api/v1/events", tags=["events"], responses=PROBLEMS)
logger = logging.getLogger(__name__)

MOST_STREAMS = 64
_LOOK_S = 1.0  # a row shows once the writers of its time are through, which nobody signals
_RETRY_MS = 2_000
_AT_ONCE = 200
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("", response_class=Response, responses={**PROBLEMS, **_DESCRIBED})
async def stream_events(
    world: WorldDep,
    connector: Annotated[str | None, Query(max_length=255, description="Only of this one.")] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> Response:
    """Events from now on, or from the one after `Last-Event-ID`; a comment every 15 s where nothing happens."""
    if len(world.streams) >= MOST_STREAMS:
        raise Refusal("too_many_requests", f"{MOST_STREAMS} listen already", retry_after_s=5)
    owner = None if connector is None else (await connectors.find_ever(world.pool, connector)).id
    try:
        begin = await activity.now(world.pool) if last_event_id is None else Position.parse(last_event_id)
    except ConfigError as exc:
        raise Refusal("invalid", str(exc), hint=exc.hint, field="Last-Event-ID") from exc
    return _Stream(world, begin, owner)


class _Stream(Response):
    """One client's stream."""

    media_type = "text/event-stream"

    def __init__(self, world: World, begin: Position, connector: UUID | None) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._world, self._position, self._connector = world, begin, connector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves, takes too little, or the process ends."""
        self._world.streams.add(self)
        leaving = asyncio.create_task(_left(receive))
        stopping = asyncio.create_task(self._world.stopping.wait())
        sending = asyncio.create_task(self._send(scope, send))
        try:
            await asyncio.wait({leaving, stopping, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                return
            sending.cancel()
            await asyncio.wait({sending})
            if stopping.done() and not leaving.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._world.streams.discard(self)
            for task in (leaving, stopping, sending):
                task.cancel()
            await asyncio.wait({leaving, stopping, sending})

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        body = f"retry: {_RETRY_MS}\nid: {self._position}\n\n"
        while not self._world.stopping.is_set():
            if body or loop.time() - quiet_since >= self._world.heartbeat_s:
                try:
                    async with asyncio.timeout(self._world.patience_s):
                        told = body or f": heartbeat\nid: {self._position}\n\n"
                        await send({"type": "http.response.body", "body": told.encode(), "more_body": True})
                except TimeoutError:
                    facts = {"request": scope["state"]["request_id"]}
                    logger.warning("a listener takes nothing: let go of", extra={"facts": facts})
                    return
                quiet_since = loop.time()
            body = await self._next()

    async def _next(self) -> str:
        """What happened meanwhile; waits a while where nothing did."""
        try:
            found, self._position = await activity.since(self._world.pool, self._position, _AT_ONCE)
        except TillError as exc:
            logger.info("no events for now", extra={"facts": {"error": exc}})
            found = []
        if not found:
            # not `wait_for`: it loses a cancellation that comes together with what it waits for
            await asyncio.sleep(min(_LOOK_S, self._world.heartbeat_s / 3))
        wanted = [each for each in found if self._connector in (None, each.connector_id)]
        return "".join(_told(ActivityShape.told(each)) for each in wanted)


def _told(each: ActivityShape) -> str:
    return f"id: {each.id}\nevent: {each.kind}\ndata: {json.dumps(each.model_dump(mode='json'))}\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
