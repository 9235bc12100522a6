"""The payments agent: slices of the events topic into lanes. Faust outside, the delivery core inside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import faust

from schemas.topic import Topics
from sinks.base import Sink
from streams.app import Key, slices_of
from streams.ingest import Ingest, Prepared
from streams.lanes import Lanes


def register(app: faust.App, topics: Topics, ingest: Ingest, sink: Sink) -> Lanes[Prepared]:
    """
    Add the agent to the app, and return its lanes.

    Consumption never starts after what `sink` holds; an offset is committed only after `ingest.apply` has returned.
    """
    lanes: Lanes[Prepared] = Lanes(ingest.prepare, ingest.apply)
    source = slices_of(app, topics.events.name, lanes=lanes, sink_offsets=sink.next_offsets)

    @app.agent(source, name="payments", concurrency=1)
    async def payments(stream: Any) -> None:
        unacked = stream.noack()  # Faust acks in a `finally`, and what it acks must be nothing
        async for event in unacked.events():
            lanes.submit(event, done=unacked.ack)

    return lanes


def held(ingest: Ingest) -> Collection[Key]:
    """The partitions that wait for a declared cause, which the watchdog leaves alone."""
    return {(place.topic, place.partition) for place in ingest.holds}
