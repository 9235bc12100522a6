"""A payment that seems new and is not: the short way for payments first seen fails, and the careful one takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from sinks.base import Applied, Place, Record
from sinks.ledger import verify
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from tests.model.history import PLACE, record
from tests.services import Postgres
from tillstream.embedded.process import holds

OTHER_PLACE = Place(PLACE.topic, 1)
SOON_S = 10.0
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


async def both_at_once(sink: PostgresSink, first: Sequence[Record], second: Sequence[Record]) -> Applied:
    """What the second partition's call did, having waited for the first one's commit."""
    async with sink.locked(PLACE) as held:
        prepared = sink.prepare(first)
        await held.fetchrow(sink._sql["apply_records"], PLACE.topic, 0, 1, *prepared.waves[0].parameters(PLACE))
        waiting = asyncio.create_task(sink.apply(OTHER_PLACE, second, next_offset=1))
        assert await holds(lambda: sink.pool.fetchval(WAITING), within_s=SOON_S)
        await held.execute("COMMIT")
    return await waiting


async def test_a_payment_first_seen_by_two_partitions_at_once_holds_both_events(sink: PostgresSink) -> None:
    applied = await both_at_once(sink, [record("succeeded", 100, at=1)], [record("refunded", 30, at=2)])

    assert applied == Applied(applied=1)
    assert await sink.pool.fetchval("SELECT amount FROM payments") == 70
    assert await verify(sink.pool) == []


async def test_a_payments_row_without_events_is_overwritten_by_what_events_say(sink: PostgresSink) -> None:
    """Somebody deleted event rows by hand, or wrote a payment."""
    await sink.apply(PLACE, [record("failed", 5, event_id="e")], next_offset=1)
    await sink.pool.execute("DELETE FROM payment_events")

    assert await sink.apply(PLACE, [record("succeeded", 100)], next_offset=2) == Applied(applied=1)
    assert await sink.pool.fetchval("SELECT status FROM payments") == "succeeded"


async def test_a_natural_key_that_somebody_added_refuses_the_record_and_not_the_slice_for_ever(
    sink: PostgresSink, postgres: Postgres
) -> None:
    await sink.pool.execute("CREATE UNIQUE INDEX ON payments (reference)")
    await sink.apply(PLACE, [record("succeeded", provider="one")], next_offset=1)

    with pytest.raises(Exception, match="duplicate key") as told:
        await sink.apply(PLACE, [record("succeeded", provider="two")], next_offset=2)

    assert getattr(told.value, "sqlstate", "") == "23505"
