"""The limit: the sink's own statement, fed from memory, on some connections. Decoded and prepared before it begins."""

from __future__ import annotations

import asyncio
import gc

from aiokafka import ConsumerRecord

from bench.contender import Order
from bench.flat import run
from bench.history import messages
from connectors.ports import Message
from sinks.base import Place
from sinks.postgres import PostgresSink
from streams.ingest import Ingest, Poison
from streams.partition import partition_of
from streams.slice import Slice

SLICE = 1_000


async def main(order: Order) -> None:
    """Apply all, one lane per connection, each with partitions of its own; then wait to be killed."""
    sink = await PostgresSink.open(order.dsn, pool_size=order.connections)
    lanes: list[list[Message]] = [[] for _ in range(order.connections)]
    for message in messages(order.events):
        lanes[partition_of(message.key, order.connections)].append(message)
    prepared = [
        [
            (start + len(lane[start : start + SLICE]), sink.prepare(_decoded(lane[start : start + SLICE], start)))
            for start in range(0, len(lane), SLICE)
        ]
        for lane in lanes
    ]
    gc.collect()
    gc.freeze()

    async def drain(partition: int) -> None:
        for next_offset, each in prepared[partition]:
            await sink.apply_prepared(Place(order.topic, partition), each, next_offset=next_offset)

    await asyncio.gather(*(drain(partition) for partition in range(order.connections)))
    await asyncio.Event().wait()


def _decoded(part: list[Message], start: int) -> list:  # type: ignore[type-arg]
    raw = [
        ConsumerRecord("t", 0, start + index, 0, 0, each.key, each.value, None, 0, 0, tuple(each.headers))
        for index, each in enumerate(part)
    ]
    items = Ingest(None, None, None).prepare(Slice.of("t", 0, raw)).items  # type: ignore[arg-type]
    assert not any(isinstance(item, Poison) for item in items)
    return list(items)


if __name__ == "__main__":
    run(main(Order.given()))
