"""A database that dies, freezes, locks, is full, loses a table or its memory: held visibly, healed without a letter."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from schemas.metric import NullMeter
from sinks.migrate import migrate
from sinks.pool import Timeouts
from sinks.postgres import PostgresSink
from streams.ingest import Hold, Ingest
from streams.publisher import LetterPublisher, Producer
from streams.reader import find_range, read
from tests import services
from tests.faults.stage import SESSION_S, Stage, open_stage, refuse_poison, until
from tests.faults.truth import History
from tests.services import Kafka
from tillstream.embedded.postgres import EmbeddedPostgres

TABLES = (
    "event_origins",
    "payment_events",
    "payments",
    "event_repeats",
    "event_deaths",
    "run_ledger",
    "sink_offsets",
)
END_SINKS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'till-sink'
"""


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    """A database server of the test's own, with few connections."""
    async with services.own_postgres(max_connections="20", superuser_reserved_connections="0") as running:
        yield running


@pytest.fixture
async def own_stage(kafka: Kafka, server: EmbeddedPostgres) -> AsyncIterator[Stage]:
    """A stage on that server."""
    async with open_stage(kafka.bootstrap, server.dsn) as made:
        yield made


async def test_a_database_killed_in_a_transaction_costs_time_and_no_record(
    own_stage: Stage, server: EmbeddedPostgres
) -> None:
    history, stage = History(seed=6), own_stage
    worker = stage.worker("patient")
    await stage.publish(history.load(100))
    await stage.drained()

    async with stage.observed():
        held = await asyncpg.connect(stage.dsn)
        await held.execute("BEGIN; LOCK TABLE payments IN SHARE MODE")
        await stage.publish(history.load(200))
        await until(stage.blocked, what="the worker is within its transaction")
        await stage.looked()
        server.kill()
        await worker.waits_for("partitions", "database")
        await worker.shows("tillstream_held", reason="database")
        await server.start()
        await stage.check(history.truth)

    assert await stage.letters() == 0
    assert await worker.reasons() == {}
    assert await worker.stop() == 0


async def test_a_frozen_database_costs_no_partition(own_stage: Stage, server: EmbeddedPostgres) -> None:
    history, stage = History(seed=7), own_stage
    worker = stage.worker("patient")
    await stage.publish(history.load(100))
    await stage.drained()
    started = worker.log.count("partition starts")

    server.freeze()
    try:
        await stage.publish(history.load(200))
        thaw_at = time.monotonic() + 1.5 * SESSION_S
        await until(lambda: time.monotonic() > thaw_at)
    finally:
        server.thaw()

    await stage.check(history.truth)
    assert worker.log.count("partition starts") == started
    assert await stage.letters() == 0
    assert await worker.stop() == 0


async def test_a_database_frozen_for_longer_is_given_up_visibly_and_its_connections_are_not_leaked(
    own_stage: Stage, server: EmbeddedPostgres
) -> None:
    history, stage = History(seed=8), own_stage
    await stage.publish(history.load(100))
    brief = Timeouts(connect_s=0.5, acquire_s=0.5, lock_s=0.5, statement_s=0.5, client_s=0.5)
    sink = await PostgresSink.open(stage.dsn, pool_size=2, timeouts=brief)
    try:
        async with Producer(stage.bootstrap) as producer:
            ingest = Ingest(sink, LetterPublisher(producer, stage.topics), NullMeter())
            server.freeze()
            try:
                applying = asyncio.create_task(_apply_all(stage, ingest))
                await until(lambda: Hold.DATABASE in ingest.holds.values(), within_s=5)
            finally:
                server.thaw()
            await asyncio.wait_for(applying, 120)

        assert ingest.holds == {}
        assert sink.pool.get_size() <= 2
        assert await stage.letters() == 0
        assert await stage.pool.fetchval("SELECT count(*) FROM payments") == len(history.truth.payments)
    finally:
        await sink.close()


async def test_exhausted_connections_are_waited_out(own_stage: Stage) -> None:
    history, stage = History(seed=9), own_stage
    worker = stage.worker("patient")
    await stage.publish(history.load(50))
    await stage.drained()

    async with contextlib.AsyncExitStack() as taken:
        await stage.pool.execute(END_SINKS)
        await _take_all(stage.dsn, taken)
        await stage.publish(history.load(50))
        await worker.shows("tillstream_sink_retries_total", sqlstate="53300")
        await worker.waits_for("partitions", "database")

    await stage.check(history.truth)
    assert await stage.letters() == 0
    assert await worker.stop() == 0


