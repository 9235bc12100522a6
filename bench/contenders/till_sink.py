"""The sink role, for a worktree whose command line does not exist yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import faust

from bench.contender import Order
from schemas.metric import NullMeter
from schemas.topic import sink_app_id, topics
from sinks.postgres import PostgresSink
from streams.app import AppSettings, make_app, run_app, slices_of
from streams.ingest import Ingest
from streams.lanes import Lanes
from streams.publisher import LetterPublisher, Producer
from streams.transport import SliceSettings

POOL = 4


@asynccontextmanager
async def worker(order: Order) -> AsyncIterator[faust.App]:
    """The app and all it needs."""
    sink = await PostgresSink.open(order.dsn, pool_size=POOL)
    async with Producer(order.bootstrap) as producer:
        ingest = Ingest(sink, LetterPublisher(producer, topics(order.prefix)), NullMeter())
        lanes = Lanes(ingest.prepare, ingest.apply)
        settings = AppSettings(order.bootstrap, slices=SliceSettings(max_records=1_000))
        app = make_app(sink_app_id(order.prefix), settings)
        topic = slices_of(app, order.topic, lanes=lanes, sink_offsets=sink.next_offsets)

        @app.agent(topic, concurrency=1)
        async def payments(stream: Any) -> None:
            unacked = stream.noack()
            async for event in unacked.events():
                lanes.submit(event, done=unacked.ack)

        yield app
    await sink.close()


if __name__ == "__main__":
    given = Order.given()
    raise SystemExit(run_app(lambda: worker(given)))
