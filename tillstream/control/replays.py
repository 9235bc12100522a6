"""
Replays as operators ask for them: a row each, done in the process that was asked. One whose heartbeat stopped was
interrupted; nothing of it is left, and it may be asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.errors import Conflict, NotFound, TillError
from sinks.pool import Pool, connection
from tillstream.control.attempt import attempt
from tillstream.control.replay import Report, Source, replay
from tillstream.control.statement import statements

logger = logging.getLogger(__name__)

BEAT_S = 5.0
SILENT_S = 30.0
_MOST_DIFFERENCES = 1_000  # that are kept; one is as good as all
_INTERRUPTED = "the process that did it has ended"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replayed: published from `since` and before `until`; `apply` mends what differs."""

    since: datetime | None = None
    until: datetime | None = None
    apply: bool = False
    deadline_s: float = 300.0
    requested_by: str = ""


@dataclass(frozen=True, slots=True)
class ReplayView:
    """One replay: running, equal, different, mended, failed or interrupted. `report` is there once it ended well."""

    id: UUID
    since: datetime | None
    until: datetime | None
    apply: bool
    requested_by: str
    started_at: datetime
    ended_at: datetime | None
    status: str
    # `Report` as JSON
    report: dict[str, Any] | None
    error: str


async def begin(pool: Pool, replay_id: UUID, wanted: Wanted) -> tuple[ReplayView, bool]:
    """
    Write down that it is under way, and whether that was new: then the caller carries it out. Again, it is found.

    Raises:
        Conflict: another one is under way. SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with attempt(pool, dry_run=False) as held:
        await held.execute("LOCK TABLE replays IN SHARE ROW EXCLUSIVE MODE")
        if (row := await held.fetchrow(statements()["find_replay"], replay_id, SILENT_S)) is not None:
            return _view(row), False
        other = await held.fetchval(statements()["replay_at_work"], SILENT_S)
        if other is not None:
            raise Conflict(f"replay {other} is under way", hint="wait for its end")
        arguments = (replay_id, wanted.since, wanted.until, wanted.apply, wanted.requested_by)
        await held.execute(statements()["make_replay"], *arguments)
        return _view(await held.fetchrow(statements()["find_replay"], replay_id, SILENT_S)), True


async def carry_out(pool: Pool, replay_id: UUID, source: Source, wanted: Wanted) -> None:
    """Do it, and write down how it ended. Cancelled, it is interrupted. Raises nothing but that."""
    beating = asyncio.create_task(_beat(pool, replay_id), name="heartbeat of a replay")
    status, told, error = "failed", None, ""
    try:
        report = await replay(
            source, since=wanted.since, until=wanted.until, apply=wanted.apply, deadline_s=wanted.deadline_s
        )
        status, told = _status(report), json.dumps(_told(report), default=str)
    except TillError as exc:
        error = f"{exc}; {exc.hint}"
    except asyncio.CancelledError:
        error = _INTERRUPTED
        raise
    except Exception:
        logger.exception("a replay failed unexpectedly", extra={"facts": {"replay": replay_id}})
        error = "an unexpected error: the log of the API tells more"
    finally:
        beating.cancel()
        with contextlib.suppress(TillError):  # who reads it then sees that its heart stopped
            async with connection(pool) as held:
                await held.execute(statements()["end_replay"], replay_id, status, told, error)


async def find(pool: Pool, replay_id: UUID) -> ReplayView:
    """
    This one.

    Raises:
        NotFound: there is none. SinkError: as routed.
    """
    async with connection(pool) as held:
        row = await held.fetchrow(statements()["find_replay"], replay_id, SILENT_S)
    if row is None:
        raise NotFound(f"there is no replay {replay_id}", hint="list them")
    return _view(row)


async def page(
    pool: Pool, *, after: tuple[datetime, UUID] | None = None, limit: int = 50
) -> tuple[list[ReplayView], tuple[datetime, UUID] | None]:
    """
    Replays, the newest first, after this place; and the place to go on after, None at the end.

    Raises:
        SinkError: as routed.
    """
    at, identifier = after or (None, None)
    async with connection(pool) as held:
        rows = await held.fetch(statements()["page_replays"], SILENT_S, at, identifier, limit + 1)
    found = [_view(row) for row in rows[:limit]]
    return found, (found[-1].started_at, found[-1].id) if len(rows) > limit else None


async def _beat(pool: Pool, replay_id: UUID) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        with contextlib.suppress(TillError):  # the next one may get through
            async with connection(pool) as held:
                await held.execute(statements()["beat_replay"], replay_id)


def _status(report: Report) -> str:
    if not report.differences:
        return "equal"
    return "mended" if report.mended is not None and not report.left else "different"


def _told(report: Report) -> dict[str, object]:
    return {
        "topic": report.range.topic,
        "starts": report.range.starts,
        "ends": report.range.ends,
        "records": report.replayed.records,
        "dead": dict(report.replayed.dead),
        "equal": not report.differences,
        "differences": [asdict(each) for each in report.differences[:_MOST_DIFFERENCES]],
        "mended": None if report.mended is None else asdict(report.mended),
        "left": len(report.left),
    }


# asyncpg's records are mappings of anything
def _view(row: Mapping[str, Any]) -> ReplayView:
    is_silent = row["status"] == "running" and row["silent"]
    return ReplayView(
        id=row["id"],
        since=row["since"],
        until=row["until"],
        apply=row["apply"],
        requested_by=row["requested_by"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        status="interrupted" if is_silent or row["error"] == _INTERRUPTED else row["status"],
        report=None if row["report"] is None else json.loads(row["report"]),
        error=_INTERRUPTED if is_silent else row["error"],
    )
