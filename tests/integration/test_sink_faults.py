"""Infrastructure breaks under the sink: told as *retry* or *pause*, nothing half stored, and the same call heals it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from schemas.errors import SinkError, SinkMisconfigured, SinkUnavailable, SinkUnclear
from sinks.base import Applied, Place
from sinks.ledger import verify
from sinks.migrate import migrate
from sinks.pool import Timeouts
from sinks.postgres import PostgresSink, partition_lock
from tests import services
from tests.model.history import PLACE, record
from tests.services import Postgres
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.process import holds

SOON_S = 15.0
SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
SOMEBODY_WAITS = f"SELECT count(*) > 0 {SESSIONS} AND wait_event_type = 'Lock'"
TERMINATE = f"SELECT pg_terminate_backend(pid) {SESSIONS}"
FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'odd' USING ERRCODE = 'ZZ001'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION fail()
"""
BRIEF = Timeouts(connect_s=1.0, acquire_s=1.0, lock_s=1.0, statement_s=1.0, client_s=1.5)


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


async def eventually(attempt: Callable[[], Awaitable[Applied]]) -> tuple[Applied, list[SinkError]]:
    """What the attempt gives once it is not unavailable any more, and what it was told until then."""
    told: list[SinkError] = []
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await attempt(), told
            except SinkUnavailable as exc:
                told.append(exc)
                await asyncio.sleep(0.05)  # as the delivery core backs off


# the server


async def test_a_server_killed_inside_a_transaction_lost_all_of_it_and_takes_it_again(
    own_postgres: EmbeddedPostgres,
) -> None:
    await migrate(own_postgres.dsn)
    sink = await PostgresSink.open(own_postgres.dsn, timeouts=BRIEF)
    await sink.apply(PLACE, [record("authorised", 100, at=1)], next_offset=1)
    slice_ = [record("captured", 60, at=2)]

    async def killed() -> None:
        async with sink.locked(PLACE) as held:
            prepared = sink.prepare(slice_)
            await held.fetchrow(sink._sql["apply_records"], PLACE.topic, 0, 2, *prepared.waves[0].parameters(PLACE))
            own_postgres.kill()
            await held.execute("COMMIT")

    with pytest.raises(SinkUnavailable):
        await killed()
    with pytest.raises(SinkUnavailable):
        await sink.apply(PLACE, slice_, next_offset=2)
    await own_postgres.start()
    applied, _ = await eventually(lambda: sink.apply(PLACE, slice_, next_offset=2))

    assert applied == Applied(applied=1)
    assert dict(await sink.next_offsets(PLACE.topic)) == {0: 2}
    assert await verify(sink.pool) == []
    await sink.close()


async def test_what_was_acknowledged_survives_a_kill_of_the_server(own_postgres: EmbeddedPostgres) -> None:
    await migrate(own_postgres.dsn)
    sink = await PostgresSink.open(own_postgres.dsn, timeouts=BRIEF)
    for number in range(20):
        await sink.apply(PLACE, [record("succeeded", reference=f"r{number}")], next_offset=number + 1)
    own_postgres.kill()
    await own_postgres.start()

    applied, _ = await eventually(lambda: sink.apply(PLACE, [], next_offset=None))

    assert applied == Applied()
    assert dict(await sink.next_offsets(PLACE.topic)) == {0: 20}
    assert await sink.pool.fetchval("SELECT count(*) FROM payments") == 20
    await sink.close()


async def test_a_frozen_server_is_told_within_the_timeouts_and_the_pool_recovers(
    own_postgres: EmbeddedPostgres,
) -> None:
    await migrate(own_postgres.dsn)
    sink = await PostgresSink.open(own_postgres.dsn, timeouts=BRIEF, pool_size=2)
    await sink.apply(PLACE, [record("succeeded")], next_offset=1)
    own_postgres.freeze()
    try:
        async with asyncio.timeout(SOON_S):
            for _ in range(3):
                with pytest.raises(SinkUnavailable):
                    await sink.apply(PLACE, [record("failed", at=1)], next_offset=2)
    finally:
        own_postgres.thaw()

    applied, _ = await eventually(lambda: sink.apply(PLACE, [record("settled", at=2)], next_offset=3))

    assert applied == Applied(applied=1)
    assert sink.pool.get_size() <= 2
    await sink.close()


