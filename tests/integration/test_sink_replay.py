"""Replay's SQL: shadow tables, the comparison, and mending that inserts and folds but never deletes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from sinks.base import Dead, Place, Record
from sinks.hash import table_hash
from sinks.ledger import verify
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from sinks.replay import Mended, compare, leftovers, mend, refold, shadow
from tests.faults.stage import until
from tests.integration.test_sink_conformance import dead_of
from tests.model.history import PLACE, RUN, record
from tillstream.doctor import postgres_server

LATER_RUN = UUID(int=2)
RUNS = [RUN, LATER_RUN]
DEAD = Dead("e5", RUN, 4, "letter", "invalid_amount")


def log() -> list[Record]:
    """Five records at offsets 0 to 3 and 5; at 4 lies one that died."""
    return [
        record("authorised", 100, at=1, event_id="e1", offset=0),
        record("succeeded", 100, at=2, event_id="e2", offset=1),
        record("refunded", 30, at=3, event_id="e3", offset=2),
        record("failed", 5, reference="002", event_id="e4", offset=3),
        record("succeeded", 100, at=2, event_id="e2", offset=5, run=LATER_RUN),
    ]


@pytest.fixture
async def live(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    sink = await PostgresSink.open(database)
    await sink.apply(PLACE, log(), [DEAD], next_offset=6)
    yield sink
    await sink.close()


async def difference(
    live: PostgresSink, dsn: str, records: Sequence[Record], *, start: int = 0, end: int = 6
) -> list[str]:
    async with shadow(dsn, "test") as replayed:
        await replayed.apply(PLACE, records, [DEAD], next_offset=end)
        found = await compare(live.pool, replayed.schema, topic=PLACE.topic, starts={0: start}, ends={0: end})
    return [f"{one.problem}: {one.subject[:4]}" for one in found]


async def mended(live: PostgresSink, dsn: str) -> Mended:
    async with shadow(dsn, "test") as replayed:
        await replayed.apply(PLACE, log(), [DEAD], next_offset=6)
        return await mend(live, replayed.schema)


async def test_a_whole_replay_agrees_with_the_tables_and_leaves_nothing_behind(
    live: PostgresSink, database: str
) -> None:
    assert await difference(live, database, log()) == []

    assert await leftovers(live.pool) == []


async def test_a_replay_of_a_part_agrees_although_what_it_folds_is_not_the_whole(
    live: PostgresSink, database: str
) -> None:
    assert await difference(live, database, log()[2:], start=2) == []


@pytest.mark.parametrize("run", RUNS)
async def test_a_replay_that_meets_the_records_of_one_event_id_in_another_order_finds_and_mends_nothing(
    live: PostgresSink, database: str, run: UUID
) -> None:
    """They lie in two partitions, so which is first is nobody's promise; that one is stored and one dead, is."""
    here = record("succeeded", 10, reference="010", event_id="twice", offset=6)
    there = record("succeeded", 20, reference="020", event_id="twice", offset=0, run=run)
    other_place = Place(PLACE.topic, 1)
    await live.apply(PLACE, [here], next_offset=7)
    await live.apply(other_place, [], [dead_of(there)], next_offset=1)
    before, ledger = await table_hash(live.pool), await counts(live)

    async with shadow(database, "test") as replayed:
        await replayed.apply(other_place, [there], next_offset=1)
        await replayed.apply(PLACE, log(), [DEAD, dead_of(here)], next_offset=7)
        starts, ends = {0: 0, 1: 0}, {0: 7, 1: 1}
        assert await compare(live.pool, replayed.schema, topic=PLACE.topic, starts=starts, ends=ends) == []
        assert await mend(live, replayed.schema) == Mended()

    assert await table_hash(live.pool) == before
    assert await counts(live) == ledger
    assert await verify(live.pool) == []


async def test_deaths_under_known_event_ids_come_back_with_a_restored_database(
    live: PostgresSink, database: str
) -> None:
    other = record("succeeded", 99, at=2, event_id="e2", offset=6)
    ledger = await counts(live)
    async with shadow(database, "test") as replayed:
        await replayed.apply(PLACE, log(), [DEAD, dead_of(other)], next_offset=7)
        mended_now = await mend(live, replayed.schema)

    assert mended_now == Mended(deaths=1)
    assert await counts(live) != ledger
    assert await verify(live.pool) == []


async def test_shadow_hashes_equal_the_live_ones_and_each_other(live: PostgresSink, database: str) -> None:
    async with shadow(database, "once") as once, shadow(database, "again") as again:
        await once.apply(PLACE, log(), [DEAD], next_offset=6)
        for one in [*reversed(log()), *log()]:
            await again.apply(PLACE, [one], next_offset=None)

        expected = await table_hash(live.pool)

        assert await table_hash(once.pool, schema=once.schema) == expected
        assert await table_hash(again.pool, schema=again.schema) == expected


