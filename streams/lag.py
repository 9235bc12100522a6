"""
Lag, measured from outside: end offsets, the group's committed offsets, and the age of the first event nobody has
processed.

It asks the broker alone, in a process that does not consume, so it goes on telling the truth while the consumer is
stuck, frozen or dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.errors import BrokerUnavailable

_REQUEST_TIMEOUT_MS = 10_000
_FETCH_WAIT_MS = 2_000
_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """
    One partition of one group. `committed` is None for a group that never committed there.

    `lag_s` is the age of the first unprocessed event by the broker's clock, 0 when there is none.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    begin: int
    end: int
    lag_events: int
    lag_s: float


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

    async def close(self) -> None:
        """Drop the connections."""
        admin, consumer = self._admin, self._consumer
        self._admin = self._consumer = None
        for client in (consumer.stop() if consumer else None, admin.close() if admin else None):
            if client is not None:
                try:
                    await asyncio.wait_for(client, 5.0)
                except (KafkaError, TimeoutError, OSError):
                    continue

    async def measure(self, group: str, topics: Sequence[str]) -> list[PartitionLag]:
        """
        The lag of `group` on every partition of `topics`, by topic and partition.

        Raises:
            BrokerUnavailable: retry.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._measure(group, topics)
        except (KafkaError, TimeoutError, OSError) as exc:
            await self.close()
            raise BrokerUnavailable(f"cannot measure the lag of {group}: {type(exc).__name__} {exc}") from exc

    async def _measure(self, group: str, topics: Sequence[str]) -> list[PartitionLag]:
        admin, consumer = await self._connected()
        described = await admin.describe_topics(list(topics))
        partitions = sorted(
            TopicPartition(topic["topic"], item["partition"]) for topic in described for item in topic["partitions"]
        )
        if not partitions:
            return []
        committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        places = {}
        for partition in partitions:
            known = committed.get(partition)
            offset = known.offset if known is not None and known.offset >= 0 else None
            places[partition] = max(begins[partition], offset if offset is not None else begins[partition])
        ages = await self._ages(consumer, {p: at for p, at in places.items() if at < ends[p]})
        result = []
        for partition in partitions:
            known = committed.get(partition)
            result.append(
                PartitionLag(
                    group,
                    partition.topic,
                    partition.partition,
                    known.offset if known is not None and known.offset >= 0 else None,
                    begins[partition],
                    ends[partition],
                    max(0, ends[partition] - places[partition]),
                    ages.get(partition, 0.0),
                )
            )
        return result

    async def _ages(self, consumer: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> dict[TopicPartition, float]:
        """How old the record at each place is; a place with no record left (compaction) is not in the answer."""
        if not places:
            return {}
        consumer.assign(list(places))
        for partition, offset in places.items():
            consumer.seek(partition, offset)
        ages: dict[TopicPartition, float] = {}
        until = time.monotonic() + _FETCH_WAIT_MS / 1_000
        while len(ages) < len(places) and time.monotonic() < until:
            waiting = [partition for partition in places if partition not in ages]
            for partition, records in (await consumer.getmany(*waiting, timeout_ms=500, max_records=1)).items():
                if records:
                    ages[partition] = max(0.0, time.time() - records[0].timestamp / 1_000)
                    consumer.pause(partition)
        return ages

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
            await self._admin.start()
        if self._consumer is None:
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
