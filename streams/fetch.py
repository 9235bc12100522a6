# ruff: noqa: SLF001  # Faust and aiokafka have no public way in: test_transport_contract.py pins each private name
"""
The consumer's thread: fetches slices beside what Faust fetches, and commits in a given generation only.

Faust runs aiokafka's consumer on an event loop in a thread of its own, so that heartbeats go on whatever the main loop
does. The methods here are coroutines of that loop; the main loop runs them through `SliceConsumer`.
What the main loop writes while they run is named where it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.batch import read_any_header
from streams.inflight import InFlight
from streams.slice import RECORD_BYTES

CALL_S = 10.0  # for one request to the broker outside the data path


@dataclass(frozen=True, slots=True)
class SliceSettings:
    """
    Bounds of the slice path.

    A slice is what one fetch returned, cut at `max_records` and `max_bytes` (of memory); nothing waits for it to fill.
    Memory stays below `max_bytes_in_flight` plus one slice and one fetch for each partition.
    """

    max_records: int = 4_000
    max_bytes: int = 4 * 1_048_576
    max_slices_in_flight: int = 3  # of a partition: one applied, one prepared, one on its way
    max_bytes_in_flight: int = 64 * 1_048_576  # of all partitions
    fetch_max_bytes: int = 2 * 1_048_576  # of a partition, as stored (compressed)
    fetch_wait_s: float = 0.05  # how long a broker with nothing new keeps a fetch open; others of its partitions wait
    commit_timeout_s: float = 2.0
    revoke_timeout_s: float = 5.0  # for the slices being applied when partitions are revoked


class HasSettings(Protocol):
    """The transport, as the thread sees it."""

    settings: SliceSettings


@dataclass(frozen=True, slots=True)
class Want:
    """What the thread may read of a partition now. `inflight` tells it whether that still stands."""

    inflight: InFlight
    position: int
    max_records: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    What the thread read of a partition.

    Without records: nothing but markers or compacted batches. With an `error`: nothing at all. With another
    `first_offset` than was wanted: nothing either, the partition stands elsewhere.
    """

    inflight: InFlight
    records: list[ConsumerRecord]
    first_offset: int
    next_offset: int
    size_bytes: int = 0
    error: BaseException | None = None


class SliceThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with slices."""

    def __post_init__(self) -> None:
        """Faust's place for what a service has of its own."""
        super().__post_init__()
        self._wake = asyncio.Event()

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        read_any_header()
        consumer = super()._create_worker_consumer(transport)
        settings = cast(HasSettings, transport).settings
        # Faust has no setting for these; aiokafka reads them when it starts.
        consumer._fetch_max_wait_ms = int(settings.fetch_wait_s * 1_000)
        consumer._fetch_min_bytes = 1
        consumer._max_partition_fetch_bytes = settings.fetch_max_bytes
        return consumer

    def wake(self) -> None:
        """Let a waiting fetch return, because there may be more to want. For the main loop."""
        with contextlib.suppress(RuntimeError):  # the thread's loop has been closed
            self.thread_loop.call_soon_threadsafe(self._wake.set)

    @property
    def is_member(self) -> bool:
        """Whether we have joined the group and no rebalance is going on. For any thread."""
        consumer = self._consumer
        if consumer is None or consumer._coordinator is None:
            return False
        return consumer._coordinator.generation > 0 and not consumer._subscription.reassignment_in_progress

    async def fetch(self, stock: set[TP], wants: Mapping[TP, Want], timeout_s: float) -> dict[TP, list[Any]]:
        """
        What has arrived: at most one slice of each wanted partition, and Faust's own records of `stock`; or nothing.

        Waits up to `timeout_s` for something to arrive, also if nothing is wanted: the group takes that for polling.
        """
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        until = time.monotonic() + timeout_s
        with fetcher._subscriptions.fetch_context():
            while self.consumer.flow_active:  # written by the main loop
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                if not fetcher._subscriptions.reassignment_in_progress:
                    arrived = await self._arrived(fetcher, stock, wants)
                    if arrived:
                        return arrived
                remaining_s = until - time.monotonic()
                if remaining_s <= 0 or self._wake.is_set():
                    break
                await self._something_happens(fetcher, remaining_s)
        self._wake.clear()  # whoever set it wants new wants to be made, and that is what happens next
        return {}

    async def _arrived(self, fetcher: Any, stock: set[TP], wants: Mapping[TP, Want]) -> dict[TP, list[Any]]:
        arrived: dict[TP, list[Any]] = {}
        if stock:  # to aiokafka, no partition would mean all partitions
            most = self._ensure_consumer()._max_poll_records
            found = await fetcher.fetched_records(stock, timeout=0, max_records=most)
            arrived.update({TP(*tp): records for tp, records in found.items()})
        for tp, want in wants.items():
            result = fetcher._records.get(TopicPartition(*tp))
            # Written by the main loop: the partition may have been revoked or rewound since it was wanted.
            if result is None or want.inflight.forgotten or want.inflight.position != want.position:
                continue
            fetched = _read(fetcher, TopicPartition(*tp), result, want)
            if fetched is not None:
                arrived[tp] = [fetched]
        return arrived

    async def _something_happens(self, fetcher: Any, timeout_s: float) -> None:
        if fetcher._subscriptions.reassignment_in_progress:
            waiting = fetcher._subscriptions.wait_for_assignment()
        else:
            waiting = fetcher._create_fetch_waiter()
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({waiting, woken}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if not waiting.done():
                waiting.cancel()
        if not waiting.cancelled():
            waiting.result()  # an error of the whole group: not authorised, for one

    async def commit_in_generation(self, offsets: Mapping[TP, int], generation: int) -> None:
        """
        Commit once, in the generation that assigned the partitions.

        aiokafka's own `commit` repeats itself, and once the member was expelled it does so without a generation,
        which a broker accepts from anybody while the group is empty: a zombie could move offsets.

        Raises:
            KafkaError: refused, or the generation is over. Disposition: retry, while the partitions are ours.
        """
        consumer = self._ensure_consumer()
        coordinator = consumer._coordinator
        wanted = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        await coordinator.ensure_coordinator_known()
        async with coordinator._commit_lock:
            if generation <= 0 or coordinator.generation != generation:
                raise KafkaError(f"generation {generation} is over, the group's is {coordinator.generation}")
            await coordinator._do_commit_offsets(consumer._subscription.subscription.assignment, wanted)
        self.tp_last_committed_at.update(dict.fromkeys(offsets, time.monotonic()))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Of Faust's own topics. Faust ends the process if a rebalance comes in between; the next commit makes up for
        # it.
        mine = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        try:
            await self.commit_in_generation(mine, self.app.consumer_generation_id)
        except KafkaError as exc:
            self.log.warning("commit refused: %r", exc)
            return False
        return True

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int]:
        """The group's offsets; a partition without one is absent."""
        coordinator = self._ensure_consumer()._coordinator
        found = await coordinator.fetch_committed_offsets([TopicPartition(*tp) for tp in tps])
        return {TP(*tp): meta.offset for tp, meta in found.items() if meta.offset >= 0}

    async def bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        """The first offset of each log, and the one that its next record will get."""
        fetcher, wanted = self._ensure_consumer()._fetcher, [TopicPartition(*tp) for tp in tps]
        beginnings = await fetcher.beginning_offsets(wanted, int(CALL_S * 1_000))
        ends = await fetcher.end_offsets(wanted, int(CALL_S * 1_000))
        return {TP(*tp): (beginnings[tp], ends[tp]) for tp in wanted}

    async def look_for_topics(self) -> None:
        """
        Ask the broker again for topics that it did not know.

        A broker that has just started knows none, and a group whose leader asked it then has nothing assigned. aiokafka
        would ask again when its metadata is old, and rejoins when it changes.
        """
        consumer = self._ensure_consumer()
        cluster = consumer._client.cluster
        if not all(cluster.partitions_for_topic(topic) for topic in consumer._subscription.topics):
            await consumer._client.force_metadata_update()

    async def seek_to(self, offsets: Mapping[TP, int]) -> None:
        """Read on from there."""
        for tp, offset in offsets.items():
            self._ensure_consumer().seek(TopicPartition(*tp), offset)

    async def seek_stock_to_committed(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        """Faust's own seek, for these partitions; returns the group's offsets."""
        if not tps:  # to aiokafka, that would mean all partitions
            return {}
        found = await self._ensure_consumer().seek_to_committed(*[TopicPartition(*tp) for tp in tps])
        return {TP(*tp): offset for tp, offset in found.items()}


def _read(fetcher: Any, tp: TopicPartition, result: Any, want: Want) -> Fetched | None:
    """
    A slice of what aiokafka has fetched, as `FetchResult.getall` takes it, but bounded in bytes and told by position.

    Nothing is taken if it does not begin where the partition stands: the main loop decides what that means.
    """
    if type(result) is not FetchResult:
        _fetch_again(fetcher, tp)
        return Fetched(want.inflight, [], want.position, want.position, error=result._error)
    if not result.check_assignment(tp) or not result.has_more():
        _fetch_again(fetcher, tp)
        return None
    source = result._partition_records
    first_offset = source.next_fetch_offset
    if first_offset != want.position:
        return Fetched(want.inflight, [], first_offset, first_offset)
    records: list[ConsumerRecord] = []
    size_bytes, max_bytes, max_records = 0, want.max_bytes, want.max_records
    try:
        for record in source:
            records.append(record)
            # `size_of`, written out: this is the innermost loop
            size_bytes += RECORD_BYTES + record.serialized_key_size + record.serialized_value_size
            for name, value in record.headers:
                size_bytes += len(name) + len(value or b"")
            if size_bytes >= max_bytes or len(records) >= max_records:
                result._update_position()
                break
        else:
            result._update_position()
            _fetch_again(fetcher, tp)
    except Exception as exc:  # corrupt, or compressed with what is not installed: the main loop logs it
        _fetch_again(fetcher, tp)
        return Fetched(want.inflight, [], want.position, want.position, error=exc)
    if source.next_fetch_offset == first_offset:  # the slice before this one was cut just where the fetch ended
        return None
    return Fetched(want.inflight, records, first_offset, source.next_fetch_offset, size_bytes)


def _fetch_again(fetcher: Any, tp: TopicPartition) -> None:
    """Let aiokafka ask the broker for what follows the partition's position."""
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)