@pytest.mark.parametrize(
    ("tampering", "named"),
    [
        ("DELETE FROM payment_events WHERE event_id = 'e3'", "in the log, not in the tables: e3"),
        ("DELETE FROM event_repeats", "in the log, not in the tables: e2"),
        ("DELETE FROM event_deaths", "in the log, not in the tables: e5"),
        ("DELETE FROM payments WHERE reference = '002'", "payment missing: eyJw"),
        ("UPDATE payments SET amount = 1 WHERE reference = '002'", "payment differs: eyJw"),
    ],
)
async def test_what_was_lost_or_altered_by_hand_is_named_and_mended(
    live: PostgresSink, database: str, tampering: str, named: str
) -> None:
    before = await table_hash(live.pool)
    await live.pool.execute(tampering)

    assert named in await difference(live, database, log())
    await mended(live, database)

    assert await difference(live, database, log()) == []
    assert await verify(live.pool) == []
    assert await table_hash(live.pool) == before


async def test_everything_that_a_restored_database_lacks_is_inserted_and_counted_once(
    live: PostgresSink, database: str
) -> None:
    before, ledger = await table_hash(live.pool), await counts(live)
    for table in ("payments", "payment_events", "event_origins", "event_repeats", "event_deaths", "run_ledger"):
        await live.pool.execute(f"DELETE FROM {table}")

    first, second = await mended(live, database), await mended(live, database)

    assert first == Mended(events=4, repeats=1, deaths=1, payments=2)
    assert second == Mended()
    assert await table_hash(live.pool) == before
    assert await counts(live) == ledger
    assert await verify(live.pool) == []


async def test_an_event_of_a_key_that_lost_its_first_comes_back_as_a_duplicate_and_the_ledger_agrees(
    live: PostgresSink, database: str
) -> None:
    again = [record("refunded", 30, at=3, event_id="e6", offset=6, run=LATER_RUN)]
    await live.apply(PLACE, again, next_offset=7)
    await live.pool.execute("DELETE FROM payment_events WHERE event_id = 'e3'")

    await mended(live, database)

    assert await verify(live.pool) == []


@pytest.mark.parametrize("lost", ["first", "again"])
async def test_of_two_events_of_one_key_either_may_be_lost_and_comes_back(
    live: PostgresSink, database: str, lost: str
) -> None:
    """Where the first is lost, the other one's run applied it and repeated nothing: an outcome falls to zero."""
    one, other = UUID(int=77), UUID(int=78)
    first = record("refunded", 30, at=9, reference="090", event_id="first", offset=6, run=one)
    again = record("refunded", 30, at=9, reference="090", event_id="again", offset=7, run=other)
    for each in (first, again):
        await live.apply(PLACE, [each], next_offset=each.offset + 1)
    await live.pool.execute("DELETE FROM payment_events WHERE event_id = $1", lost)
    assert await verify(live.pool) != []

    async with shadow(database, "test") as replayed:
        await replayed.apply(PLACE, [*log(), first, again], [DEAD], next_offset=8)
        where = {"topic": PLACE.topic, "starts": {0: 0}, "ends": {0: 8}}
        found = await compare(live.pool, replayed.schema, **where)
        done = await mend(live, replayed.schema)
        left = await compare(live.pool, replayed.schema, **where)

    assert [(each.problem, each.subject) for each in found] == [("in the log, not in the tables", lost)]
    assert (done.events, left, await verify(live.pool)) == (1, [], [])
    shares = {run: outcome for run, outcome, *_ in await counts(live) if run in {one, other}}
    expected = {"first": {one: "duplicate", other: "applied"}, "again": {one: "applied", other: "duplicate"}}
    assert shares == expected[lost]


async def test_an_event_that_the_log_never_had_is_named_and_stays(live: PostgresSink, database: str) -> None:
    await live.apply(PLACE, [record("succeeded", 7, reference="003", event_id="forged", offset=5)], next_offset=6)

    assert await difference(live, database, log()) == ["in the tables, not in the log: forg"]
    await mended(live, database)

    assert await difference(live, database, log()) == ["in the tables, not in the log: forg"]


async def test_refolding_right_payments_changes_none(live: PostgresSink) -> None:
    assert await refold(live) == Mended()


REPLAY = """
import asyncio, sys
from sinks.replay import shadow

async def main():
    async with shadow(sys.argv[1], "killed"):
        print("made", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_replay_leaves_behind_is_told_and_dropped_by_the_next_and_a_living_ones_is_not(
    live: PostgresSink, database: str
) -> None:
    """A schema of the same name that somebody else made is nobody's business."""
    await live.pool.execute("CREATE SCHEMA replay_of_a_match")
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLAY, database, stdout=asyncio.subprocess.PIPE
    )
    assert killed.stdout is not None
    assert await killed.stdout.readline() == b"made\n"
    assert await leftovers(live.pool) == []

    async with shadow(database, "living"):
        killed.kill()
        await killed.wait()

        async def told() -> bool:
            return await leftovers(live.pool) == ["replay_killed"]

        await until(told)
        assert "replay_killed" in str([each for each in await postgres_server(database) if not each.ok])
        async with shadow(database, "next"):
            assert await schemas(live) == ["replay_living", "replay_next", "replay_of_a_match"]
    assert await schemas(live) == ["replay_of_a_match"]


async def schemas(sink: PostgresSink) -> list[str]:
    rows = await sink.pool.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'replay%' ORDER BY 1")
    return [row["nspname"] for row in rows]


async def counts(sink: PostgresSink) -> list[tuple[object, ...]]:
    return [
        tuple(row)
        for row in await sink.pool.fetch(
            "SELECT run, outcome, events, digest_sum FROM run_ledger ORDER BY run, outcome"
        )
    ]
