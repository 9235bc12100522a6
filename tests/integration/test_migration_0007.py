"""What 0007 makes of a database that was at work before, and of an empty one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from connectors import http_api
from sinks import migrate as module
from sinks.migrate import migrate, migrations
from tillstream.control import connector as connectors
from tillstream.control.connector import checked

BEFORE = """
INSERT INTO sp_v2_connectors (name, source_entity, status, connection_config, total_runs) VALUES
    ('alive', 'ACME', 'ACTIVE', '{"directory": "/in"}', 2),
    ('gone (deleted 2)', 'ACME', 'PAUSED', '{"directory": "/old"}', 1);
INSERT INTO connectors (id, row_id, name, kind, provider, deleted_at, configuration_version) VALUES
    ('00000000-0000-4000-8000-000000000001', 1, 'alive', 'directory', 'acme', NULL, 3),
    ('00000000-0000-4000-8000-000000000002', 2, 'gone', 'directory', 'acme', now(), 1);
INSERT INTO sp_v2_connector_runs (connector_id, run_type, status, triggered_by, completed_at) VALUES
    (1, 'MANUAL', 'FAILED', 'me', now()), (1, 'SCHEDULED', 'RUNNING', 'SCHEDULER', NULL),
    (2, 'BACKFILL', 'SUCCESS', 'somebody', now());
INSERT INTO connector_runs (id, row_id, connector_id, read, closed_at, started_at)
SELECT ('00000000-0000-4000-8000-00000000010' || id)::uuid, id,
       ('00000000-0000-4000-8000-00000000000' || connector_id)::uuid, id * 10, completed_at,
       now() - id * interval '1 hour'
  FROM sp_v2_connector_runs;
INSERT INTO run_requests (run, connector_id, force, requested_by, cancelled_at, cancelled_by) VALUES
    ('00000000-0000-4000-8000-000000000101', '00000000-0000-4000-8000-000000000001', FALSE, 'me', now(), 'me too');
INSERT INTO connector_health (connector_id, state, cause) VALUES
    ('00000000-0000-4000-8000-000000000001', 'healthy', '');
"""


@pytest.fixture
async def held(database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


@pytest.fixture
async def before(database: str, held: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of 0006, with data."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "migrations", lambda: [one for one in KNOWN if one.number < 7])
        await migrate(database)
    await held.execute(BEFORE)


KNOWN = migrations()


async def test_the_default_connector_of_the_seed_is_there_exactly_once_however_often_migrations_run(
    database: str, held: asyncpg.Connection
) -> None:
    for _ in range(3):
        await migrate(database)

    [row] = await held.fetch("SELECT * FROM sp_v2_connectors")

    assert (row["id"], row["name"], row["connector_type"], row["source_entity"], row["status"]) == (
        1, "SabPaisa PG API", "PG_API", "SABPAISA", "ACTIVE",
    )  # fmt: skip
    assert json.loads(row["connection_config"]) == {
        "api_base_url": "https://reportapi.sabpaisa.in/SabPaisaReport/REST/SettlePaisa/txnData",
        "authentication_type": "IP_WHITELIST",
        "merchant_codes": ["ALL"],
        "sync_days_back": 1,
        "auto_retry": True,
        "retry_count": 3,
    }
    assert (row["schedule_enabled"], row["schedule_cron"], row["schedule_timezone"]) == (
        True,
        "0 2 * * *",
        "Asia/Kolkata",
    )
    checked(http_api.SPEC, json.loads(row["connection_config"]), name=row["name"], provider="SABPAISA")


async def test_a_default_connector_that_was_deleted_stays_away(database: str, held: asyncpg.Connection) -> None:
    await migrate(database)
    await held.execute("DELETE FROM sp_v2_connectors")

    assert await migrate(database) == []

    assert await held.fetchval("SELECT count(*) FROM sp_v2_connectors") == 0


async def test_somebody_elses_connector_of_the_default_ones_name_is_left_alone(
    database: str, held: asyncpg.Connection, before: None
) -> None:
    await held.execute("UPDATE sp_v2_connectors SET name = 'SabPaisa PG API' WHERE name = 'alive'")
    await held.execute("UPDATE connectors SET name = 'SabPaisa PG API' WHERE name = 'alive'")

    await migrate(database)

    assert await held.fetch("SELECT name, source_entity, schedule_cron FROM sp_v2_connectors") == [
        ("SabPaisa PG API", "ACME", None)
    ]
    assert await held.fetchval("SELECT count(*) FROM connectors") == 2


async def test_what_was_there_is_all_there_afterwards(database: str, held: asyncpg.Connection, before: None) -> None:
    assert (await migrate(database))[0] == "0007_control_plane.sql"

    names = await held.fetch("SELECT name FROM sp_v2_connectors ORDER BY id")
    assert names == [("alive",), ("SabPaisa PG API",)]
    assert await held.fetch("SELECT count(*) FROM sp_v2_connector_runs") == [(2,)]
    assert await held.fetch(
        "SELECT number, name, connection_config ->> 'directory', total_runs FROM every_connector"
        " WHERE number < 3 ORDER BY number"
    ) == [(1, "alive", "/in", 2), (2, "gone", "/old", 1)]
    assert await held.fetch(
        "SELECT number, connector, run_type, status, triggered_by, read, cancelled_by FROM every_run ORDER BY number"
    ) == [
        (1, "alive", "MANUAL", "FAILED", "me", 10, "me too"),
        (2, "alive", "SCHEDULED", "RUNNING", "SCHEDULER", 20, ""),
        (3, "gone", "BACKFILL", "SUCCESS", "somebody", 30, ""),
    ]
    assert await held.fetch(
        "SELECT version, provider, configuration ->> 'directory' FROM connector_versions"
        " WHERE provider = 'acme' ORDER BY version"
    ) == [(1, "acme", "/old"), (3, "acme", "/in")]
    assert await held.fetchval("SELECT verdict FROM connector_health WHERE name = 'alive'") == "healthy"


# the seeds


async def test_the_daily_jobs_queries_of_seed_003_run_as_they_are_written(
    database: str, held: asyncpg.Connection
) -> None:
    await migrate(database)

    [connector] = await held.fetch("""
  SELECT * FROM sp_v2_connectors 
  WHERE connector_type = 'PG_API' 
    AND status = 'ACTIVE'
    AND schedule_enabled = true
