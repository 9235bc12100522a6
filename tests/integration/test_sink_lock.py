"""The lock of the partition comes first, in a statement of its own; and mutants that do otherwise lose money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.errors import EventIdReused, SinkUnavailable
from sinks.base import Applied, Place
from sinks.ledger import verify
from sinks.migrate import migrate
from sinks.pool import Connection, Timeouts
from sinks.postgres import PostgresSink, partition_lock
from tests.model.history import PLACE, record
from tillstream.embedded.process import holds

OTHER_PLACE = Place(PLACE.topic, 1)
SOON_S = 10.0
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


class WithoutSecondLook(PostgresSink):
    """Blind to what other partitions wrote to its payments, which would show without the lock too."""

    async def _missed_some(self, held: Connection, row: Any) -> bool:
        return False


class LockInsideTheStatement(WithoutSecondLook):
    """A mutant: the statement takes the lock itself, so its snapshot is older than the lock."""

    def mutate(self) -> None:
        key = partition_lock(self.schema, PLACE)
        inside = self._sql["apply_records"].replace(
            "FROM unnest($16", f"FROM (SELECT pg_advisory_xact_lock({key}) OFFSET 0) AS lock, unnest($16"
        )
        assert inside != self._sql["apply_records"]
        self._sql = {
            **self._sql,
            "lock_partition": "BEGIN ISOLATION LEVEL READ COMMITTED",
            "apply_records": inside,
        }


class NoLock(WithoutSecondLook):
    """A mutant: nobody takes the lock."""

    def mutate(self) -> None:
        self._sql = {**self._sql, "lock_partition": "BEGIN ISOLATION LEVEL READ COMMITTED"}


async def wait_for_a_waiter(sink: PostgresSink) -> None:
    async def somebody_waits() -> bool:
        return bool(await sink.pool.fetchval(WAITING))

    assert await holds(somebody_waits, within_s=SOON_S)


async def captured_and_refunded_at_once(first: PostgresSink, second: PostgresSink) -> int:
    """The amount, after `second` had to wait for what `first` wrote to the same payment, which both know."""
    await first.apply(PLACE, [record("authorised", 100)], next_offset=1)
    async with first.locked(PLACE) as held:
        prepared = first.prepare([record("captured", 100, reference="c", parent="001")])
        await held.fetchrow(first._sql["apply_records"], PLACE.topic, 0, 1, *prepared.waves[0].parameters(PLACE))
        waiting = asyncio.create_task(second.apply(PLACE, [record("refunded", 30)], next_offset=2))
        await wait_for_a_waiter(first)
        await held.execute("COMMIT")
    assert await waiting == Applied(applied=1)
    return int(await first.pool.fetchval("SELECT amount FROM payments"))


async def test_a_fold_that_waited_for_the_lock_sees_what_was_written_meanwhile(sink: PostgresSink) -> None:
    assert await captured_and_refunded_at_once(sink, sink) == 70

    assert await verify(sink.pool) == []


@pytest.mark.parametrize("mutant", [LockInsideTheStatement, NoLock])
async def test_money_is_lost_where_the_snapshot_is_older_than_the_lock_or_there_is_none(
    sink: PostgresSink, mutant: type[LockInsideTheStatement | NoLock]
) -> None:
    mutated = mutant(sink.pool)
    mutated.mutate()

    assert await captured_and_refunded_at_once(sink, mutated) == -30


async def test_many_connections_on_one_payment_lose_nothing(sink: PostgresSink) -> None:
    slices = [[record("captured", 1, reference=f"c{number}", parent="001")] for number in range(60)]

    outcomes = await asyncio.gather(*(sink.apply(PLACE, one, next_offset=None) for one in slices))

    assert sum(one.applied for one in outcomes) == 60
    assert await sink.pool.fetchval("SELECT amount FROM payments") == 60
    assert await verify(sink.pool) == []


async def test_partitions_do_not_wait_for_one_another(sink: PostgresSink) -> None:
    async with sink.locked(PLACE):
        async with asyncio.timeout(SOON_S):
            applied = await sink.apply(OTHER_PLACE, [record("succeeded")], next_offset=1)

    assert applied == Applied(applied=1)


@pytest.mark.parametrize("reference", ["a", "b"])
async def test_one_event_id_written_by_two_partitions_at_once_has_one_outcome_each(
    sink: PostgresSink, reference: str
) -> None:
    """No producer of ours does that; another team's may, for one record or for two."""
    second = record("succeeded", reference=reference, event_id="e")
    async with sink.locked(PLACE) as held:
        prepared = sink.prepare([record("succeeded", reference="a", event_id="e")])
        await held.fetchrow(sink._sql["apply_records"], PLACE.topic, 0, 1, *prepared.waves[0].parameters(PLACE))
        waiting = asyncio.create_task(sink.apply(OTHER_PLACE, [second], next_offset=1))
        await wait_for_a_waiter(sink)
        await held.execute("COMMIT")

    if reference == "a":
        assert await waiting == Applied(redelivered=1)
    else:
        with pytest.raises(EventIdReused):
            await waiting
    assert await verify(sink.pool) == []


