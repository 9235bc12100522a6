"""Repeats of runs that closed long ago become a count, and no ledger is the worse for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from schemas.identity import digest_sum, event_digest
from sinks.base import Applied, Dead, Place, Record
from sinks.ledger import Hop, verify
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from sinks.prune import prune_repeats
from sinks.replay import mend, shadow
from tests.model.history import CONNECTOR, PLACE, RUN, record

MONTH = timedelta(days=30)
AGAIN, OPEN, UNKNOWN = UUID(int=2), UUID(int=3), UUID(int=4)
EVENTS = ("e1", "e2", "e3")
ELSEWHERE = Place(PLACE.topic, 1)


def slice_of(run: UUID) -> list[Record]:
    return [record("succeeded", reference=event, event_id=event, run=run) for event in EVENTS]


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    """One run brought three events; a closed one, an open one and one that nobody knows brought the same again."""
    await migrate(database)
    opened = await PostgresSink.open(database)
    await opened.pool.execute(
        "INSERT INTO connectors (id, name, kind, provider) VALUES ($1, 'acme', 'directory', 'acme')", CONNECTOR
    )
    for run in (RUN, AGAIN, OPEN):
        await opened.pool.execute(
            "INSERT INTO connector_runs"
            " (id, connector_id, read, published, published_sum, reading_finished_at, closed_at)"
            " VALUES ($1, $2, 3, 3, $3, now(), CASE WHEN $4 THEN now() END)",
            run,
            CONNECTOR,
            digest_sum(event_digest(event) for event in EVENTS),
            run != OPEN,
        )
    for offset, run in enumerate((RUN, AGAIN, OPEN, UNKNOWN), start=1):
        await opened.apply(PLACE, slice_of(run), next_offset=3 * offset)
    yield opened
    await opened.close()


async def grow_old(sink: PostgresSink, days: int = 31) -> None:
    await sink.pool.execute(f"UPDATE connector_runs SET closed_at = closed_at - interval '{days} days'")
    await sink.pool.execute(f"UPDATE event_repeats SET first_seen_at = first_seen_at - interval '{days} days'")


async def prune(sink: PostgresSink) -> int:
    return await prune_repeats(sink.pool, older_than=MONTH, most=1_000)


async def repeats(sink: PostgresSink) -> dict[UUID, int]:
    return dict(await sink.pool.fetch("SELECT run, count(*) FROM event_repeats GROUP BY run"))


async def test_a_run_that_closed_long_ago_loses_its_repeats_and_its_ledger_balances_all_the_same(
    sink: PostgresSink,
) -> None:
    await grow_old(sink)

    assert await prune(sink) == 3

    assert await repeats(sink) == {OPEN: 3, UNKNOWN: 3}
    assert await verify(sink.pool) == []
    assert await prune(sink) == 0


async def test_nothing_is_pruned_before_its_time(sink: PostgresSink) -> None:
    await grow_old(sink, days=29)

    assert await prune(sink) == 0


async def test_a_repeat_that_came_lately_stays_though_its_run_closed_long_ago(sink: PostgresSink) -> None:
    await grow_old(sink)
    await sink.pool.execute("UPDATE event_repeats SET first_seen_at = now() WHERE log_offset = 0")

    assert await prune(sink) == 0


async def test_pruning_goes_in_small_batches_that_add_up(sink: PostgresSink) -> None:
    await grow_old(sink)

    pruned = [await prune_repeats(sink.pool, older_than=MONTH, most=2) for _ in range(3)]

    assert pruned == [2, 1, 0]
    assert await verify(sink.pool) == []


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE pruned_repeats SET events = events + 1",
        "UPDATE pruned_repeats SET digest_sum = digest_sum + 1",
        "DELETE FROM pruned_repeats",
        "UPDATE run_ledger SET events = 2 WHERE run = '{run}'",
    ],
)
async def test_what_is_left_of_pruned_repeats_is_verified_as_rows_are(sink: PostgresSink, tampering: str) -> None:
    await grow_old(sink)
    await prune(sink)

    await sink.pool.execute(tampering.format(run=AGAIN))

    assert (Hop.LEDGER, AGAIN) in {(one.hop, one.run) for one in await verify(sink.pool)}


async def test_what_is_redelivered_of_a_pruned_run_counts_nowhere(sink: PostgresSink) -> None:
    """A group whose offsets are lost reads its log from the beginning."""
    await grow_old(sink)
    await prune(sink)

    applied = await sink.apply(PLACE, slice_of(AGAIN), next_offset=3)
    died = await sink.apply(PLACE, [], [Dead("e1", AGAIN, 3, "letter", "undecodable")], next_offset=3)

    assert (applied, died) == (Applied(redelivered=3), Applied(redelivered=1))
    assert await sink.is_counted(PLACE, slice_of(AGAIN)[0])
    assert await verify(sink.pool) == []


async def test_mending_from_the_log_brings_no_pruned_repeat_back(sink: PostgresSink, database: str) -> None:
    await grow_old(sink)
    await prune(sink)
    await sink.pool.execute("DELETE FROM payment_events WHERE event_id = 'e2'")

    async with shadow(database, "prune") as other:
        for run in (RUN, AGAIN, OPEN, UNKNOWN):
            await other.apply(PLACE, slice_of(run), next_offset=None)
        mended = await mend(sink, other.schema)

    assert (mended.events, mended.repeats) == (1, 0)
    assert await repeats(sink) == {OPEN: 3, UNKNOWN: 3}
    assert await verify(sink.pool) == []


async def test_pruning_leaves_a_partition_alone_that_is_at_work_and_comes_back(sink: PostgresSink) -> None:
    await grow_old(sink)

    async with sink.locked(PLACE) as held:
        meanwhile = await asyncio.wait_for(prune(sink), 20)
        await held.execute("COMMIT")

    assert (meanwhile, await prune(sink)) == (0, 3)


async def test_repeats_of_several_partitions_are_pruned_one_after_the_other(sink: PostgresSink) -> None:
    await sink.apply(ELSEWHERE, [record("failed", reference="x", event_id="x")], next_offset=1)
    await sink.apply(ELSEWHERE, [record("failed", reference="x", event_id="x", run=AGAIN)], next_offset=2)
    await grow_old(sink)

    pruned = [await prune(sink) for _ in range(3)]

    assert sorted(pruned) == [0, 1, 3]
    # x came under runs that do not know of it: that, and nothing else, is told
    assert {(one.hop, one.run) for one in await verify(sink.pool)} == {(Hop.TOPIC, RUN), (Hop.TOPIC, AGAIN)}
