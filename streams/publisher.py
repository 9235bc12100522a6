# ruff: noqa: SLF001  # aiokafka has no public way to give a producer up: tests/faults/test_broker.py holds it to it
"""
Producing: events, letters and checkpoints, each durable on the broker (`acks=all`) when the call returns.

The idempotent producer of aiokafka never expires a batch and can poison itself on an outage (sequence numbers burnt
unsent), so it
is off: the sink absorbs duplicates. Every await has our own deadline. After a failure the producer is thrown away, a
new one is built,
and the caller sends again what was not acknowledged. A partition has one batch in flight, so a resend cannot reorder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from schemas import metric
from schemas.checkpoint import Checkpoint
from schemas.errors import BrokerUnavailable, DeadLetterUnavailable, RecordRejected
from schemas.letter import DeadLetter
from schemas.metric import Meter, NullMeter
from schemas.topic import Topics
from streams.partition import partition_of

log = logging.getLogger(__name__)

BATCH_BYTES = 512 * 1_024
DEADLINE_S = 30.0
_REQUEST_TIMEOUT_MS = 15_000
_STOP_S = 5.0
_LET_GO_S = 0.2
_RECORD_OVERHEAD = 256  # lengths, attributes and the batch's header
_MAX_REQUEST_BYTES = 4 * 1_048_576


class KeyedMessage(Protocol):
    """What a message must offer. `connectors.ports.Message` does, and neither package imports the other."""

    @property
    def key(self) -> bytes:
        """Decides the partition."""
        ...

    @property
    def value(self) -> bytes:
        """The encoded event."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and values, in order."""
        ...


class Producer:
    """
    One aiokafka producer that can be replaced. Use as `async with`; opening does not need the broker, sending does.

    Shared by everything in a process that publishes.
    """

    def __init__(self, bootstrap: str, *, meter: Meter | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._bootstrap = bootstrap
        self._meter = meter or NullMeter()
        self._deadline_s = deadline_s
        self._producer: AIOKafkaProducer | None = None
        self._building = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up the connection, within a bound: aiokafka's own `stop` hangs while the broker is down."""
        self._retire()
        if self._retired:
            await asyncio.wait(self._retired, timeout=_STOP_S)

    async def send(self, topic: str, partitioned: Sequence[tuple[int, KeyedMessage]]) -> None:
        """
        Send to the named partitions, in order within each, and return when all are acknowledged.

        Raises:
            BrokerUnavailable: retry; some may be in the log.
        """
        batches: dict[int, list[KeyedMessage]] = {}
        for partition, message in partitioned:
            batches.setdefault(partition, []).append(message)
        async with self._deadline(f"{len(partitioned)} records to {topic}") as producer:
            if len(batches) == 1:
                ((partition, messages),) = batches.items()
                await _send_partition(producer, topic, partition, messages)
            else:
                await asyncio.gather(
                    *(_send_partition(producer, topic, partition, messages) for partition, messages in batches.items())
                )

    async def partitions(self, topic: str) -> int:
        """
        How many partitions the topic has.

        Raises:
            BrokerUnavailable: retry.
        """
        async with self._deadline(f"the partitions of {topic}") as producer:
            return len(await producer.partitions_for(topic))

    @contextlib.asynccontextmanager
    async def _deadline(self, what: str) -> AsyncIterator[AIOKafkaProducer]:
        try:
            async with asyncio.timeout(self._deadline_s):
                yield await self._started()
        except MessageSizeTooLargeError:
            raise
        except (KafkaError, TimeoutError, OSError) as exc:
            self._retire()
            reason = "no acknowledgement in time" if isinstance(exc, TimeoutError) else f"{type(exc).__name__} {exc}"
            raise BrokerUnavailable(f"{what}: {reason}") from exc
        except asyncio.CancelledError:
            self._retire()  # what was under way may still arrive; a new producer shares no batch with it
            raise

    async def _started(self) -> AIOKafkaProducer:
        async with self._building:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    acks="all",
                    enable_idempotence=False,
                    linger_ms=0,
                    # Events are kept for ever: a tenth of the disk, half the broker's time (docs/decisions/010).
                    compression_type="zstd",
                    max_batch_size=BATCH_BYTES,
                    max_request_size=_MAX_REQUEST_BYTES,
                    request_timeout_ms=_REQUEST_TIMEOUT_MS,
                )
                try:
                    await producer.start()
                except BaseException:
                    self._retire(producer)
                    raise
                self._producer = producer
            return self._producer

    def _retire(self, producer: AIOKafkaProducer | None = None) -> None:
        gone = producer or self._producer
        if gone is None:
            return
        if gone is self._producer:
            self._producer = None
            self._meter.add(metric.PRODUCER_REBUILDS_TOTAL)
        task = asyncio.create_task(_stop(gone), name="retire producer")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


