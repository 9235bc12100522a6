"""A stock Faust agent: take(), parse with pydantic, upsert; acked by Faust. No transport, lanes or core of ours."""

from __future__ import annotations

import sys
from typing import Any

import asyncpg
import faust

from bench.contender import Order
from bench.flat import parsed, upsert

BATCH = 1_000
WITHIN_S = 0.1


def make(order: Order) -> faust.App:
    """The app as Faust's documentation builds one, tuned where that is known to help: raw values, larger buffers."""
    app = faust.App(
        order.group,
        broker=f"kafka://{order.bootstrap}",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        stream_buffer_maxsize=16_384,
        web_enabled=False,
        store="memory://",
        datadir=order.path,
    )
    topic = app.topic(order.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
    connections: list[Any] = []

    @app.agent(topic)
    async def payments(stream: Any) -> None:
        connections.append(await asyncpg.connect(order.dsn))
        async for values in stream.take(BATCH, within=WITHIN_S):
            await upsert(connections[0], 0, [parsed(value) for value in values])

    return app


if __name__ == "__main__":
    given = Order.given()
    sys.argv = [sys.argv[0], "-L", "uvloop", "worker", "-l", "warn"]
    make(given).main()
