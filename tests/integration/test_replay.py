"""The replay service on a real broker and database: a sink that is behind, ranges in time, and mending."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from connectors.ports import Message
from schemas.codec import encode_event
from schemas.errors import ConfigError, TimedOut
from schemas.event import ConnectorEvent
from schemas.identity import foreign_id
from schemas.payment import PaymentPayload, PaymentType, Status
from schemas.topic import Topics, topics
from sinks.ledger import verify
from sinks.postgres import PostgresSink
from streams.provision import provision
from streams.publisher import EventPublisher, Producer
from streams.reader import find_range
from streams.replay import replay as apply_live
from tests.database import migrated
from tests.services import Kafka
from tillstream.control.replay import Source, replay


def message(number: int) -> Message:
    payment = PaymentPayload(
        provider="example",
        reference=f"P{number}",
        type=PaymentType.PAYIN,
        status=Status.SUCCEEDED,
        amount=number,
        asset="USD",
    )
    event = ConnectorEvent(
        id=f"e{number}",
        foreign_id=foreign_id("example", f"P{number}"),
        type="payment.succeeded",
        created_at=datetime(2025, 1, 10, tzinfo=UTC),
        payment=payment,
    )
    return Message(event.foreign_id.encode(), encode_event(event), [])


@pytest.fixture
async def table(kafka: Kafka, topic_prefix: str) -> Topics:
    found = topics(topic_prefix.rstrip("."), partitions=2)
    await provision(kafka.bootstrap, found.all())
    return found


@pytest.fixture
async def source(kafka: Kafka, table: Topics, database: str) -> Source:
    await migrated(database)
    async with Producer(kafka.bootstrap) as producer:
        await EventPublisher(producer, table).publish([message(n) for n in range(200)])
    return Source(kafka.bootstrap, table.events.name, database)


async def catch_up(source: Source) -> None:
    """What the live sink does."""
    sink = await PostgresSink.open(source.dsn)
    await apply_live(source.bootstrap, await find_range(source.bootstrap, source.topic), sink)
    await sink.close()


async def test_a_replay_waits_for_the_live_sink_and_names_the_partition_that_blocks(source: Source) -> None:
    with pytest.raises(TimedOut) as caught:
        await replay(source, deadline_s=0.5)

    assert f"{source.topic} partition 0 blocks: the sink stands at offset 0" in str(caught.value)
    assert "till topic lag" in caught.value.hint


async def test_a_replay_goes_on_as_soon_as_the_live_sink_has_passed_the_range(source: Source) -> None:
    waiting = asyncio.create_task(replay(source, deadline_s=60))
    await asyncio.sleep(0)

    await catch_up(source)

    report = await waiting
    assert (report.replayed.records, report.differences, report.mended) == (200, [], None)


async def test_a_range_that_ends_before_it_begins_is_refused(source: Source) -> None:
    now = datetime.now(UTC)

    with pytest.raises(ConfigError, match="ends before it begins"):
        await replay(source, since=now, until=now - timedelta(hours=1))


async def test_a_range_in_time_holds_what_was_published_in_it(source: Source, kafka: Kafka, table: Topics) -> None:
    await catch_up(source)
    between = datetime.now(UTC)
    async with Producer(kafka.bootstrap) as producer:
        await EventPublisher(producer, table).publish([message(n) for n in range(200, 230)])
    await catch_up(source)

    before = await replay(source, until=between)
    after = await replay(source, since=between)

    assert (before.replayed.records, after.replayed.records) == (200, 30)
    assert (before.differences, after.differences) == ([], [])


async def test_what_the_tables_lack_is_found_and_with_apply_brought_back_and_nothing_is_left_behind(
    source: Source,
) -> None:
    await catch_up(source)
    sink = await PostgresSink.open(source.dsn)
    await sink.pool.execute("DELETE FROM payment_events WHERE reference IN ('P7', 'P8')")
    await sink.pool.execute("DELETE FROM payments WHERE reference IN ('P8', 'P9')")

    told = await replay(source)
    mended = await replay(source, apply=True)
    again = await replay(source)

    assert told.mended is None
    assert told.left == told.differences != []
    assert mended.mended is not None
    assert (mended.mended.events, mended.left) == (2, [])
    assert again.differences == []
    assert await sink.pool.fetchval("SELECT count(*) FROM payments") == 200
    schemas = await sink.pool.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'replay%'")
    assert schemas == []
    await sink.close()


async def test_what_died_stays_in_its_letter_also_where_it_would_go_through_now(source: Source) -> None:
    """
    Inserting it would give the event two outcomes: the ledger counted it dead. A redrive brings it back.
    """
    sink = await PostgresSink.open(source.dsn)
    await sink.pool.execute("ALTER TABLE payments ADD CONSTRAINT not_five CHECK (amount <> 5)")
    await catch_up(source)
    await sink.pool.execute("ALTER TABLE payments DROP CONSTRAINT not_five")
    await sink.pool.execute("DELETE FROM payment_events WHERE reference = 'P7'")

    told = await replay(source)
    mended = await replay(source, apply=True)

    assert len(told.differences) == 2  # the event, and the payment that is not its events' fold
    assert mended.mended is not None
    assert (mended.mended.events, mended.left) == (1, [])
    assert await sink.pool.fetchval("SELECT count(*) FROM event_deaths") == 1
    assert await sink.pool.fetchval("SELECT count(*) FROM payments") == 199
    assert await verify(sink.pool) == []
    await sink.close()
