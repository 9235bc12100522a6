"""
The sink role's agent: slices of the events topic, into the lanes of their partitions. Ten lines of glue.

Whatever happens to a slice is decided in `streams/ingest.py`; when its effects are durable, the lane acks.
"""

from __future__ import annotations

from typing import Any

import faust

from schemas.topic import Topics
from streams.app import slices_of
from streams.ingest import Ingest, Prepared
from streams.lanes import Lanes
from streams.transport import SinkOffsets


def register(app: faust.App, topics: Topics, ingest: Ingest, *, sink_offsets: SinkOffsets) -> Lanes[Prepared]:
    """Add the agent to the app; consumption never starts after what the sink holds."""
    lanes = Lanes(ingest.prepare_in_turns, ingest.apply)
    source = slices_of(app, topics.events.name, lanes=lanes, sink_offsets=sink_offsets)

    @app.agent(source, name="payments", concurrency=1)
    async def payments(stream: Any) -> None:  # Faust's stream type lacks noack()
        # Faust acks in a `finally`: without noack() a crash would count as success.
        unacked = stream.noack()
        async for event in unacked.events():
            lanes.submit(event, done=unacked.ack)

    return lanes
