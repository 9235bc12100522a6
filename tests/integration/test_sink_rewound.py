"""A database that is restored under a sink at work: no transaction goes on above the gap."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from schemas.errors import Disposition, SinkRewound
from sinks.base import Dead, Place, Record
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from tests.model.history import PLACE, RUN, record

ELSEWHERE = Place(PLACE.topic, 1)
RESTORED = "UPDATE sink_offsets SET next_offset = 5 WHERE log_partition = 0"


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    """It has stored partition 0 up to 10, and partition 1 up to 3."""
    await migrate(database)
    opened = await PostgresSink.open(database)
    await opened.apply(PLACE, [record("succeeded")], next_offset=10)
    await opened.apply(ELSEWHERE, [record("succeeded")], next_offset=3)
    yield opened
    await opened.close()


@pytest.mark.parametrize("restored", [RESTORED, "DELETE FROM sink_offsets"])
@pytest.mark.parametrize(
    ("records", "dead"),
    [
        ([record("succeeded", reference="new")], []),
        ([], [Dead("e", RUN, 11, "letter", "undecodable")]),
        ([], []),
    ],
    ids=["records", "deaths", "nothing"],
)
async def test_nothing_is_stored_above_a_gap(
    sink: PostgresSink, restored: str, records: list[Record], dead: list[Dead]
) -> None:
    await sink.pool.execute(restored)
    before = await counted(sink)

    for _ in range(2):
        with pytest.raises(SinkRewound) as caught:
            await sink.apply(PLACE, records, dead, next_offset=12)

    assert caught.value.disposition is Disposition.CRASH
    assert await counted(sink) == before


async def test_a_sink_that_starts_where_the_database_stands_goes_on(sink: PostgresSink) -> None:
    await sink.pool.execute(RESTORED)
    with pytest.raises(SinkRewound):
        await sink.apply(PLACE, [], next_offset=12)

    assert await sink.next_offsets(PLACE.topic) == {0: 5, 1: 3}
    await sink.apply(PLACE, [record("failed", reference="between")], next_offset=12)

    assert await sink.next_offsets(PLACE.topic) == {0: 12, 1: 3}


async def test_other_partitions_and_what_another_worker_has_stored_are_no_gap(sink: PostgresSink) -> None:
    await sink.pool.execute("UPDATE sink_offsets SET next_offset = 90 WHERE log_partition = 1")

    await sink.apply(ELSEWHERE, [record("failed", reference="a")], next_offset=4)
    await sink.apply(PLACE, [record("failed", reference="b")], next_offset=4)
    await sink.apply(PLACE, [record("failed", reference="c")], next_offset=None)

    assert await sink.next_offsets(PLACE.topic) == {0: 10, 1: 90}


async def test_a_partition_that_nobody_stored_before_is_no_gap(sink: PostgresSink) -> None:
    assert await sink.next_offsets("another") == {}

    await sink.apply(Place("another", 0), [record("failed", reference="a")], next_offset=7)

    assert await sink.next_offsets("another") == {0: 7}
    assert await sink.next_offsets(PLACE.topic) == {0: 10, 1: 3}


async def counted(sink: PostgresSink) -> list[int]:
    tables = ("payment_events", "payments", "event_deaths", "run_ledger", "sink_offsets")
    return [await sink.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
