"""A broker that is not there yet, and one that is killed while everybody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from connectors.ports import Message
from schemas.errors import BrokerUnavailable
from schemas.metric import PRODUCER_REBUILDS_TOTAL, Metric, NullMeter
from streams.backoff import Backoff
from streams.publisher import EventPublisher, Producer
from tests import services
from tests.faults import oracle
from tests.faults.stage import Stage, connect, open_stage, until
from tests.faults.truth import History, Sent
from tillstream.embedded.kafka import EmbeddedKafka, KafkaOptions

BATCH = 60
GIVE_UP_S = 2.0  # shorter than the broker is away, so that a producer does give up


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedKafka]:
    """One broker for this file, to be killed and started again."""
    with services.open_directory() as folder:
        running = EmbeddedKafka(folder / "kafka", options=KafkaOptions(heap_mib=256))
        with services.started(running):
            yield running


class Rebuilds(NullMeter):
    """Counts the producers that were given up."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        self.count += metric is PRODUCER_REBUILDS_TOTAL


async def test_a_worker_waits_for_a_broker_that_is_not_there_and_says_so(broker: EmbeddedKafka, database: str) -> None:
    history = History(seed=4)
    broker.kill()
    try:
        async with open_stage(broker.bootstrap, database, provisioned=False) as stage:
            worker = stage.worker("early")
            await worker.waits_for("kafka")

            await broker.start()
            await connect(stage)
            await worker.ready()
            await stage.publish(history.load(50, garbage=1))
            await stage.check(history.truth)

            assert worker.log.count("waiting") < 5
            assert await worker.stop() == 0
    finally:
        if not broker.alive:
            await broker.start()


async def test_a_broker_killed_under_load_loses_nothing_that_it_acknowledged(
    broker: EmbeddedKafka, database: str
) -> None:
    history, rebuilds = History(seed=5), Rebuilds()
    published: list[Sent] = []
    async with (
        open_stage(broker.bootstrap, database) as stage,
        Producer(broker.bootstrap, meter=rebuilds, deadline_s=GIVE_UP_S) as producer,
    ):
        publisher = EventPublisher(producer, stage.topics)
        worker = stage.worker("patient")
        await worker.ready()
        load = asyncio.create_task(_publish(publisher, history, published, batches=120))
        await until(lambda: len(published) > 20 * BATCH)

        # Frozen first: what it has not read yet, nobody ever reads.
        broker.freeze()
        await until(lambda: rebuilds.count, what="the publisher notices")
        broker.kill()
        await broker.start()
        await asyncio.wait_for(load, 240)
        await stage.drained()

        await stage.judge(history.truth, resent=True)
        assert await _first_of_each(stage) == _in_order(published)
        assert await worker.stop() == 0


async def test_a_producer_that_was_given_up_leaves_no_task_and_no_connection(
    broker: EmbeddedKafka, database: str
) -> None:
    history = History(seed=20)
    before = asyncio.all_tasks()
    async with (
        open_stage(broker.bootstrap, database) as stage,
        Producer(broker.bootstrap, deadline_s=GIVE_UP_S) as producer,
    ):
        stages = asyncio.all_tasks() - before
        publisher = EventPublisher(producer, stage.topics)
        await publisher.publish(_messages([history.good()]))

        broker.freeze()
        try:
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(_messages([history.good()]))
            await until(lambda: not asyncio.all_tasks() - stages - before, within_s=10)
        finally:
            broker.thaw()
        await publisher.publish(_messages([history.good()]))


def _messages(batch: Sequence[Sent]) -> list[Message]:
    return [Message(sent.key or b"", sent.value or b"", sent.headers) for sent in batch]


async def _publish(publisher: EventPublisher, history: History, published: list[Sent], *, batches: int) -> None:
    """As a runner does: one batch at a time, again until it is acknowledged."""
    for _ in range(batches):
        batch, backoff = history.load(BATCH // 3), Backoff()
        while True:
            try:
                await publisher.publish(_messages(batch))
            except BrokerUnavailable:
                await asyncio.sleep(backoff.next_s())
            else:
                break
        published += batch


async def _first_of_each(stage: Stage) -> dict[bytes, list[tuple[bytes, ...]]]:
    """Of each key, what the log says first of each record: resends aside, the order of publication."""
    log = sorted(await oracle.records_of(stage.bootstrap, stage.events), key=lambda record: record.offset)
    return _firsts([(record.key, record.value, dict(record.headers)["till-run"]) for record in log])


def _in_order(published: Sequence[Sent]) -> dict[bytes, list[tuple[bytes, ...]]]:
    return _firsts([(sent.key or b"", sent.value or b"", dict(sent.headers)["till-run"]) for sent in published])


def _firsts(records: Sequence[tuple[bytes, bytes, bytes]]) -> dict[bytes, list[tuple[bytes, ...]]]:
    found: dict[bytes, dict[tuple[bytes, ...], None]] = {}
    for key, value, run in records:
        found.setdefault(key, {})[value, run] = None
    return {key: list(of_key) for key, of_key in found.items()}


async def test_a_partition_that_the_broker_gives_and_nobody_can_read_is_told(
    broker: EmbeddedKafka, database: str
) -> None:
    """Its disk has rotted: the broker answers, and what it answers is wrong."""
    history = History(seed=29)
    async with open_stage(broker.bootstrap, database, partitions=1) as stage:
        await stage.publish(history.load(40))
        (log,) = broker.directory.glob(f"**/{stage.topics.events.name}-0/*.log")
        whole = log.read_bytes()
        _write_last_byte(log, whole[-1] ^ 0xFF)
        worker = stage.worker("reader")

        await worker.waits_for("reading", f"{stage.topics.events.name}/0 cannot be read: CorruptRecordException")

        assert worker.alive
        _write_last_byte(log, whole[-1])
        await worker.ready()
        await stage.check(history.truth)


def _write_last_byte(log: Path, byte: int) -> None:
    """In place: the broker has the file open."""
    with log.open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([byte]))
