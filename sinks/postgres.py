"""
PostgresSink: events become payments, one transaction per call.

The order of statements is the promise (docs/decisions): first the lock of the partition, in a statement of its own;
then event rows, outcomes, the fold, payments, ledger and offset, from a snapshot that is younger than the lock.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from schemas.errors import EventIdReused, SinkRefused, SinkRewound, SinkUnavailable
from schemas.identity import content_hash, event_digest
from sinks.base import Applied, Dead, Place, Record
from sinks.pool import DEFAULT_TIMEOUTS, Connection, Pool, Timeouts, close_pool, connection, open_pool
from sinks.prepared import Preparation, Prepared, fast_uuid, prepare
from sinks.statement import LIVE_SCHEMA, statements

logger = logging.getLogger(__name__)

# asyncpg's records are mappings of anything
Row: TypeAlias = Mapping[str, Any]

# How often a call starts again because another partition wrote its event ids, or events of its payments, meanwhile.
_ATTEMPTS = 3
_TAKEN = "23505"  # unique violation: a payment that seemed new is there

# The statement is planned once per connection, without a look at values or statistics, and never reads a table whole.
# Statistics of a table that grows from nothing are wrong at every moment: planned by them, it scanned all event rows.
PLANNER = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_nestloop": "off",
    "work_mem": "16MB",
}


def partition_lock(schema: str, place: Place) -> int:
    """The key of the advisory lock of one partition: every writer of its payments takes it first."""
    text = f"{schema}\n{place.topic}\n{place.partition}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], signed=True)


class PostgresSink:
    """The sink in PostgreSQL. Open it with `PostgresSink.open`; calls may run at the same time, one per partition."""

    def __init__(self, pool: Pool, *, schema: str = LIVE_SCHEMA, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self.pool = pool
        self.schema = schema
        self.timeouts = timeouts
        self._sql = statements(schema)
        self._reached: dict[
            Place, int
        ] = {}  # the offsets that this sink found or stored: less means a restored database

    @classmethod
    async def open(
        cls, dsn: str, *, pool_size: int = 4, schema: str = LIVE_SCHEMA, timeouts: Timeouts = DEFAULT_TIMEOUTS
    ) -> PostgresSink:
        """
        A sink on the migrated database at `dsn`.

        Raises:
            SinkUnavailable: retry. SinkMisconfigured: pause; also where the server may lose acknowledged commits.
        """
        pool = await open_pool(dsn, size=pool_size, timeouts=timeouts, application="till-sink", settings=PLANNER)
        return cls(pool, schema=schema, timeouts=timeouts)

    async def close(self) -> None:
        """Let go of every connection, within seconds."""
        await close_pool(self.pool)

    @staticmethod
    def prepare(records: Sequence[Record], dead: Sequence[Dead] = ()) -> Prepared:
        """What `apply_prepared` sends. Pure CPU."""
        return prepare(records, dead)

    def preparation(self) -> Preparation:
        """As the protocol says: digests and encoded columns, so that the transaction only sends."""
        return Preparation()

    async def apply(
        self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
    ) -> Applied:
        """As the protocol says."""
        return await self.apply_prepared(place, prepare(records, dead), next_offset=next_offset)

    async def apply_prepared(self, place: Place, prepared: Prepared, *, next_offset: int | None) -> Applied:
        """As `apply`, from what `prepare` returned; calling it again with the same is safe."""
        statement = "apply_records"
        for _ in range(_ATTEMPTS):
            try:
                applied = await self._transaction(place, prepared, next_offset, statement)
            except SinkRefused as exc:
                if exc.sqlstate != _TAKEN or statement == "apply_carefully":
                    raise
                statement = "apply_carefully"
            else:
                if applied is not None:
                    return applied
        raise SinkUnavailable("another partition keeps writing the same events or payments")

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """As the protocol says."""
        async with connection(self.pool, timeouts=self.timeouts) as held:
            found = {row[0]: row[1] for row in await held.fetch(self._sql["next_offsets"], topic)}
        others = {place: offset for place, offset in self._reached.items() if place.topic != topic}
        self._reached = others | {Place(topic, partition): offset for partition, offset in found.items()}
        return found

    async def is_counted(self, place: Place, record: Record) -> bool:
        """As the protocol says."""
        which = (fast_uuid(event_digest(record.event_id)), record.run_id, fast_uuid(content_hash(record.payment)))
        where = (place.topic, place.partition, record.offset)
        async with connection(self.pool, timeouts=self.timeouts) as held:
            return bool(await held.fetchval(self._sql["is_counted"], *which, *where))

    @asynccontextmanager
    async def locked(self, place: Place) -> AsyncIterator[Connection]:
        """
        A connection in a READ COMMITTED transaction that holds the partition's lock; the body commits.

        BEGIN and the lock travel together, as two statements: what follows has a snapshot younger than the lock.
        """
        async with connection(self.pool, timeouts=self.timeouts) as held:
            await held.execute(self._sql["lock_partition"].format(lock=partition_lock(self.schema, place)))
            yield held

    async def _missed_some(self, held: Connection, row: Row) -> bool:
        """Whether another partition wrote events of the payments just folded, after our snapshot."""
        if not row["payments"]:
            return False
        return bool(await held.fetchval(self._sql["count_events"], row["payments"]) != row["folded"])

    def _check_reached(self, place: Place, row: Row | None) -> None:
        """Refuse to go on above a gap: whoever starts begins where the database stands."""
        expected, found = self._reached.get(place), None if row is None else row["reached"]
        if expected is not None and (found is None or found < expected):
            raise SinkRewound(
                f"the database holds {place.topic} partition {place.partition} up to offset {found}, this process had"
                f" stored it up to {expected}: it was restored"
            )

    async def _transaction(
        self, place: Place, prepared: Prepared, next_offset: int | None, statement: str
    ) -> Applied | None:
        applied = duplicate = dead = stale = 0
        reused: Sequence[int] = ()
        where = (place.topic, place.partition, next_offset)
        async with self.locked(place) as held:
            for wave in prepared.waves:
                row = await held.fetchrow(self._sql[statement], *where, *wave.parameters(place))
                self._check_reached(place, row)
                if row["unseen"] or await self._missed_some(held, row):
                    await held.execute("ROLLBACK")
                    return None
                if reused := row["reused"]:
                    await held.execute("ROLLBACK")
                    break
                applied += row["applied"]
                duplicate += row["duplicate"]
                stale += row["stale"]
            else:
                if prepared.dead is not None:
                    row = await held.fetchrow(self._sql["count_dead"], *where, *prepared.dead)
                    self._check_reached(place, row)
                    dead = row["dead"]
                if not prepared.waves and prepared.dead is None and next_offset is not None:
                    self._check_reached(place, await held.fetchrow(self._sql["reached"], place.topic, place.partition))
                    await held.execute(self._sql["advance_offset"], *where)
                await held.execute("COMMIT")
        if reused:  # told outside, so that the connection stays
            raise EventIdReused(reused)
        if next_offset is not None:
            self._reached[place] = max(next_offset, self._reached.get(place, next_offset))
        sent = prepared.records + prepared.dead_records
        return Applied(
            applied=applied, duplicate=duplicate, dead=dead, redelivered=sent - applied - duplicate - dead, stale=stale
        )
