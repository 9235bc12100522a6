"""The thin path: published events become payments, through a real broker, the Faust app and a real database."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from connectors.ports import Message
from schemas.codec import HEADER_EVENT, HEADER_RUN, encode_event
from schemas.event import ConnectorEvent
from schemas.identity import foreign_id
from schemas.letter import DeadLetter
from schemas.metric import NullMeter
from schemas.payment import PaymentPayload, PaymentType, Status
from schemas.topic import Topics, sink_app_id, topics
from sinks.postgres import PostgresSink
from streams import payments
from streams.app import AppSettings, live, make_app
from streams.ingest import Ingest
from streams.lag import LagProbe
from streams.process import Stop
from streams.provision import provision
from streams.publisher import EventPublisher, LetterPublisher, Producer
from streams.reader import find_range, read
from streams.redrive import again, redrive, redrive_event_id
from tests.database import migrated
from tests.services import Kafka

RUN = uuid4()


@pytest.fixture
async def table(kafka: Kafka, topic_prefix: str) -> Topics:
    found = topics(topic_prefix)
    await provision(kafka.bootstrap, found.all())
    return found


@pytest.fixture
async def producer(kafka: Kafka) -> AsyncIterator[Producer]:
    async with Producer(kafka.bootstrap) as made:
        yield made


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    await migrated(database)
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as made:
        yield made


def message(number: int, *, status: Status = Status.SUCCEEDED, run: UUID = RUN) -> Message:
    payment = PaymentPayload(
        provider="example",
        reference=f"P{number}",
        type=PaymentType.PAYIN,
        status=status,
        amount=100 + number,
        asset="USD",
    )
    event = ConnectorEvent(
        id=f"e{number}-{status.value}",
        foreign_id=foreign_id("example", f"P{number}"),
        type=f"payment.{status.value}",
        created_at=datetime(2025, 1, 10, tzinfo=UTC),
        payment=payment,
    )
    headers = [(HEADER_EVENT, event.id.encode()), (HEADER_RUN, str(run).encode())]
    return Message(event.foreign_id.encode(), encode_event(event), headers)


@asynccontextmanager
async def sink_role(kafka: Kafka, table: Topics, prefix: str, dsn: str, producer: Producer) -> AsyncIterator[Ingest]:
    sink = await PostgresSink.open(dsn)
    ingest = Ingest(sink, LetterPublisher(producer, table), NullMeter(), first_breaker_pause_s=0.1)
    app = make_app(sink_app_id(prefix), AppSettings(bootstrap=kafka.bootstrap, session_timeout_s=3.0, heartbeat_s=1.0))
    payments.register(app, table, ingest, sink_offsets=sink.next_offsets)
    stop = Stop(stop_within_s=3_600)  # the bound ends processes, and this one is pytest's
    running = asyncio.create_task(
        live(app, stop, held=lambda: [(place.topic, place.partition) for place in ingest.holds])
    )
    try:
        yield ingest
    finally:
        stop.request(0)
        assert await asyncio.wait_for(running, 15) == 0
        await sink.close()


async def until(pool: asyncpg.Pool, query: str, expected: object, *, seconds: float = 30.0) -> None:
    found: object = None
    async with asyncio.timeout(seconds):
        while True:
            found = await pool.fetchval(query)
            if found == expected:
                return
            await asyncio.sleep(0.05)


async def test_published_events_become_payments_and_the_lag_goes_to_zero(
    kafka: Kafka, table: Topics, topic_prefix: str, database: str, pool: asyncpg.Pool, producer: Producer
) -> None:
    publisher = EventPublisher(producer, table)
    await publisher.publish([message(n) for n in range(2_000)])

    async with sink_role(kafka, table, topic_prefix, database, producer), LagProbe(kafka.bootstrap) as probe:
        await until(pool, "SELECT count(*) FROM payments", 2_000)
        await publisher.publish([message(n) for n in range(500)])
        await publisher.publish([message(n, status=Status.PENDING) for n in range(500)])
        await until(pool, "SELECT count(*) FROM payment_events", 2_500)
        async with asyncio.timeout(20):
            lags = await probe.measure(sink_app_id(topic_prefix), table.events.name)
            while any(lag.lag_events for lag in lags):
                lags = await probe.measure(sink_app_id(topic_prefix), table.events.name)

    assert sum(lag.committed or 0 for lag in lags) == 3_000
    ledger = await pool.fetch("SELECT outcome, sum(events)::int FROM run_ledger WHERE run = $1 GROUP BY 1", RUN)
    assert dict(ledger) == {"applied": 2_500}
    assert await pool.fetchval("SELECT count(*) FROM payments WHERE status = 'succeeded'") == 2_000


async def test_garbage_becomes_a_letter_that_can_be_read_and_redriven(
    kafka: Kafka, table: Topics, topic_prefix: str, database: str, pool: asyncpg.Pool, producer: Producer
) -> None:
    good = message(1)
    bad = Message(good.key, b"{garbage", good.headers)
    await EventPublisher(producer, table).publish([message(0), bad, message(2)])

    async with sink_role(kafka, table, topic_prefix, database, producer):
        await until(pool, "SELECT coalesce(sum(events), 0)::int FROM run_ledger", 3)
        letters = await letters_of(kafka, table)
        mended = letters[0].model_copy(update={"value": b64encode(good.value).decode()})
        run_id = uuid4()
        await redrive(producer, table, [again(mended, table, run_id=run_id, attempt=1)])
        await until(pool, "SELECT count(*) FROM payments", 3)

    assert [(letter.reason, letter.value_bytes()) for letter in letters] == [("undecodable", b"{garbage")]
    assert await pool.fetchval("SELECT event_id FROM payment_events WHERE run = $1", run_id) == redrive_event_id(
        letters[0].id, 1
    )


async def letters_of(kafka: Kafka, table: Topics) -> Sequence[DeadLetter]:
    wanted = await find_range(kafka.bootstrap, table.dead_letters.name)
    found = []
    async for batch in read(kafka.bootstrap, wanted):
        found += [DeadLetter.model_validate_json(record.value or b"") for record in batch.records]
    return found