class EventPublisher:
    """`connectors.ports.Publisher` on the events topic: the key decides the partition."""

    def __init__(self, producer: Producer, topics: Topics, *, meter: Meter | None = None) -> None:
        self._producer = producer
        self._topic = topics.events
        self._meter = meter or NullMeter()

    async def publish(self, messages: Sequence[KeyedMessage]) -> None:
        """
        Return once the broker acknowledged every message, in order within a key.

        Raises:
            BrokerUnavailable: retry; some may be in the log. RecordRejected: `too_large`; nothing was sent.
        """
        most = self._topic.max_message_bytes - _RECORD_OVERHEAD
        for message in messages:
            if len(message.value) + len(message.key) > most // 2 and _size(message) > most:
                raise RecordRejected("too_large", f"an event of {_size(message)} bytes does not fit the topic's {most}")
        started = time.monotonic()
        partitions = self._topic.partitions
        await self._producer.send(
            self._topic.name, [(partition_of(message.key, partitions), message) for message in messages]
        )
        self._meter.observe(metric.PUBLISH_SECONDS, time.monotonic() - started)


class LetterPublisher:
    """`connectors.ports.DeadLetters`, and the core's letter box."""

    def __init__(self, producer: Producer, topics: Topics) -> None:
        self._producer = producer
        self._topic = topics.dead_letters

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """
        Return once the broker acknowledged every letter.

        Raises:
            DeadLetterUnavailable: retry.
        """
        partitions = self._topic.partitions
        messages = [_Plain(letter.id.encode(), letter.model_dump_json().encode()) for letter in letters]
        try:
            await self._producer.send(
                self._topic.name, [(partition_of(message.key, partitions), message) for message in messages]
            )
        except (BrokerUnavailable, KafkaError) as exc:
            raise DeadLetterUnavailable(f"{self._topic.name}: {exc}") from exc


class CheckpointPublisher:
    """Puts checkpoints on the state topic; the partition is the connector's, so that one worker owns all its tasks."""

    def __init__(self, producer: Producer, topics: Topics) -> None:
        self._producer = producer
        self._topic = topics.connector_state

    async def publish(self, checkpoint: Checkpoint) -> None:
        """
        Return once the broker acknowledged it.

        Raises:
            BrokerUnavailable: retry.
        """
        partition = partition_of(str(checkpoint.connector_id).encode(), self._topic.partitions)
        message = _Plain(checkpoint.key.encode("utf-8", "surrogatepass"), checkpoint.model_dump_json().encode())
        await self._producer.send(self._topic.name, [(partition, message)])


class _Plain:
    """A message without headers."""

    __slots__ = ("headers", "key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value
        self.headers: Sequence[tuple[str, bytes]] = ()


async def _send_partition(
    producer: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[KeyedMessage]
) -> None:
    now_ms = int(time.time() * 1_000)
    batch = producer.create_batch()
    sent: list[asyncio.Future[object]] = []
    for message in messages:
        headers = list(message.headers)  # aiokafka takes no other sequence
        if batch.append(key=message.key, value=message.value, timestamp=now_ms, headers=headers) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(key=message.key, value=message.value, timestamp=now_ms, headers=headers)
    sent.append(await producer.send_batch(batch, topic, partition=partition))
    for future in sent:
        await future


def _size(message: KeyedMessage) -> int:
    headers_bytes = sum(len(name) + len(value or b"") + 8 for name, value in message.headers)
    return len(message.value) + len(message.key) + headers_bytes


async def _stop(producer: AIOKafkaProducer) -> None:
    """
    Let go of everything: connections, tasks, and what was not sent, which somebody sends again.

    aiokafka's own `stop` waits until all is sent. It was cut short where the broker was away, and left a connection and
    two tasks behind for ever.
    """
    producer._closed = True
    sender = producer._sender.sender_task
    with contextlib.suppress(Exception):  # it is already given up; nothing it says changes anything
        async with asyncio.timeout(_STOP_S):
            if sender is not None:
                sender.cancel()
            await producer.client.close()  # what waits for an answer gets none
            while sender is not None and not sender.done():
                sender.cancel()  # again: once cancelled, it waits for requests that wait for metadata in vain
                await asyncio.wait({sender}, timeout=_LET_GO_S)
