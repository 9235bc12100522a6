"""Migrations: once each, whoever runs them how often, and never another file under a known number."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from schemas.errors import SinkMisconfigured
from sinks import migrate as module
from sinks.migrate import Migration, migrate, migrations, pending
from tests.database import migrated

NAMES = [migration.name for migration in migrations()]


async def test_a_fresh_database_gets_every_file_and_the_second_time_none(database: str) -> None:
    assert await migrate(database) == NAMES
    assert await migrate(database) == []


async def test_processes_that_start_together_apply_each_file_once(database: str) -> None:
    applied = await asyncio.gather(*(migrate(database) for _ in range(6)))

    assert sorted(name for names in applied for name in names) == NAMES
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 0, len(NAMES)]


async def test_what_is_pending_is_told_without_changing_anything(database: str) -> None:
    held = await asyncpg.connect(database)

    assert await pending(held) == NAMES
    assert await held.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await migrate(database)
    assert await pending(held) == []
    await held.close()


async def test_a_file_that_changed_after_it_was_applied_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(database)
    changed = [Migration(one.number, one.name, one.sql + "-- more") for one in migrations()]
    monkeypatch.setattr(module, "migrations", lambda: changed)

    with pytest.raises(SinkMisconfigured, match=r"0001_connectors\.sql was changed"):
        await migrate(database)


async def test_a_database_of_a_newer_version_is_refused(database: str) -> None:
    await migrate(database)
    held = await asyncpg.connect(database)
    await held.execute("INSERT INTO till_migrations (number, name, checksum) VALUES (9999, '9999_future.sql', '')")
    await held.close()

    with pytest.raises(SinkMisconfigured, match=r"9999_future\.sql"):
        await migrate(database)


async def test_a_file_that_fails_leaves_nothing_of_itself_and_goes_through_once_it_is_mended(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    number = known[-1].number + 1
    broken = Migration(number, f"{number:04}_new.sql", "CREATE TABLE half (); SELECT 1 / 0;")
    monkeypatch.setattr(module, "migrations", lambda: [*known, broken])
    with pytest.raises(SinkMisconfigured, match="division by zero"):
        await migrate(database)
    mended = Migration(number, broken.name, "CREATE TABLE half ();")
    monkeypatch.setattr(module, "migrations", lambda: [*known, mended])

    assert await migrate(database) == [mended.name]


async def test_a_process_killed_while_it_migrates_holds_nobody_up(database: str) -> None:
    held = await asyncpg.connect(database)
    await held.execute(f"SELECT pg_advisory_lock({module._LOCK})")
    waiting = asyncio.create_task(migrate(database))
    held.terminate()

    async with asyncio.timeout(15):
        assert await waiting == NAMES


def test_files_are_numbered_without_gaps_and_each_number_once() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(NAMES) + 1))


# the seeds


async def test_connectors_have_exactly_the_columns_of_seed_003_and_its_success_rate(database: str) -> None:
    await migrate(database)

    assert await columns(database, "sp_v2_connectors") == [
        ("id", "bigint", "NO"),
        ("name", "character varying(255)", "NO"),
        ("connector_type", "character varying(50)", "YES"),
        ("source_entity", "character varying(100)", "NO"),
        ("status", "character varying(20)", "YES"),
        ("connection_config", "jsonb", "NO"),
        ("schedule_enabled", "boolean", "YES"),
        ("schedule_cron", "character varying(100)", "YES"),
        ("schedule_timezone", "character varying(50)", "YES"),
        ("last_run_at", "timestamp with time zone", "YES"),
        ("last_run_status", "character varying(20)", "YES"),
        ("last_run_details", "jsonb", "YES"),
        ("success_count", "integer", "YES"),
        ("failure_count", "integer", "YES"),
        ("total_runs", "integer", "YES"),
        ("created_at", "timestamp with time zone", "YES"),
        ("updated_at", "timestamp with time zone", "YES"),
        ("success_rate", "integer", "YES"),
    ]


async def test_runs_have_exactly_the_columns_of_seed_003(database: str) -> None:
    await migrate(database)

    assert await columns(database, "sp_v2_connector_runs") == [
        ("id", "bigint", "NO"),
        ("connector_id", "bigint", "YES"),
        ("run_type", "character varying(50)", "YES"),
        ("run_date", "date", "YES"),
        ("status", "character varying(20)", "YES"),
        ("records_processed", "integer", "YES"),
        ("records_success", "integer", "YES"),
        ("records_failed", "integer", "YES"),
        ("duration_seconds", "numeric(10,2)", "YES"),
        ("error_message", "text", "YES"),
        ("details", "jsonb", "YES"),
        ("started_at", "timestamp with time zone", "YES"),
        ("completed_at", "timestamp with time zone", "YES"),
        ("triggered_by", "character varying(100)", "YES"),
    ]


@pytest.mark.parametrize(
    ("column", "allowed", "refused"),
    [
        ("connector_type", ["BANK_SFTP", "BANK_API", "PG_API", "PG_DATABASE", None], "SFTP"),
        ("status", ["ACTIVE", "PAUSED", "FAILED", "TESTING", None], "active"),
    ],
)
async def test_connectors_check_what_seed_003_checks(
    database: str, column: str, allowed: list[str | None], refused: str
) -> None:
    await migrate(database)
    held = await asyncpg.connect(database)
    insert = (
        f"INSERT INTO sp_v2_connectors (name, source_entity, connection_config, {column}) VALUES ($1, 'x', '{{}}', $2)"
    )

    for value in allowed:
        await held.execute(insert, f"a {value}", value)
    with pytest.raises(asyncpg.CheckViolationError):
        await held.execute(insert, "b", refused)
    with pytest.raises(asyncpg.UniqueViolationError):
        await held.execute(insert, "a None", None)
    await held.close()


@pytest.mark.parametrize(("success", "total", "rate"), [(0, 0, 0), (0, 1, 0), (2, 3, 67), (1, 1, 100), (1, 200, 1)])
async def test_the_health_query_of_seed_003_runs_as_it_is_written(
    database: str, success: int, total: int, rate: int
) -> None:
    await migrate(database)
    held = await asyncpg.connect(database)
    await held.execute(
        "INSERT INTO sp_v2_connectors"
        " (name, connector_type, source_entity, connection_config, success_count, total_runs)"
        " VALUES ('c', 'PG_API', 'X', '{}', $1, $2)",
        success,
        total,
    )

    rows = await held.fetch("""
        SELECT
          name,
          status,
          last_run_at,
          last_run_status,
          success_rate,
          total_runs
        FROM sp_v2_connectors
        WHERE connector_type = 'PG_API';
    """)

    assert [(row["success_rate"], row["total_runs"]) for row in rows if row["name"] == "c"] == [(rate, total)]
    await held.close()


async def test_what_rows_of_the_seed_held_is_kept_beside_when_they_are_deleted_whoever_deletes_them(
    database: str,
) -> None:
    """The seed cascades; the audit trail is in the side tables and stays."""
    await migrated(database)
    held = await asyncpg.connect(database)
    await held.execute("""
        INSERT INTO sp_v2_connectors (name, source_entity, connection_config) VALUES ('c', 'X', '{"a": 1}');
        INSERT INTO sp_v2_connector_runs (connector_id, run_type, status, triggered_by)
            VALUES (1, 'MANUAL', 'SUCCESS', 'me');
        INSERT INTO connectors (id, row_id, name, kind, provider) VALUES (gen_random_uuid(), 1, 'c', 'directory', 'c');
        INSERT INTO connector_runs (id, row_id, connector_id, read) SELECT gen_random_uuid(), 1, id, 5 FROM connectors;
        DELETE FROM sp_v2_connectors;
    """)

    assert await held.fetchval("SELECT count(*) FROM sp_v2_connector_runs") == 0
    assert await held.fetch("SELECT number, connector, read, triggered_by FROM every_run") == [(1, "c", 5, "me")]
    [kept] = await held.fetch("SELECT * FROM every_connector")
    assert (kept["number"], kept["name"], kept["source_entity"], kept["connection_config"]) == (1, "c", "X", '{"a": 1}')
    assert kept["deleted_at"] is not None
    await held.close()


async def columns(dsn: str, table: str) -> list[tuple[str, str, str]]:
    held = await asyncpg.connect(dsn)
    rows = await held.fetch(
        "SELECT attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END"
        "  FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
        table,
    )
    await held.close()
    return [tuple(row) for row in rows]
