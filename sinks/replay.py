"""
The SQL side of replay: shadow tables that the same statement fills, their comparison with the live ones, and mending.

Mending inserts what is missing, counts and folds again; it never deletes an event, never swaps tables, and publishes
nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from sinks.base import Place
from sinks.pool import WHOLE_TABLE_S, Connection, Pool, connection, snapshot
from sinks.postgres import PostgresSink
from sinks.statement import statements

logger = logging.getLogger(__name__)

_PREFIX = "replay_"
_NAME = re.compile(r"[a-z0-9_]{1,40}", re.ASCII)
_MOST = 1_000  # differences of one kind; beyond that, one is as good as all


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the log and the live tables disagree on. `run` is None where it is about a payment."""

    problem: str
    subject: str
    run: UUID | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """What mending wrote."""

    events: int = 0
    repeats: int = 0
    deaths: int = 0
    payments: int = 0


@asynccontextmanager
async def shadow(dsn: str, replay_id: str, *, pool_size: int = 4) -> AsyncIterator[PostgresSink]:
    """
    A sink on empty shadow tables of their own schema, dropped at the end. Those that nobody owns any more go first.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
        ValueError: `replay_id` is more than letters, digits and underscores.
    """
    if not _NAME.fullmatch(replay_id):
        raise ValueError(f"{replay_id!r} is not a plain name")
    schema = _PREFIX + replay_id
    sink = await PostgresSink.open(dsn, pool_size=pool_size + 1, schema=schema)
    try:
        async with connection(sink.pool) as owner:  # the lock lives as long as its connection, however we end
            await owner.execute(statements()["own_shadow"], schema)
            for left_behind in await _left_behind(owner):
                logger.info("a replay left its tables behind: dropped", extra={"facts": {"schema": left_behind}})
                await _drop(owner, left_behind)
            async with owner.transaction():
                await owner.execute(statements(schema)["create_shadow"])
            try:
                yield sink
            finally:
                async with connection(sink.pool) as held:
                    await held.execute(statements(schema)["drop_shadow"])
    finally:
        await sink.close()


async def leftovers(pool: Pool) -> list[str]:
    """
    Schemas of replays that ended without dropping theirs, such as by kill -9. The next replay drops them.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return await _left_behind(held)


async def _left_behind(held: Connection) -> list[str]:
    return [row["schema"] for row in await held.fetch(statements()["left_behind"])]


async def _drop(held: Connection, schema: str) -> None:
    """Drop the schema, unless another replay is just about to."""
    if await held.fetchval(statements()["take_shadow"], schema):
        await held.execute(statements(schema)["drop_shadow"])
        await held.execute(statements()["leave_shadow"], schema)


async def compare(
    pool: Pool, shadow_schema: str, *, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
) -> list[Difference]:
    """
    What the shadow and the live tables disagree on, from one snapshot; an empty list is the proof.

    Every outcome of the shadow, of every event under every run, exists live; every live event that was first seen in
    the range exists in the shadow; live payments are the fold of live events. `starts` and `ends` are the offsets
    that were read, by partition.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements(shadow_schema)
    partitions = sorted(ends)
    bounds = ([starts[partition] for partition in partitions], [ends[partition] for partition in partitions])
    async with snapshot(pool) as held:
        lacking = await held.fetch(sql["missing_outcomes"], _MOST, timeout=WHOLE_TABLE_S)
        events = await held.fetch(sql["missing_events"], topic, partitions, *bounds, _MOST, timeout=WHOLE_TABLE_S)
        payments = await held.fetch(statements()["verify_payments"], _MOST, timeout=WHOLE_TABLE_S)
    return [
        *(Difference("in the log, not in the tables", row["event_id"], row["run"]) for row in lacking),
        *(Difference("in the tables, not in the log", row["event_id"], row["run"]) for row in events),
        *(Difference(f"payment {row['problem']}", row["id"]) for row in payments),
    ]


async def mend(live: PostgresSink, shadow_schema: str) -> Mended:
    """
    Insert what the shadow has and the live tables lack, recount its runs, fold again what is not its events' fold.

    One transaction per partition, under its lock, beside the live consumer.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it; what was mended stays, and mending again goes on.
    """
    async with connection(live.pool) as held:
        partitions = await held.fetch(statements(shadow_schema)["shadow_partitions"])
    total = Mended()
    for row in partitions:
        part = await _insert_missing(live, shadow_schema, Place(row["topic"], row["log_partition"]))
        total = _plus(total, part)
    return _plus(total, await refold(live))


async def refold(live: PostgresSink) -> Mended:
    """
    Fold again every payment that is not the fold of its events, each under the lock of its partition.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with snapshot(live.pool) as held:
        wrong = await held.fetch(statements()["wrong_payments"], timeout=WHOLE_TABLE_S)
    changed = 0
    for (topic, partition), rows in groupby(wrong, key=lambda row: (row["topic"], row["log_partition"])):
        async with live.locked(Place(topic, partition)) as held:
            digests = [row["payment"] for row in rows]
            changed += await held.fetchval(statements()["refold"], digests, timeout=WHOLE_TABLE_S)
            await held.execute("COMMIT")
    return Mended(payments=changed)


async def _insert_missing(live: PostgresSink, shadow_schema: str, place: Place) -> Mended:
    async with live.locked(place) as held:
        await held.execute(f"SET LOCAL statement_timeout = {round(WHOLE_TABLE_S * 1000)}")
        where = (place.topic, place.partition)
        found = await held.fetchrow(statements(shadow_schema)["insert_missing"], *where, timeout=WHOLE_TABLE_S)
        payments: Sequence[UUID] = found["payments"]
        changed = 0
        if payments:
            changed = await held.fetchval(statements()["refold"], payments, timeout=WHOLE_TABLE_S)
        if found["runs"]:
            await held.execute(statements()["recount"], *where, found["runs"], timeout=WHOLE_TABLE_S)
        await held.execute("COMMIT")
    return Mended(found["events"], found["repeats"], found["deaths"], changed)


def _plus(one: Mended, other: Mended) -> Mended:
    return Mended(
        one.events + other.events,
        one.repeats + other.repeats,
        one.deaths + other.deaths,
        one.payments + other.payments,
    )