""")  # noqa: W291
    assert json.loads(connector["connection_config"])["merchant_codes"] == ["ALL"]
    await held.execute("""
    INSERT INTO sp_v2_connector_runs (
      connector_id, run_type, status, records_processed, duration_seconds
    ) VALUES ($1, 'SCHEDULED', $2, $3, $4)
  """, connector["id"], "SUCCESS", 12_450, 2.34)  # fmt: skip

    [run] = await held.fetch("SELECT * FROM recon_connector_run")
    assert (run["connector_id"], run["outcome"], run["records_processed"]) == ("conn_1", "SUCCESS", 12_450)


async def test_seed_004s_names_show_what_seed_003s_tables_hold(
    database: str, held: asyncpg.Connection, before: None
) -> None:
    await migrate(database)

    shown = await held.fetch("SELECT id, name, type, provider, status FROM recon_connector ORDER BY number")
    assert shown == [
        ("conn_1", "alive", "DIRECTORY", "acme", "ACTIVE"),
        ("conn_3", "SabPaisa PG API", "API", "SABPAISA", "ACTIVE"),
    ]
    assert await held.fetch("SELECT connector_id, health_status, backlog FROM connector_health ORDER BY number") == [
        ("conn_1", "CRITICAL", 0),
        ("conn_3", "NEVER_RUN", 0),
    ]
    with pytest.raises(asyncpg.CheckViolationError):
        await held.execute(FILE, "MATCHING", "a")
    for state in ("DISCOVERED", "DOWNLOADED", "NORMALIZED", "MATCHED", "ERROR"):
        await held.execute(FILE, state, state)
    with pytest.raises(asyncpg.UniqueViolationError):
        await held.execute(FILE, "MATCHED", "MATCHED")


FILE = """
INSERT INTO recon_ingested_file
       (connector_id, task, provider, cycle_date, filename, path, state, dedupe_key, discovered_at)
SELECT id, $2, 'p', current_date, 'f', 'f', $1, $2, now() FROM connectors LIMIT 1
"""


async def test_connectors_of_the_migrated_database_are_shown(database: str, before: None) -> None:
    await migrate(database)

    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    try:
        views = await connectors.list_connectors(pool)
        assert {view.name: view.version for view in views} == {"alive": 3, "SabPaisa PG API": 1}
        assert (await connectors.find_ever(pool, "gone")).configuration == {"directory": "/old"}
    finally:
        await pool.close()
