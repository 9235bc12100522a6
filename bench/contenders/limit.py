"""
The limit: the sink's own statement, fed from memory, on some connections.

Decoded, checked and hashed before it begins; rows become PostgreSQL's arrays as they are sent, as in any client.
"""

from __future__ import annotations

import asyncio
import gc

from aiokafka import ConsumerRecord

from bench.contender import Order
from bench.flat import run
from bench.history import messages
from connectors.ports import Message
from sinks.base import Place
from sinks.memory import MemorySink
from sinks.postgres import PostgresSink
from sinks.prepared import Preparation
from streams.ingest import Ingest
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
            (start + len(lane[start : start + SLICE]), _prepared(lane[start : start + SLICE], start))
            for start in range(0, len(lane), SLICE)
        ]
        for lane in lanes
    ]
    gc.collect()
    gc.freeze()

    async def drain(partition: int) -> None:
        for next_offset, each in prepared[partition]:
            await sink.apply(Place(order.topic, partition), each.ready(), next_offset=next_offset)

    await asyncio.gather(*(drain(partition) for partition in range(order.connections)))
    await asyncio.Event().wait()


def _prepared(part: list[Message], start: int) -> Preparation:
    raw = [
        ConsumerRecord("t", 0, start + index, 0, 0, each.key, each.value, None, 0, 0, tuple(each.headers))
        for index, each in enumerate(part)
    ]
    decoded = Ingest(MemorySink(), None, None).prepare(Slice.of("t", 0, raw))  # type: ignore[arg-type]  # not asked
    assert not decoded.poisoned
    preparation = Preparation()
    preparation.add(decoded.items)  # type: ignore[arg-type]  # no poison among them
    return preparation


if __name__ == "__main__":
    run(main(Order.given()))
