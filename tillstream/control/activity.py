"""
What happened to connectors and runs, as triggers of the database wrote it down.

A position is (transaction, id). A transaction that began early may commit late, and its rows then stand before ones
that were read already; so a reader is given only what is older than every transaction at work. It loses nothing, and
what is new shows once the writers of its time are through: as a rule at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.errors import ConfigError
from sinks.pool import Pool, connection
from tillstream.control.statement import statements

CHANNEL = "till_activity"  # told at each commit that wrote some
MOST = 1_000
_POSITION = re.compile(r"([0-9]{1,19})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far somebody has read. As text it is an event's id: `transaction-id`."""

    transaction: int
    id: int = 0

    def __str__(self) -> str:
        return f"{self.transaction}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        The position of this text.

        Raises:
            ConfigError: it is none.
        """
        match = _POSITION.fullmatch(text.strip())
        if match is None or int(match[1]) >= 2**63:
            raise ConfigError("this is not the id of an event", hint="leave it out: what happens from now on comes")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Activity:
    """
    One thing that happened. `kind` is a noun and what it did: `connector.created`, `.configured`, `.renamed`,
    `.paused`, `.resumed`, `.status`, `.scheduled`, `.deleted`; `run.opened`, `.asked`, `.taken`, `.cancelled`,
    `.read`, `.ended`; `cursor.asked`, `.edited`, `.refused`; `health.changed`. `actor` is who did it, where
    somebody did.
    """

    position: Position
    at: datetime
    kind: str
    connector_id: UUID | None
    connector: str
    run_id: UUID | None
    actor: str
    facts: Mapping[str, Any]


async def now(pool: Pool) -> Position:
    """
    Where somebody begins who wants what happens from now on.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return Position(await held.fetchval(statements()["activity_now"]))


async def since(pool: Pool, position: Position, limit: int = 200) -> tuple[list[Activity], Position]:
    """
    What happened after `position`, in order, and the position to go on from.

    As much as `limit`: there may be more already.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["activity_since"], position.transaction, position.id, min(limit, MOST))
    found = _all(rows)
    if len(found) >= min(limit, MOST):
        return found, found[-1].position
    return found, Position(rows[0]["horizon"])


async def of_run(pool: Pool, run_id: UUID, *, after: int | None = None, limit: int = 200) -> list[Activity]:
    """
    What happened to a run, in order, after the id.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        return _all(await held.fetch(statements()["activity_of_run"], run_id, after, min(limit, MOST)))


async def of_connector(
    pool: Pool, connector_id: UUID, *, before: int | None = None, limit: int = 200
) -> list[Activity]:
    """
    What happened to a connector and its runs, the newest first, before the id.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        return _all(await held.fetch(statements()["activity_of_connector"], connector_id, before, min(limit, MOST)))


async def prune(pool: Pool, *, older_than: timedelta, most: int) -> int:
    """
    Forget what happened longer ago, at most so many rows; how many it were.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        done = await held.execute(statements()["prune_activity"], older_than, most)
    return int(done.rpartition(" ")[2])


# asyncpg's records are mappings of anything
def _all(rows: Sequence[Mapping[str, Any]]) -> list[Activity]:
    return [
        Activity(
            position=Position(row["transaction"], row["id"]),
            at=row["at"],
            kind=row["kind"],
            connector_id=row["connector_id"],
            connector=row["connector"] or "",
            run_id=row["run"],
            actor=row["actor"],
            facts=json.loads(row["facts"]),
        )
        for row in rows
        if row["id"] is not None
    ]
