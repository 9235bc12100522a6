"""
Runs: `connectors.ports.RunLog` on PostgreSQL, what ends a run, and the runs as operators see them.

A run's row is written by the worker that reads, until it finished or failed, and ended by the monitor. Every call may
come late and again: each is idempotent, and an ended run never changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from schemas import metric
from schemas.checkpoint import Counts
from schemas.errors import Conflict, NotFound
from schemas.failpoint import failpoint
from schemas.metric import Meter, NullMeter
from sinks.pool import Connection, Pool, connection
from sinks.prepared import storable
from tillstream.control import claim as claims
from tillstream.control.claim import Claim
from tillstream.control.statement import statements

MANUAL, TEST = "MANUAL", "TEST"
DEFAULT_LIMIT = 30  # seed 003: the history's page
_MOST_DIGITS = 18  # of a number that PostgreSQL holds
_NAMES_A_RUN = re.compile(r"[0-9a-fA-F-]{1,36}", re.ASCII)
_HINT = "`till run list` shows them"


class RunStatus(StrEnum):
    """Seed 003's words."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    PARTIAL_SUCCESS = "PARTIAL_SUCCESS"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class RunView:
    """
    One run as operators see it. `awaiting_sink` says that it is read to its end and the sink has not confirmed it yet,
    `waiting` that it was asked for and no worker has begun it. `note` tells what a run that was asked for skipped.
    `asked`: somebody wanted it, of these days (null: no bound). `details` are seed 003's, once it has ended; a TEST
    run's have its steps.

    Sums are of event digests, modulo 2^128.
    """

    id: UUID
    number: int | None
    connector: str
    connector_id: UUID
    type: str
    status: RunStatus
    triggered_by: str
    read: int
    published: int
    rejected: int
    filtered: int
    skipped: int
    applied: int
    duplicate: int
    dead: int
    started_at: datetime
    completed_at: datetime | None
    duration_s: float | None
    awaiting_sink: bool
    reason: str
    note: str
    waiting: bool
    cancelled: bool
    asked: bool
    since: date | None
    until: date | None
    force: bool
    details: Mapping[str, Any] | None


class PostgresRunLog:
    """
    `connectors.ports.RunLog` on PostgreSQL, for the holder of a claim.

    Every method raises SinkError, as `sinks/sqlstate.py` routes it; all but `open` raise Fenced for an outdated claim.
    """

    def __init__(self, pool: Pool, meter: Meter | None = None, *, claim: Claim | None = None) -> None:
        self._pool = pool
        self._meter = meter or NullMeter()
        self._claim = claim

    async def open(self, run_id: UUID, connector_id: UUID, *, triggered_by: str, run_type: str) -> None:
        """
        Start the run, and freeze the connector's provider: from now on it is part of keys in the log.

        An outdated worker may open one too: what it published under it is on record, and the monitor ends it.
        """
        async with connection(self._pool) as held:
            await held.execute(statements()["open_run"], run_id, connector_id, triggered_by, run_type)
        failpoint("after_run_opened")

    async def progress(self, run_id: UUID, counts: Counts) -> None:
        """Store what was read so far; also the run's heartbeat."""
        async with self._writing() as held:
            await record(held, run_id, counts)

    async def finish_reading(
        self, run_id: UUID, counts: Counts, *, problems: Sequence[str] = (), note: str = ""
    ) -> None:
        """The source side is through. With `problems` the run ends PARTIAL_SUCCESS at best."""
        failpoint("before_run_closed")
        async with self._writing() as held:
            await finish(held, run_id, counts, problems=problems, note=note)
        failpoint("after_run_closed")

    async def fail(self, run_id: UUID, counts: Counts, *, reason: str) -> None:
        """End the run FAILED, unless it was read to its end."""
        failpoint("before_run_closed")
        async with self._writing() as held:
            await record(held, run_id, counts)
            ended = await close(held, run_id, RunStatus.FAILED, reason=storable(reason), only_while_reading=True)
        if ended is not None:
            self._meter.add(metric.RUNS_TOTAL, connector=ended, status=RunStatus.FAILED.value)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        async with connection(self._pool) as held, held.transaction():
            if self._claim is not None:
                await claims.insist(held, self._claim)
            yield held


async def record(held: Connection, run_id: UUID, counts: Counts) -> None:
    """Store the counts of a run that still reads."""
    sums = (Decimal(counts.published_sum), Decimal(counts.rejected_sum))
    numbers = (counts.read, counts.published, counts.rejected, counts.filtered, counts.skipped)
    await held.execute(statements()["record_progress"], run_id, *numbers, *sums)


