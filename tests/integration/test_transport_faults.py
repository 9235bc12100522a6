"""The slice transport while its broker fails, and on logs that take a broker of their own to make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests import services
from tests.integration.transport_kit import Bench, bench, until
from tillstream.embedded.kafka import EmbeddedKafka, KafkaOptions


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedKafka]:
    """One broker for this file, to be killed, frozen and started again; it compacts eagerly."""
    options = KafkaOptions(heap_mib=256, properties={"log.cleaner.backoff.ms": "100"})
    with services.open_directory() as folder:
        running = EmbeddedKafka(folder / "kafka", options=options)
        with services.started(running):
            yield running


@pytest.fixture
async def room(broker: EmbeddedKafka, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """A topic of two partitions on that broker, and its workers."""
    async with _room(broker, topic_prefix, tmp_path, partitions=2) as made:
        yield made


@asynccontextmanager
async def _room(
    broker: EmbeddedKafka, prefix: str, folder: Path, *, partitions: int, **config: str
) -> AsyncIterator[Bench]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{prefix}events", partitions, 1, topic_configs=config)])
    await admin.close()
    async with bench(broker.bootstrap, f"{prefix}events", folder) as made:
        yield made


async def test_holes_of_a_compacted_log_are_passed_and_its_end_is_committed(
    broker: EmbeddedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    compact = {"cleanup.policy": "compact", "segment.ms": "50", "min.cleanable.dirty.ratio": "0.01"}
    async with _room(
        broker, topic_prefix, tmp_path, partitions=1, **compact, **{"max.compaction.lag.ms": "100"}
    ) as room:
        for batch in range(20):
            await room.produce([b"%d" % batch] * 10, key=b"%d" % (batch % 3))
        await _compacted(room, fewer_than=100)

        room.worker(slices={"max_records": 2})

        await room.all_committed()
        assert {value for _, _, value in room.applied()} >= {"17", "18", "19"}
        assert len(room.done()) == len(room.applied())


async def _compacted(room: Bench, *, fewer_than: int) -> None:
    tp = TopicPartition(room.topic, 0)
    room.reader.assign([tp])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # The active segment is never compacted: a new record rolls it.
        await room.producer.send_and_wait(room.topic, b"roll", key=b"roll", partition=0)
        await room.reader.seek_to_beginning(tp)
        found, end = 0, (await room.reader.end_offsets([tp]))[tp]
        while await room.reader.position(tp) < end:
            found += sum(map(len, (await room.reader.getmany(timeout_ms=200)).values()))
        if found < fewer_than:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the broker did not compact the topic")


async def test_worker_outlives_its_broker_and_goes_on_when_it_is_back(broker: EmbeddedKafka, room: Bench) -> None:
    mood = {"slice_s": 0.02, "slices": {"max_records": 50}}
    worker, other = room.worker("one", **mood), room.worker("two", **mood)
    await worker.ready()
    await other.ready()
    total = await room.produce([b"%d" % number for number in range(3_000)], partitions=2)
    await until(lambda: len(room.applied()) > 500)

    broker.kill()
    await broker.start()

    await until(lambda: len(room.done()) == total, within_s=60)
    total += await room.produce([b"after"] * 2, partitions=2)
    await until(lambda: len(room.done()) == total, within_s=60)
    await room.all_committed(within_s=30)
    assert worker.process.poll() is None
    assert other.process.poll() is None


async def test_worker_stops_in_time_while_the_broker_does_not_answer(broker: EmbeddedKafka, room: Bench) -> None:
    worker = room.worker(slice_s=0.1, slices={"max_records": 10})
    await worker.ready()
    await room.produce([b"x"] * 400, partitions=2)
    await until(lambda: len(room.applied()) > 50)

    broker.freeze()
    try:
        asked_at = time.monotonic()
        status = await worker.stop()
        took_s = time.monotonic() - asked_at
    finally:
        broker.thaw()

    assert took_s < 40.0
    assert status == 0, worker.log()
    heir = room.worker("heir")
    await until(lambda: len(room.done()) == 400, what=heir.log())


async def test_worker_waits_for_a_broker_that_is_not_there_yet(broker: EmbeddedKafka, room: Bench) -> None:
    await room.produce([b"x"])
    broker.kill()
    try:
        impatient, worker = room.worker("impatient"), room.worker("worker")
        await until(lambda: "broker unreachable" in worker.log() and "broker unreachable" in impatient.log())
        assert await impatient.stop() == 0
    finally:
        await broker.start()

    await until(lambda: room.done() == {(0, 0)}, within_s=15)
    assert worker.log().count("broker unreachable") < 20


async def test_topic_made_anew_is_read_from_its_beginning(broker: EmbeddedKafka, room: Bench) -> None:
    worker = room.worker(app={"metadata_age_s": 0.5})
    await worker.ready()
    await room.produce([b"old"] * 30)
    await room.all_committed()

    await room.admin.delete_topics([room.topic])
    async with asyncio.timeout(60):  # the broker deletes in the background, and says nothing when it has
        while room.topic in await room.admin.list_topics():  # noqa: ASYNC110  it offers nothing to wait for
            await asyncio.sleep(0.05)
    await room.admin.create_topics([NewTopic(room.topic, 2, 1)])
    await room.produce([b"new"] * 10)

    await until(
        lambda: {offset for _, offset, value in room.applied() if value == "new"} == set(range(10)), within_s=30
    )
    await room.all_committed()