async def test_a_deadlock_is_tried_again(stage: Stage) -> None:
    history = History(seed=10)
    worker = stage.worker("victim")
    await stage.publish(history.load(60))
    await stage.drained()

    async with stage.pool.acquire() as held, held.transaction():
        await held.execute("SET LOCAL deadlock_timeout = '60s'")  # so that the sink is the one who finds out
        await held.execute("SELECT payment FROM payments ORDER BY payment DESC LIMIT 1 FOR UPDATE")
        await stage.publish([history.more(reference) for reference in list(history.truth.payments)])
        await until(stage.blocked, what="the sink waits for a row")
        await held.execute("SELECT payment FROM payments ORDER BY payment FOR UPDATE")

    await stage.check(history.truth)
    await worker.shows("tillstream_sink_retries_total", sqlstate="40P01")
    assert await stage.letters() == 0
    assert await worker.stop() == 0


async def test_a_table_renamed_under_load_holds_everything_visibly_and_kills_nothing(stage: Stage) -> None:
    history = History(seed=11)
    worker = stage.worker("patient")
    await worker.ready()
    enough = asyncio.Event()
    load = asyncio.create_task(_load(stage, history, enough))
    await until(lambda: stage.pool.fetchval("SELECT count(*) FROM payments"))

    await stage.pool.execute("ALTER TABLE payments RENAME TO payments_elsewhere")
    await worker.waits_for("partitions", "configuration")
    await worker.shows("tillstream_held", reason="configuration")
    enough.set()
    await load
    stood = await stage.stored()
    await stage.pool.execute("ALTER TABLE payments_elsewhere RENAME TO payments")

    await stage.check(history.truth)
    assert stood != await stage.stored()
    assert await stage.letters() == 0
    assert await worker.metric("tillstream_held") == 0
    assert await worker.reasons() == {}
    assert await worker.stop() == 0


async def test_a_database_restored_to_an_earlier_state_rewinds_consumption_and_heals(stage: Stage) -> None:
    history = History(seed=12)
    worker = stage.worker("before")
    await stage.publish(history.load(100, garbage=1, refused=1))
    await stage.drained()
    await stage.pool.execute(
        "; ".join(["CREATE SCHEMA backup", *map("CREATE TABLE backup.{0} AS TABLE {0}".format, TABLES)])
    )
    await stage.publish(history.load(100, garbage=1, refused=1))
    await stage.drained()
    assert await worker.stop() == 0

    await stage.pool.execute(f"TRUNCATE {', '.join(TABLES)}")
    for table in TABLES:
        await stage.pool.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE backup.{table}")
    restored = stage.worker("restored")
    await stage.check(history.truth)
    await restored.says("because=sink_is_behind")
    assert await restored.stop() == 0

    await stage.pool.execute("DROP SCHEMA backup CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await migrate(stage.dsn)
    await refuse_poison(stage.pool)
    anew = stage.worker("anew")
    await stage.check(history.truth)
    assert await anew.stop() == 0


async def test_a_database_restored_under_a_running_worker_ends_it_and_what_was_between_is_read_again(
    stage: Stage,
) -> None:
    """A worker that went on would store the next slice above the gap, and nobody would know of it again."""
    history = History(seed=13)
    worker = stage.worker("before")
    await stage.publish(history.load(100, garbage=1, refused=1))
    await stage.drained()
    await stage.pool.execute(
        "; ".join(["CREATE SCHEMA backup", *map("CREATE TABLE backup.{0} AS TABLE {0}".format, TABLES)])
    )
    await stage.publish(history.load(100, garbage=1, refused=1))
    await stage.drained()

    async with stage.pool.acquire() as held, held.transaction():
        await held.execute(f"TRUNCATE {', '.join(TABLES)}")
        for table in TABLES:
            await held.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE backup.{table}")
    await stage.publish(history.load(100))
    assert await worker.ended() == 1
    await worker.says("it was restored")

    successor = stage.worker("successor")
    await stage.check(history.truth)
    await successor.says("because=sink_is_behind")
    assert await successor.stop() == 0


async def _apply_all(stage: Stage, ingest: Ingest) -> None:
    async for batch in read(stage.bootstrap, await find_range(stage.bootstrap, stage.events)):
        await ingest.apply(ingest.prepare(batch))


async def _take_all(dsn: str, taken: contextlib.AsyncExitStack) -> None:
    """Open connections until there are no more."""
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        while True:
            held = await asyncpg.connect(dsn)
            taken.push_async_callback(held.close)


async def _load(stage: Stage, history: History, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await stage.publish(history.load(30))