async def test_closing_a_sink_on_a_frozen_server_takes_seconds(own_postgres: EmbeddedPostgres) -> None:
    await migrate(own_postgres.dsn)
    sink = await PostgresSink.open(own_postgres.dsn, timeouts=BRIEF)
    own_postgres.freeze()
    try:
        async with asyncio.timeout(SOON_S):
            await sink.close()
    finally:
        own_postgres.thaw()


async def test_a_server_that_is_absent_is_told_at_opening() -> None:
    with pytest.raises(SinkUnavailable):
        await PostgresSink.open("postgresql://nobody@127.0.0.1:1/none", timeouts=BRIEF)
    with pytest.raises(SinkUnavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("dsn", ["mysql://nobody@127.0.0.1/none", "postgresql://127.0.0.1:port/none", "nonsense"])
async def test_a_dsn_that_is_none_pauses(dsn: str) -> None:
    with pytest.raises(SinkMisconfigured):
        await PostgresSink.open(dsn, timeouts=BRIEF)
    with pytest.raises(SinkMisconfigured):
        await migrate(dsn)


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync"])
async def test_a_server_that_may_lose_acknowledged_commits_is_refused_at_opening(setting: str) -> None:
    async with services.own_postgres(**{setting: "off"}) as server:
        await migrate(server.dsn)

        with pytest.raises(SinkMisconfigured, match=f"{setting}=off"):
            await PostgresSink.open(server.dsn)


async def test_commits_stay_synchronous_when_somebody_switches_them_off_later(sink: PostgresSink) -> None:
    database = urlsplit(str(sink.pool._connect_args[0])).path.lstrip("/")
    await sink.pool.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")

    assert await sink.pool.fetchval("SHOW synchronous_commit") == "on"
    await sink.pool.expire_connections()
    with pytest.raises(SinkMisconfigured):
        await sink.apply(PLACE, [record("succeeded")], next_offset=1)


async def test_exhausted_connections_are_unavailable_and_then_not() -> None:
    async with services.own_postgres(max_connections="8", superuser_reserved_connections="0") as server:
        await migrate(server.dsn)
        sink = await PostgresSink.open(server.dsn, timeouts=BRIEF)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(sink.locked(Place(PLACE.topic, 1)))
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    held = await asyncpg.connect(server.dsn)
                    stack.push_async_callback(held.close)
            with pytest.raises(SinkUnavailable) as exhausted:
                await sink.apply(PLACE, [record("succeeded")], next_offset=1)
            with pytest.raises(SinkUnavailable):
                await PostgresSink.open(server.dsn, timeouts=BRIEF)
            assert exhausted.value.sqlstate == "53300"

        applied, _ = await eventually(lambda: sink.apply(PLACE, [record("succeeded")], next_offset=1))

        assert applied == Applied(applied=1)
        await sink.close()


async def test_terminated_backends_and_a_read_only_server_are_unavailable(sink: PostgresSink, database: str) -> None:
    admin = await asyncpg.connect(database)
    await sink.apply(PLACE, [record("succeeded")], next_offset=1)
    await admin.execute(TERMINATE)
    applied, _ = await eventually(lambda: sink.apply(PLACE, [record("settled")], next_offset=2))
    assert applied == Applied(applied=1)

    await admin.execute(f"ALTER DATABASE {urlsplit(database).path.lstrip('/')} SET default_transaction_read_only = on")
    await sink.pool.expire_connections()
    with pytest.raises(SinkUnavailable) as told:
        await sink.apply(PLACE, [record("refunded")], next_offset=3)

    assert told.value.sqlstate == "25006"
    await admin.close()


# tables


@pytest.mark.parametrize("table", ["payments", "payment_events", "run_ledger", "sink_offsets", "event_origins"])
async def test_a_table_renamed_under_load_pauses_and_renamed_back_heals(sink: PostgresSink, table: str) -> None:
    told: list[SinkError] = []
    done = 0

    async def load(connection: int) -> None:
        nonlocal done
        for number in range(20):
            slice_ = [record("succeeded", reference=f"{connection}/{number}")]
            async with asyncio.timeout(SOON_S):
                while True:
                    try:
                        assert await sink.apply(PLACE, slice_, next_offset=None) == Applied(applied=1)
                        done += 1
                        break
                    except (SinkMisconfigured, SinkUnavailable) as exc:
                        told.append(exc)
                        await asyncio.sleep(0.01)

    async def rename() -> None:
        assert await holds(lambda: done > 5, within_s=SOON_S)
        await sink.pool.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        assert await holds(lambda: bool(told), within_s=SOON_S)
        await sink.pool.execute(f"ALTER TABLE elsewhere RENAME TO {table}")

    await asyncio.gather(rename(), *(load(connection) for connection in range(3)))

    assert {type(exc) for exc in told} <= {SinkMisconfigured, SinkUnavailable}
    assert any(exc.sqlstate == "42P01" for exc in told)
    assert await sink.pool.fetchval("SELECT count(*) FROM payments") == 60
    assert await verify(sink.pool) == []


async def test_a_column_that_changes_its_type_under_a_cached_plan_heals(sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded")], next_offset=1)
    await sink.pool.execute("DROP VIEW adjustments; ALTER TABLE payment_events ALTER scheme TYPE varchar(64)")

    applied, _ = await eventually(lambda: sink.apply(PLACE, [record("settled")], next_offset=2))

    assert applied == Applied(applied=1)


async def test_statements_that_a_pooler_lost_are_prepared_again(sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded")], next_offset=1)
    await sink.pool.execute("DEALLOCATE ALL")

    applied, told = await eventually(lambda: sink.apply(PLACE, [record("settled")], next_offset=2))

    assert applied == Applied(applied=1)
    assert {one.sqlstate for one in told} <= {"26000"}


async def test_a_role_without_permission_pauses(sink: PostgresSink, database: str, postgres: Postgres) -> None:
    admin = await asyncpg.connect(database)
    role = f"weak_{urlsplit(database).path.lstrip('/')[-8:]}"
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'")
    try:
        await admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        await admin.execute(f"SET ROLE {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute("INSERT INTO sink_offsets VALUES (0, 't', 1)")
        await admin.execute("RESET ROLE")
        weak = await PostgresSink.open(_as_role(database, role, "weak"))
        with pytest.raises(SinkMisconfigured) as told:
            await weak.apply(PLACE, [record("succeeded")], next_offset=1)
        assert told.value.sqlstate == "42501"
        await weak.close()
        with pytest.raises(SinkMisconfigured):
            await migrate(_as_role(database, role, "wrong"))
    finally:
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()


async def test_a_database_that_was_never_migrated_pauses(database: str) -> None:
    sink = await PostgresSink.open(database)

    with pytest.raises(SinkMisconfigured) as told:
        await sink.apply(PLACE, [record("succeeded")], next_offset=1)

    assert told.value.sqlstate == "42P01"
    await sink.close()


# locks of others


async def test_a_deadlock_with_somebody_elses_transaction_is_unavailable_and_goes_through_again(
    sink: PostgresSink, database: str
) -> None:
    await sink.apply(PLACE, [record("succeeded", reference=name) for name in "ab"], next_offset=1)
    other = await asyncpg.connect(database)
    await other.execute("SET deadlock_timeout = '10s'")  # the sink finds it first
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE sink_offsets SET updated_at = now()")
    waiting = asyncio.create_task(sink.apply(PLACE, [record("settled", reference="a")], next_offset=2))
    assert await holds(lambda: sink.pool.fetchval(SOMEBODY_WAITS), within_s=SOON_S)
    await other.execute(f"SELECT pg_advisory_xact_lock({partition_lock('public', PLACE)})")

    with pytest.raises(SinkUnavailable) as told:
        await waiting
    await transaction.rollback()

    assert told.value.sqlstate == "40P01"
    assert await sink.apply(PLACE, [record("settled", reference="a")], next_offset=2) == Applied(applied=1)
    await other.close()


async def test_a_long_lock_on_a_table_ends_as_unavailable(database: str) -> None:
    await migrate(database)
    sink = await PostgresSink.open(database, timeouts=Timeouts(lock_s=0.2))
    admin = await asyncpg.connect(database)
    async with admin.transaction():
        await admin.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SinkUnavailable) as told:
            await sink.apply(PLACE, [record("succeeded")], next_offset=1)

    assert told.value.sqlstate == "55P03"
    assert await sink.apply(PLACE, [record("succeeded")], next_offset=1) == Applied(applied=1)
    await sink.close()
    await admin.close()


async def test_an_error_that_nobody_classified_is_unclear(sink: PostgresSink) -> None:
    await sink.pool.execute(FAIL)

    with pytest.raises(SinkUnclear) as told:
        await sink.apply(PLACE, [record("succeeded")], next_offset=1)

    assert told.value.sqlstate == "ZZ001"


async def test_a_caller_who_gives_up_leaves_no_connection_behind_and_nothing_stored(
    sink: PostgresSink, database: str
) -> None:
    admin = await asyncpg.connect(database)
    async with admin.transaction():
        await admin.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sink.apply(PLACE, [record("succeeded")], next_offset=1), 0.05)

    async with asyncio.timeout(SOON_S):
        assert await sink.apply(PLACE, [record("succeeded")], next_offset=1) == Applied(applied=1)
    assert sink.pool.get_size() <= 4
    await admin.close()


# the commit


class Cut(StrEnum):
    BEFORE = "before the commit reaches the server"
    AFTER = "after the commit, before its answer"


@contextlib.asynccontextmanager
async def cutting_proxy(server: EmbeddedPostgres, cut: Cut) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The DSN of a proxy that cuts the first connection to send a COMMIT once the event is set."""
    target = urlsplit(server.tcp_dsn)
    armed = asyncio.Event()

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        upstream, to_server = await asyncio.open_connection(target.hostname, target.port)
        committing = asyncio.Event()

        async def forward() -> None:
            while data := await client.read(65_536):
                if armed.is_set() and b"COMMIT\x00" in data:
                    armed.clear()
                    if cut is Cut.BEFORE:
                        break
                    committing.set()
                to_server.write(data)
            to_server.close()

        async def back() -> None:
            while data := await upstream.read(65_536):
                if committing.is_set():
                    break
                answer.write(data)
            answer.close()

        await asyncio.gather(forward(), back(), return_exceptions=True)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    user = target.netloc.rpartition("@")[0]
    yield urlunsplit(target._replace(netloc=f"{user}@127.0.0.1:{port}")), armed
    proxy.close()


@pytest.mark.parametrize(("cut", "again"), [(Cut.BEFORE, Applied(applied=1)), (Cut.AFTER, Applied(redelivered=1))])
async def test_a_connection_cut_at_the_commit_leaves_an_unknown_outcome_that_the_same_call_settles(
    own_postgres: EmbeddedPostgres, cut: Cut, again: Applied
) -> None:
    await migrate(own_postgres.dsn)
    async with cutting_proxy(own_postgres, cut) as (dsn, armed):
        sink = await PostgresSink.open(dsn, timeouts=BRIEF)
        slice_ = [record("captured", 60)]
        armed.set()

        with pytest.raises(SinkUnavailable):
            await sink.apply(PLACE, slice_, next_offset=1)
        applied, _ = await eventually(lambda: sink.apply(PLACE, slice_, next_offset=1))

        assert applied == again
        assert await sink.pool.fetchval("SELECT amount FROM payments") == 60
        assert await verify(sink.pool) == []
        await sink.close()


def _as_role(dsn: str, role: str, password: str) -> str:
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{host}"))
