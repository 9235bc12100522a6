"""
A worker process for the transport's tests: its effect is a journal line for each record, its moods come from outside.

    python -m tests.integration.transport_worker '{"topic": …}'

The journal is written with one `write` per slice, so it holds all of a slice or nothing, and it survives kill -9.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
from faust.streams import Stream

from schemas.errors import SinkUnavailable
from streams.app import AppSettings, RunSettings, make_app, run_app, slices_of, transport_of
from streams.fetch import SliceSettings
from streams.lanes import Lanes
from streams.slice import Slice
from streams.transport import SliceTransport


@dataclass(frozen=True, slots=True)
class Mood:
    """What the test wants of the worker. `slice_s`: how long each slice takes."""

    bootstrap: str
    topic: str
    group: str
    folder: str
    name: str = "worker"
    slice_s: float = 0.0
    on_key: Mapping[str, str] = field(default_factory=dict)  # a record's key → raise, hang, block
    agent: str = "submits"  # or raises, acks
    sink: str = ""  # file with the sink's offsets as JSON; while it is not there, the sink is unavailable
    stock_topic: str = ""
    hold: tuple[int, ...] = ()  # partitions held while the file `hold` is in the folder
    flaps: bool = False  # Faust itself pauses and resumes all partitions, as it does around a table's recovery
    app: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The durable effect."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *lines: str) -> None:
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())


class Actor:
    """The handler of slices, the sink's offsets, and what the worker tells about itself."""

    def __init__(self, mood: Mood) -> None:
        folder = Path(mood.folder)
        self.mood = mood
        self.journal = Journal(folder / f"{mood.name}.journal")
        self.events = Journal(folder / f"{mood.name}.events")
        self._hold = folder / "hold"

    async def handle(self, whole: Slice) -> None:
        for record in whole.records:
            how = self.mood.on_key.get((record.key or b"").decode(), "")
            if how:
                self.tell(behaves=how)
                await _behave(how)
        if self.mood.slice_s:
            await asyncio.sleep(self.mood.slice_s)
        self.journal.write(*(f"{whole.partition} {record.offset} {_text(record.value)}" for record in whole.records))
        late_s = time.time() - whole.records[-1].timestamp / 1_000
        self.tell(slice=[whole.partition, whole.first_offset, whole.next_offset], late_s=late_s)

    async def sink_offsets(self, _: str) -> Mapping[int, int]:
        sink = Path(self.mood.sink)
        if not sink.exists():
            raise SinkUnavailable("the database is down", sqlstate="57P03")
        return {int(partition): offset for partition, offset in json.loads(sink.read_text()).items()}

    async def report(self, transport: SliceTransport) -> None:
        while True:
            for partition in self.mood.hold:
                act = transport.holds.hold if self._hold.exists() else transport.holds.release
                act(self.mood.topic, partition, "test")
            owned = transport.consumer._owned.values() if transport.consumer else ()
            state = {
                str(each.tp.partition): [each.inflight.unacked, each.inflight.size_bytes, each.inflight.position]
                for each in owned
                if each.inflight
            }
            self.tell(ready=bool(transport.consumer and transport.consumer.is_ready), owned=state)
            await asyncio.sleep(0.1)

    def tell(self, **facts: object) -> None:
        self.events.write(json.dumps(facts))


def main(mood: Mood) -> int:
    actor = Actor(mood)
    settings = AppSettings(mood.bootstrap, **{**mood.app, "slices": SliceSettings(**mood.slices)})
    app = make_app(mood.group, settings)
    lanes = Lanes.of(actor.handle)
    source = slices_of(app, mood.topic, lanes=lanes, sink_offsets=actor.sink_offsets if mood.sink else None)

    @app.agent(source, name="slices", concurrency=1)
    async def slices(stream: Any) -> None:
        if mood.agent == "raises":
            raise RuntimeError("the agent raises")
        unacked = cast("Stream[Slice]", cast("Stream[Slice]", stream).noack())
        async for event in unacked.events():
            if mood.agent == "acks":
                await unacked.ack(event)
            else:
                lanes.submit(cast(Any, event), done=unacked.ack)

    if mood.stock_topic:
        _stock_agent(app, mood.stock_topic, actor)

    @app.task
    async def report() -> None:
        await actor.report(transport_of(app))

    if mood.flaps:
        app.task(partial(_flap, app))

    return run_app(app, settings=RunSettings(**mood.run))


async def _flap(app: faust.App) -> None:
    """What Faust has fetched of a paused partition, it drops, its position already beyond."""
    while True:
        app.consumer.pause_partitions(app.consumer.assignment())
        await asyncio.sleep(0)
        app.consumer.resume_partitions(app.consumer.assignment())
        await asyncio.sleep(0)


def _stock_agent(app: faust.App, topic: str, actor: Actor) -> None:
    source = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(source, name="stock", concurrency=1)
    async def stock(stream: Any) -> None:
        async for value in stream:
            actor.tell(stock=value.decode())


async def _behave(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the handler raises")
    if how == "hang":
        await asyncio.Event().wait()
    if how == "block":
        time.sleep(3_600)  # that is the mood


def _text(value: bytes | None) -> str:
    return "null" if value is None else value[:40].decode("ascii", "replace").replace(" ", "_")


class Facts(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {getattr(record, 'facts', '')}"


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(Facts("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.exit(main(Mood(**json.loads(sys.argv[1]))))
