"""Reading a range of a topic outside any group: for replay and for proofs. Commits nothing, moves no live consumer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import BrokerUnavailable
from streams.batch import read_any_header
from streams.closing import closed
from streams.slice import Slice

SLICE_RECORDS = 2_000
_STALL_S = 30.0
_FETCH_WAIT_MS = 1_000
_REQUEST_TIMEOUT_MS = 15_000


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets to read of one topic: from `starts` up to, not including, `ends`, by partition."""

    topic: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def records(self) -> int:
        """How many offsets the range spans."""
        return sum(max(0, end - self.starts[partition]) for partition, end in self.ends.items())


async def find_range(bootstrap: str, topic: str, since: datetime | None = None, until: datetime | None = None) -> Range:
    """
    The offsets of `topic` published between `since` (inclusive) and `until` (exclusive), by the broker's record times.

    Without bounds: everything there is now.

    Raises:
        BrokerUnavailable: retry.
    """
    async with _Groupless(bootstrap, f"the range of {topic}") as consumer:
        partitions = await _partitions(consumer, topic)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        starts, stops = dict(begins), dict(ends)
        if since is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1_000)))
            starts = {p: found[p].offset if found.get(p) else ends[p] for p in partitions}
        if until is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(until.timestamp() * 1_000)))
            stops = {p: found[p].offset if found.get(p) else ends[p] for p in partitions}
    return Range(topic, {p.partition: starts[p] for p in partitions}, {p.partition: stops[p] for p in partitions})


async def read(
    bootstrap: str, wanted: Range, *, slice_records: int = SLICE_RECORDS, stall_s: float = _STALL_S
) -> AsyncIterator[Slice]:
    """
    The range's records as slices: in offset order within a partition, partitions interleaved.

    Raises:
        BrokerUnavailable: retry from the beginning; nothing arrived for `stall_s` seconds of waiting.
    """
    left = {p: end for p, end in wanted.ends.items() if wanted.starts[p] < end}
    if not left:
        return
    async with _Groupless(bootstrap, f"reading {wanted.topic}") as consumer:
        consumer.assign([TopicPartition(wanted.topic, p) for p in left])
        for partition in left:
            consumer.seek(TopicPartition(wanted.topic, partition), wanted.starts[partition])
        waited_s, before = 0.0, dict[int, int]()
        while left:
            asked_at = time.monotonic()
            async with asyncio.timeout(stall_s):
                fetched = await consumer.getmany(timeout_ms=_FETCH_WAIT_MS, max_records=slice_records)
                positions = {p: await consumer.position(TopicPartition(wanted.topic, p)) for p in left}
            # What a slice takes whoever reads us is not the broker's time. A broker that is gone answers nothing, too.
            moved = bool(fetched) or positions != before
            waited_s, before = 0.0 if moved else waited_s + time.monotonic() - asked_at, positions
            if waited_s >= stall_s:
                raise TimeoutError(f"nothing arrived for {waited_s:.0f} s")
            for place, records in fetched.items():
                end = left.get(place.partition)
                if end is None:
                    continue
                inside = [record for record in records if record.offset < end]
                if inside:
                    first, after = inside[0].offset, inside[-1].offset + 1
                    yield Slice(place.topic, place.partition, inside, first, after, _bytes(inside))
            for partition, position in positions.items():
                if position >= left[partition]:  # also past gaps that compaction or transactions left
                    del left[partition]
                    consumer.pause(TopicPartition(wanted.topic, partition))


class _Groupless:
    """A consumer without a group, its errors in our terms."""

    def __init__(self, bootstrap: str, what: str) -> None:
        self._bootstrap = bootstrap
        self._what = what

    async def __aenter__(self) -> AIOKafkaConsumer:
        read_any_header()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        try:
            await asyncio.wait_for(self._consumer.start(), _STALL_S)
        except (KafkaError, TimeoutError, OSError) as exc:
            await closed(self._consumer.stop())
            raise BrokerUnavailable(f"{self._what}: {type(exc).__name__} {exc}") from exc
        return self._consumer

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        await closed(self._consumer.stop())
        if isinstance(exc, KafkaError | TimeoutError | OSError):
            raise BrokerUnavailable(f"{self._what}: {type(exc).__name__} {exc}") from exc


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    await consumer._client.force_metadata_update()  # noqa: SLF001  aiokafka offers no public call before an assignment
    found = consumer.partitions_for_topic(topic)
    if not found:
        raise BrokerUnavailable(f"topic {topic} has no partitions: is it provisioned?")
    return [TopicPartition(topic, partition) for partition in sorted(found)]


def _bytes(records: list[ConsumerRecord[bytes | None, bytes | None]]) -> int:
    return sum(len(record.key or b"") + len(record.value or b"") for record in records)
