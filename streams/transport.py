"""
Faust's aiokafka driver, taught to hand out slices.

For a topic that opts in (`SliceTransport.opt_in`), a stream yields one message for each *fetched slice of a partition*;
its value is a `Slice` of raw records. Conductor, stream, sensors and acks then run once per slice, not once per record.
Every other topic keeps Faust's own path.

What holds for a topic that opted in:

- The slices of a partition tile its log from the start on. One that Faust drops on the way is handed out again.
- Committed is the contiguous prefix of slices whose lane has said that every effect is durable. An ack from anybody
  else counts for nothing: Faust acks in a `finally`, and it acks what it skips.
- A commit is sent only in the generation of the group that assigned the partition. One that fails changes nothing, and
  is sent again.
- Consumption starts from the lower of the group's offset and the sink's. A position that the log does not hold becomes
  the earliest one, with an error in the log and a metric; never the latest.
- What is in flight is bounded, in slices for each partition and in bytes for the process. A partition at its bound or
  on hold is not read, while the others are; the group sees heartbeats and polls throughout.
- On revocation nothing more is handed out, lanes finish or abandon their slice, the prefix is committed, and the rest
  is forgotten.

    aiokafka ─▶ SliceThread (streams/fetch.py) ─▶ SliceConsumer (streams/consumer.py) ─▶ conductor ─▶ stream ─▶ agent
                     ▲ commits                          ▲ acks                                              │ submit
                     └──────────────────────────────────┴──────────────────────── lanes (streams/lanes.py) ◀┘
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import faust
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import AppT, Message
from faust.types.transports import ConsumerCallback, ConsumerT

from schemas.metric import Meter, NullMeter
from streams.consumer import Assignments, NoAssignments, OptedIn, SinkOffsets, SliceConsumer
from streams.fetch import SliceSettings
from streams.hold import Holds
from streams.lanes import Lanes

__all__ = ["OptedIn", "SinkOffsets", "SliceSchema", "SliceSettings", "SliceTransport"]


class SliceTransport(driver.Transport):
    """Faust's Kafka transport with slices. An app gets it before anything else: `app.transport = SliceTransport(…)`."""

    Consumer: ClassVar[type[ConsumerT]] = SliceConsumer

    def __init__(
        self, *args: Any, settings: SliceSettings | None = None, meter: Meter | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings or SliceSettings()
        self.meter: Meter = meter or NullMeter()
        self.opted_in: dict[str, OptedIn] = {}
        self.holds = Holds(self.meter, self._wake)
        self.assignments: Assignments = NoAssignments()
        self.consumer: SliceConsumer | None = None  # once the app starts

    def opt_in(self, topic: str, *, lanes: Lanes[Any], sink_offsets: SinkOffsets | None = None) -> faust.TopicT:
        """
        The topic, for an agent whose stream yields slices.

        Args:
            topic: its name.
            lanes: where the agent submits them; revocation and shutdown wait for these.
            sink_offsets: the next offset of each partition as the sink holds it, for the topic given; a partition it
                does not name starts at the beginning. May raise a TillError to retry or pause: it is asked again.
        """
        self.opted_in[topic] = OptedIn(lanes, sink_offsets)
        return self.app.topic(topic, schema=SliceSchema())

    def create_consumer(self, callback: ConsumerCallback, **kwargs: Any) -> ConsumerT:
        """Faust's way to its consumer."""
        self.consumer = cast(SliceConsumer, super().create_consumer(callback, **kwargs))
        return self.consumer

    def _wake(self) -> None:
        if self.consumer is not None:
            self.consumer.wake()


class SliceSchema(Schema[Any, Any]):
    """Faust's decoding step, for slices: none."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """A decoder that passes the slice on as it is."""

        async def decode(message: Message, *, propagate: bool = False) -> Any:  # noqa: ARG001  Faust names it
            return app.create_event(None, message.value, None, message)

        return decode