@pytest.mark.parametrize(("opened", "amount"), [(PostgresSink, 70), (WithoutSecondLook, -30)])
async def test_one_payment_written_by_two_partitions_at_once_loses_nothing_because_of_a_second_look(
    sink: PostgresSink, opened: type[PostgresSink], amount: int
) -> None:
    """No producer of ours does that; one with another partitioner may, and so may a redrive of what it wrote."""
    second = opened(sink.pool)
    await sink.apply(PLACE, [record("authorised", 100)], next_offset=1)
    async with sink.locked(PLACE) as held:
        prepared = sink.prepare([record("captured", 100, reference="c", parent="001")])
        await held.fetchrow(sink._sql["apply_records"], PLACE.topic, 0, 1, *prepared.waves[0].parameters(PLACE))
        waiting = asyncio.create_task(second.apply(OTHER_PLACE, [record("refunded", 30)], next_offset=2))
        await wait_for_a_waiter(sink)
        await held.execute("COMMIT")

    assert await waiting == Applied(applied=1)
    assert await sink.pool.fetchval("SELECT amount FROM payments") == amount
    assert bool(await verify(sink.pool)) == (amount != 70)


async def test_a_client_frozen_inside_its_transaction_does_not_hold_the_partition_for_ever(database: str) -> None:
    await migrate(database)
    frozen = await PostgresSink.open(database, timeouts=Timeouts(idle_s=0.3))
    successor = await PostgresSink.open(database)

    outcomes = []

    async def thaw_too_late() -> None:
        async with frozen.locked(PLACE) as held:
            prepared = frozen.prepare([record("succeeded", 100)])
            await held.fetchrow(frozen._sql["apply_records"], PLACE.topic, 0, 1, *prepared.waves[0].parameters(PLACE))
            async with asyncio.timeout(SOON_S):
                outcomes.append(await successor.apply(PLACE, [record("failed", 5)], next_offset=1))
            await held.execute("COMMIT")

    with pytest.raises(SinkUnavailable):
        await thaw_too_late()

    assert outcomes == [Applied(applied=1)]
    assert await successor.pool.fetchval("SELECT status FROM payments") == "failed"
    await frozen.close()
    await successor.close()


async def test_waiting_for_a_lock_ends_and_is_told_as_unavailable(database: str, sink: PostgresSink) -> None:
    impatient = await PostgresSink.open(database, timeouts=Timeouts(lock_s=0.1))

    async with sink.locked(PLACE):
        with pytest.raises(SinkUnavailable) as told:
            await impatient.apply(PLACE, [record("succeeded")], next_offset=1)

    assert told.value.sqlstate == "55P03"
    assert await impatient.apply(PLACE, [record("succeeded")], next_offset=1) == Applied(applied=1)
    await impatient.close()
