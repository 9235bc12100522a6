"""Reading a range of a topic outside any group: of brokers that die, and of records that only another client writes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import pytest
from aiokafka import AIOKafkaProducer

from schemas.errors import BrokerUnavailable
from schemas.topic import Topics, topics
from streams.lag import LagProbe, PartitionLag
from streams.provision import provision
from streams.reader import find_range, read
from tests import foreign
from tests.faults.stage import until
from tests.services import Kafka
from tillstream.embedded.kafka import EmbeddedKafka

NEVER_S = 120.0
LARGE = 1_500  # bytes that do not compress: what a client has fetched ahead is not all there is
RECORDS = 20_000


async def provisioned(bootstrap: str, prefix: str) -> Topics:
    found = topics(prefix.rstrip("."), partitions=2)
    await provision(bootstrap, found.all())
    return found


async def test_a_broker_that_dies_while_it_is_read_from_is_told_as_unavailable(
    own_kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    """aiokafka asks again, for ever and silently: each of its waits comes back empty."""
    name = (await provisioned(own_kafka.bootstrap, topic_prefix)).events.name
    async with AIOKafkaProducer(bootstrap_servers=own_kafka.bootstrap, linger_ms=5) as producer:
        for number in range(RECORDS):
            await producer.send(name, secrets.token_bytes(LARGE), partition=number % 2)
    wanted = await find_range(own_kafka.bootstrap, name)
    seen: list[int] = []

    async def read_all() -> None:
        async for batch in read(own_kafka.bootstrap, wanted, slice_records=500, stall_s=3.0):
            if not seen:
                own_kafka.kill()
            seen.append(len(batch))

    with pytest.raises(BrokerUnavailable, match="nothing arrived"):
        await asyncio.wait_for(read_all(), NEVER_S)
    assert 0 < sum(seen) < wanted.records == RECORDS


async def test_a_reader_may_take_longer_for_a_slice_than_a_broker_for_an_answer(
    kafka: Kafka, topic_prefix: str
) -> None:
    name = (await provisioned(kafka.bootstrap, topic_prefix)).events.name
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for number in range(6):
            await producer.send_and_wait(name, b"v", partition=number % 2)
    loop, stall_s, seen = asyncio.get_running_loop(), 5.0, 0

    async for batch in read(kafka.bootstrap, await find_range(kafka.bootstrap, name), slice_records=1, stall_s=stall_s):
        seen += len(batch)
        if seen == 1:
            busy = loop.create_future()
            loop.call_later(stall_s + 1, busy.set_result, None)
            await busy

    assert seen == 6


async def test_a_name_of_a_header_that_is_not_utf8_stops_neither_a_reader_nor_the_measure_of_lag(
    kafka: Kafka, topic_prefix: str
) -> None:
    name = (await provisioned(kafka.bootstrap, topic_prefix)).events.name
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, client_id="foreign") as producer:
        await producer.partitions_for(name)
        for headers in ([("a\udcff", b"1"), ("b", None)], []):
            await foreign.send(producer, name, 0, foreign.batch_with(b"k", b"v", headers, gzipped=True))

    slices = [batch async for batch in read(kafka.bootstrap, await find_range(kafka.bootstrap, name))]
    lag: dict[int, PartitionLag] = {}

    async def measured() -> bool:
        with contextlib.suppress(BrokerUnavailable):  # it has just started, and knows no groups yet
            lag.update({each.partition: each for each in await probe.measure("nobody", name)})
        return bool(lag)

    async with LagProbe(kafka.bootstrap) as probe:
        await until(measured)

    assert [record.headers for batch in slices for record in batch.records] == [(("a\udcff", b"1"), ("b", None)), ()]
    assert (lag[0].lag_events, lag[0].lag_s > 0) == (2, True)
