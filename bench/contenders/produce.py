"""Our publisher with encoded events: in batches, acknowledged by all replicas, one batch after the other."""

from __future__ import annotations

import asyncio

from bench.contender import Order
from bench.flat import run
from bench.history import PARTITIONS, messages
from schemas.topic import topics
from streams.publisher import EventPublisher, Producer

BATCH = 1_000
DISTINCT = 50_000  # the same messages are sent again and again


async def main(order: Order) -> None:
    """Publish `events`; then wait to be killed."""
    made = messages(DISTINCT)
    async with Producer(order.bootstrap) as producer:
        publisher = EventPublisher(producer, topics(order.prefix, partitions=PARTITIONS))
        for sent in range(0, order.events, BATCH):
            at = sent % DISTINCT
            await publisher.publish(made[at : at + BATCH])
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main(Order.given()))
