"""
Lag, measured from outside: end offsets, where the group would start now, and the age of the first event nobody has
processed.

It asks the broker, in a process that does not consume, so it goes on telling the truth while the consumer is stuck,
frozen or dead. A group whose effects are stored with offsets of their own starts from the lower of both: a database
that was restored shows as lag at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.errors import BrokerUnavailable
from streams.batch import read_any_header
from streams.closing import closed
from streams.position import start_of

# The next offset of each partition as the group's store has it; None: the store does not tell. Raises nothing.
Stored: TypeAlias = Callable[[], Awaitable[Mapping[int, int] | None]]

_REQUEST_TIMEOUT_MS = 10_000
_FETCH_WAIT_MS = 2_000
_FIRST_WAIT_MS = 100
_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """
    One partition of one group. `committed` is None for a group that never committed there; `stored` is None where no
    store was asked, or it has nothing of the partition.

    What comes after the lower of the two is unprocessed. `lag_s` is the age of the first such event by the broker's
    clock, 0 when there is none.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    stored: int | None
    begin: int
    end: int
    lag_events: int
    lag_s: float

    @property
    def rewound(self) -> bool:
        """Whether the store holds less than the group committed: it was restored, and the group has to start again."""
        return self.committed is not None and self.stored is not None and self.stored < self.committed


class LagProbe:
    """Measures the lag of groups. Use as `async with`; a failed measurement leaves it usable."""

    def __init__(self, bootstrap: str, *, deadline_s: float = _DEADLINE_S) -> None:
        self._bootstrap = bootstrap
        self._deadline_s = deadline_s
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> LagProbe:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether it has connections from an earlier measurement, which the broker may have dropped meanwhile."""
        return self._consumer is not None

    async def close(self) -> None:
        """Drop the connections."""
        admin, consumer = self._admin, self._consumer
        self._admin = self._consumer = None
        for client in (consumer.stop() if consumer else None, admin.close() if admin else None):
            if client is not None:
                await closed(client)

    async def measure(self, group: str, topic: str, *, stored: Stored | None = None) -> list[PartitionLag]:
        """
        The lag of `group` on every partition of `topic`, by partition.

        Raises:
            BrokerUnavailable: retry.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                committed, begins = await self._committed(group, topic)
            # After the group's own, and before the ends: a store that is not behind cannot seem to be.
            held = None if stored is None else await stored()
            async with asyncio.timeout(self._deadline_s):
                return await self._measure(group, committed, begins, held)
        except (KafkaError, TimeoutError, OSError) as exc:
            await self.close()
            raise BrokerUnavailable(f"cannot measure the lag of {group}: {type(exc).__name__} {exc}") from exc

    async def _committed(
        self, group: str, topic: str
    ) -> tuple[dict[TopicPartition, int | None], dict[TopicPartition, int]]:
        """The group's offset of each partition, None where it has none, and the first offset of each."""
        admin, consumer = await self._connected()
        (described,) = await admin.describe_topics([topic])
        partitions = sorted(TopicPartition(topic, item["partition"]) for item in described["partitions"])
        if not partitions:
            return {}, {}
        known = await admin.list_consumer_group_offsets(group, partitions=partitions)
        offsets = {each: known[each].offset if each in known else -1 for each in partitions}
        committed = {each: offset if offset >= 0 else None for each, offset in offsets.items()}
        return committed, await consumer.beginning_offsets(partitions)

    async def _measure(
        self,
        group: str,
        committed: Mapping[TopicPartition, int | None],
        begins: Mapping[TopicPartition, int],
        stored: Mapping[int, int] | None,
    ) -> list[PartitionLag]:
        _, consumer = await self._connected()
        ends = await consumer.end_offsets(list(committed)) if committed else {}
        places = {
            each: start_of(each.partition, committed=offset, sink=stored, beginning=begins[each], end=ends[each]).offset
            for each, offset in committed.items()
        }
        ages = await self._ages(consumer, {each: at for each, at in places.items() if at < ends[each]})
        return [
            PartitionLag(
                group,
                each.topic,
                each.partition,
                offset,
                None if stored is None else stored.get(each.partition),
                begins[each],
                ends[each],
                max(0, ends[each] - places[each]),
                ages.get(each, 0.0),
            )
            for each, offset in committed.items()
        ]

    async def _ages(self, consumer: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> dict[TopicPartition, float]:
        """How old the record at each place is; a place with no record left (compaction) is not in the answer."""
        ages: dict[TopicPartition, float] = {}
        # One by one: asked for several, a broker returns one's record, and the client waits 100 ms before it asks on.
        for partition, offset in places.items():
            consumer.assign([partition])
            consumer.seek(partition, offset)
            ages |= _ages_of(await consumer.getmany(timeout_ms=_FIRST_WAIT_MS, max_records=1))
        if waiting := [partition for partition in places if partition not in ages]:
            ages |= await self._ages_together(consumer, {partition: places[partition] for partition in waiting})
        if places:
            consumer.assign([])  # or it would fetch on
        return ages

    async def _ages_together(
        self, consumer: AIOKafkaConsumer, places: dict[TopicPartition, int]
    ) -> dict[TopicPartition, float]:
        """The same, where the broker takes its time."""
        consumer.assign(list(places))
        for partition, offset in places.items():
            consumer.seek(partition, offset)
        ages: dict[TopicPartition, float] = {}
        until = time.monotonic() + _FETCH_WAIT_MS / 1_000
        while len(ages) < len(places) and time.monotonic() < until:
            waiting = [partition for partition in places if partition not in ages]
            found = _ages_of(await consumer.getmany(*waiting, timeout_ms=500, max_records=1))
            consumer.pause(*found)
            ages |= found
        return ages

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
            await self._admin.start()
        if self._consumer is None:
            read_any_header()
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=1,  # the first record is enough; a broker returns at least one
                max_partition_fetch_bytes=1,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
            )
            await self._consumer.start()
        return self._admin, self._consumer


# aiokafka ships no types
def _ages_of(found: Mapping[TopicPartition, Sequence[Any]]) -> dict[TopicPartition, float]:
    return {
        partition: max(0.0, time.time() - records[0].timestamp / 1_000)
        for partition, records in found.items()
        if records
    }
