"""The year that the API is measured over: what is not as the pipeline makes it would measure something else."""

from __future__ import annotations

import asyncpg

from bench.fill import Size, fill
from sinks.ledger import verify, verify_letters
from sinks.migrate import migrate
from sinks.pool import close_pool, open_pool

# as many runs as divide a year into fractions of seconds
SMALL = Size(connectors=80, runs=410, files=820, payments=4_100, letters=410, activity=1_025, open_runs=5)


async def test_what_is_filled_balances_as_if_it_had_come_through_the_pipeline(database: str) -> None:
    await migrate(database)
    before = await _indexes(database)

    await fill(database, SMALL, topic="till.events")

    pool = await open_pool(database, size=1)
    try:
        assert [*await verify(pool), *await verify_letters(pool)] == []
        tables = {"payments": SMALL.payments, "connector_runs": SMALL.runs, "dead_letters": SMALL.letters}
        assert {name: await pool.fetchval(f"SELECT count(*) FROM {name}") for name in tables} == tables
        assert await pool.fetchval("SELECT count(*) FROM payment_events") > SMALL.payments
        assert await pool.fetchval("SELECT count(*) FROM sp_v2_connectors") == SMALL.connectors
    finally:
        await close_pool(pool)
    assert await _indexes(database) == before


async def _indexes(dsn: str) -> set[str]:
    held = await asyncpg.connect(dsn)
    try:
        return {
            row["indexdef"] for row in await held.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'")
        }
    finally:
        await held.close()
