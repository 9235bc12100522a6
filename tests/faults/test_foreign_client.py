"""A topic that another team's client writes: any compression, no headers of ours, its own partitioner and values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from streams.partition import partition_of
from tests.faults.stage import Stage, open_stage
from tests.faults.truth import History, Sent
from tests.services import Kafka

PARTITIONS = 4
NONSENSE = (("till-event", b"\xff" * 300), ("till-run", b"not a uuid"), ("traceparent", b"00-1"))


@pytest.fixture
async def stage(kafka: Kafka, database: str) -> AsyncIterator[Stage]:
    async with open_stage(kafka.bootstrap, database, partitions=PARTITIONS) as made:
        yield made


async def test_every_compression_is_read_and_garbage_tombstones_and_keyless_records_die_alone(stage: Stage) -> None:
    history = History(seed=17, foreign=True)
    for codec in ("zstd", "lz4", "gzip", "snappy"):
        async with _client(stage, compression_type=codec) as client:
            odd = [history.garbage(), history.tombstone(), history.keyless(), _nonsense(history)]
            await _send(client, stage, [*history.load(60, refused=1), *odd])

    worker = stage.worker("sink")
    await stage.check(history.truth)

    assert worker.log.count("fetch failed") == 0
    assert await worker.stop() == 0


async def test_keys_in_other_partitions_than_ours_would_choose_are_payments_all_the_same(stage: Stage) -> None:
    history = History(seed=18, foreign=True)
    elsewhere = lambda key, every, _: every[(partition_of(key, len(every)) + 1) % len(every)]  # noqa: E731
    async with _client(stage, partitioner=elsewhere) as client:
        await _send(client, stage, history.load(200, refused=2))

    worker = stage.worker("sink")
    await stage.check(history.truth)

    assert await worker.stop() == 0


async def test_one_payment_scattered_over_all_partitions_is_one_payment(stage: Stage) -> None:
    history = History(seed=19, foreign=True)
    records = history.load(400)
    for number in range(PARTITIONS):
        await stage.publish(records[number::PARTITIONS], partition=number)

    worker = stage.worker("sink")
    await stage.check(history.truth)

    assert await worker.stop() == 0


@asynccontextmanager
async def _client(stage: Stage, **options: object) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=stage.bootstrap, acks="all", linger_ms=20, **options)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def _send(client: AIOKafkaProducer, stage: Stage, records: Sequence[Sent]) -> None:
    acks = [await client.send(stage.events, sent.value, key=sent.key, headers=list(sent.headers)) for sent in records]
    await client.flush()
    await asyncio.gather(*acks)


def _nonsense(history: History) -> Sent:
    """A good event under headers that only look like ours."""
    return history.good(headers=NONSENSE)
