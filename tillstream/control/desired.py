"""
Desired state, as workers read it: the connectors that should run, the runs that were asked for, and a signal to look.

Workers look every few seconds anyhow; `Signal` lets them look at once. What it misses costs seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.errors import TillError
from sinks.pool import Pool, connection
from streams.backoff import Backoff
from tillstream.control.request import Requested, open_requests
from tillstream.control.statement import statements

logger = logging.getLogger(__name__)

CHANNEL = "till_desired"
_ALIVE_S = 30.0  # how often a connection that only listens is asked whether it lives
_WAITS_S = (0.5, 30.0)

# a connector's own configuration: any JSON object, which its source's model judges
Configuration = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Desired:
    """
    A connector that should run. `version` rises with each new configuration; `resumed_at` is when it was resumed after
    it had paused itself. One that does not poll runs what is asked for.
    """

    id: UUID
    name: str
    kind: str
    provider: str
    version: int
    configuration: Configuration
    resumed_at: datetime | None = None
    polls: bool = True


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a connector waits: its source blocked a worker's event loop."""

    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Picture:
    """
    What operators want now. `requests` are open ones, in order; `blocked` are connectors that wait for now; `cancelled`
    are runs that nobody asked for, with their connector; `paused` are connectors that an operator let rest; `edits` are
    those of cursors that wait, with their connector.
    """

    connectors: tuple[Desired, ...] = ()
    requests: tuple[Requested, ...] = ()
    blocked: Mapping[UUID, Blocked] | None = None
    cancelled: Mapping[UUID, UUID] = field(default_factory=dict)
    paused: tuple[Desired, ...] = ()
    edits: Mapping[UUID, UUID] = field(default_factory=dict)

    def of(self, connector_id: UUID) -> list[Requested]:
        """The requests of one connector."""
        return [each for each in self.requests if each.connector_id == connector_id]

    def edits_of(self, connector_id: UUID) -> set[UUID]:
        """The edits of one connector's cursors that wait."""
        return {edit for edit, owner in self.edits.items() if owner == connector_id}

    def cancelled_of(self, connector_id: UUID) -> list[UUID]:
        """The runs of one connector that somebody cancelled, and nobody had asked for."""
        return [run for run, owner in self.cancelled.items() if owner == connector_id]


async def desired(pool: Pool) -> Picture:
    """
    What should run now.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["desired_connectors"])
        connectors = tuple(_desired(row) for row in rows if not row["is_paused"])
        paused = tuple(_desired(row) for row in rows if row["is_paused"])
        ids = [each.id for each in connectors]
        requests = await open_requests(held, ids)
        cancelled = {row["id"]: row["connector_id"] for row in await held.fetch(statements()["cancelled_runs"], ids)}
        known = [*ids, *(each.id for each in paused)]
        edits = {row["id"]: row["connector_id"] for row in await held.fetch(statements()["open_cursor_edits"], known)}
    blocked = {row["id"]: Blocked(row["blocked_at"], row["blocked_until"]) for row in rows if row["blocked"]}
    return Picture(connectors, tuple(requests), blocked, cancelled, paused, edits)


# asyncpg's records are mappings of anything
def _desired(row: Mapping[str, Any]) -> Desired:
    return Desired(
        id=row["id"],
        name=row["name"],
        kind=row["kind"],
        provider=row["provider"],
        version=row["configuration_version"],
        configuration=json.loads(row["connection_config"]),
        resumed_at=row["resumed_at"],
        polls=row["polls"],
    )


class Signal:
    """Sets `woken` whenever somebody changes what is desired, for as long as `listen` runs."""

    def __init__(self, woken: asyncio.Event) -> None:
        self._woken = woken

    async def listen(self, pool: Pool) -> None:
        """Listen for ever, on a connection of the pool; one that is lost is replaced."""
        backoff = Backoff(*_WAITS_S)
        while True:
            try:
                await self._listen_once(pool, backoff)
            except TillError as exc:
                if backoff.tries == 0:
                    logger.info("no signals: looking every few seconds", extra={"facts": {"error": exc}})
            await asyncio.sleep(backoff.next_s())

    async def _listen_once(self, pool: Pool, backoff: Backoff) -> None:
        lost = asyncio.Event()
        async with connection(pool) as held:
            held.add_termination_listener(lambda _: lost.set())
            await held.add_listener(CHANNEL, self._heard)
            try:
                self._woken.set()  # something may have changed while nobody listened
                while not lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(lost.wait(), _ALIVE_S)
                        return
                    await held.execute("SELECT 1")
                    backoff.reset()
            finally:
                if not held.is_closed():
                    await held.remove_listener(CHANNEL, self._heard)

    # asyncpg gives the connection, the process, the channel and the payload
    def _heard(self, *_: Any) -> None:
        self._woken.set()
