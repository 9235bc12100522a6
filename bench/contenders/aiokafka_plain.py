"""aiokafka, the straightforward way: getmany, parse with pydantic, upsert, commit; one after the other."""

from __future__ import annotations

import asyncpg
from aiokafka import AIOKafkaConsumer

from bench.contender import Order
from bench.flat import parsed, run, upsert

BATCH = 1_000


async def main(order: Order) -> None:
    """Consume until killed."""
    connection = await asyncpg.connect(order.dsn)
    consumer = AIOKafkaConsumer(
        order.topic,
        bootstrap_servers=order.bootstrap,
        group_id=order.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    while True:
        fetched = await consumer.getmany(timeout_ms=500, max_records=BATCH)
        rows = [parsed(record.value) for records in fetched.values() for record in records]
        if rows:
            await upsert(connection, 0, rows)
            await consumer.commit()


if __name__ == "__main__":
    run(main(Order.given()))