async def finish(
    held: Connection, run_id: UUID, counts: Counts, *, problems: Sequence[str] = (), note: str = ""
) -> None:
    """The source side is through, in the caller's transaction."""
    await record(held, run_id, counts)
    told = storable("; ".join(problems)) or None
    await held.execute(statements()["finish_reading"], run_id, told, storable(note))


async def close(
    held: Connection, run_id: UUID, status: RunStatus, *, reason: str | None = None, only_while_reading: bool = False
) -> str | None:
    """End the run: its connector's name, or None if it had ended before."""
    # the first column of the only row
    name: str | None = await held.fetchval(statements()["close_run"], run_id, status.value, reason, only_while_reading)
    return name


async def list_runs(pool: Pool, *, connector_id: UUID | None = None, limit: int = DEFAULT_LIMIT) -> list[RunView]:
    """
    Runs, the newest first.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return [_view(row) for row in await held.fetch(statements()["list_runs"], connector_id, limit)]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs, also of deleted connectors: begun from `since` on and before `until`. None: any."""

    connector_id: UUID | None = None
    status: str | None = None
    type: str | None = None
    since: datetime | None = None
    until: datetime | None = None


# when a run began, and its id: its place in lists
Place = tuple[datetime, UUID]


async def page(
    pool: Pool, wanted: Filter | None = None, *, after: Place | None = None, limit: int = 50
) -> tuple[list[RunView], Place | None]:
    """
    Runs, the newest first, after this place; and the place to go on after, None at the end.

    Raises:
        SinkError: as routed.
    """
    of, (at, run_id) = wanted or Filter(), after or (None, None)
    async with connection(pool) as held:
        arguments = (of.connector_id, of.status, of.type, of.since, of.until, at, run_id, limit + 1)
        found = [_view(row) for row in await held.fetch(statements()["page_runs"], *arguments)]
    more, shown = len(found) > limit, found[:limit]
    return shown, (shown[-1].started_at, shown[-1].id) if more else None


async def find_run(pool: Pool, wanted: str) -> RunView:
    """
    The run of this number, or whose id begins so.

    Raises:
        NotFound: there is none. Conflict: several ids begin so. SinkError: as routed.
    """
    async with connection(pool) as held:
        return await found(held, wanted)


async def found(held: Connection, wanted: str) -> RunView:
    """
    As `find_run`, on the caller's connection.

    Raises:
        NotFound: there is none. Conflict: several ids begin so.
    """
    if not _NAMES_A_RUN.fullmatch(wanted) or not wanted.replace("-", ""):
        raise NotFound(f"there is no run {wanted!r}", hint=_HINT)
    digits = wanted.replace("-", "")[:32]
    between = (UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
    number = int(wanted) if wanted.isdecimal() and len(wanted) <= _MOST_DIGITS else None
    rows = await held.fetch(statements()["find_runs"], *between, number, DEFAULT_LIMIT)
    found = [_view(row) for row in rows]
    # `8` may be a number and the beginning of ids; numbers are what lists show
    found = [view for view in found if str(view.number) == wanted] or found
    if not found:
        raise NotFound(f"there is no run {wanted!r}", hint=_HINT)
    if len(found) > 1:
        raise Conflict(f"the ids of {len(found)} runs begin with {wanted!r}", hint="give more of the id")
    return found[0]


# asyncpg's records are mappings of anything
def _view(row: Mapping[str, Any]) -> RunView:
    closed = row["closed_at"] is not None
    return RunView(
        id=row["id"],
        number=row["number"],
        connector=row["connector"],
        connector_id=row["connector_id"],
        type=row["run_type"] or MANUAL,
        status=RunStatus(row["status"] or RunStatus.RUNNING),
        triggered_by=row["triggered_by"] or "",
        read=row["read"],
        published=row["published"],
        rejected=row["rejected"],
        filtered=row["filtered"],
        skipped=row["skipped"],
        applied=row["applied"],
        duplicate=row["duplicate"],
        dead=row["dead"],
        started_at=row["started_at"],
        completed_at=row["closed_at"],
        duration_s=None if row["duration_seconds"] is None else float(row["duration_seconds"]),
        awaiting_sink=not closed and row["reading_finished_at"] is not None,
        reason=row["reason"] or "",
        note=row["note"],
        waiting=row["waiting"],
        cancelled=row["cancelled_at"] is not None,
        asked=row["asked"],
        since=row["first_day"],
        until=row["last_day"],
        force=row["force"],
        details=json.loads(row["details"]) if row["details"] else None,
    )
