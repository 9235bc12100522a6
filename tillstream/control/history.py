"""What the seeds' own tables and views say of a connector: its history by page (seed 003), its health (seed 004)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sinks.pool import Pool, connection
from tillstream.control.statement import statements

PAGE = 30  # seed 003's


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One run as seed 003's row has it, with seed 004's counts of files."""

    id: int
    run_type: str
    run_date: date | None
    status: str
    records_processed: int
    records_success: int
    records_failed: int
    duration_seconds: Decimal | None
    error_message: str | None
    started_at: datetime
    completed_at: datetime | None
    triggered_by: str | None
    files_total: int
    files_normalized: int
    files_failed: int
    files_skipped: int


@dataclass(frozen=True, slots=True)
class SeedHealth:
    """How a connector fares in seed 004's words. `type` is its, too."""

    health_status: str
    last_run_at: datetime | None
    last_run_status: str | None
    last_success_at: datetime | None
    backlog: int
    type: str


async def history(pool: Pool, number: int, *, limit: int = PAGE, offset: int = 0) -> tuple[list[SeedRun], int]:
    """
    Some runs of the connector of this number, the newest first, and how many there are.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements()
    async with connection(pool) as held:
        total: int = await held.fetchval(sql["seed_runs_count"], number)
        return [SeedRun(**row) for row in await held.fetch(sql["seed_runs"], number, limit, offset)], total


async def health(pool: Pool, numbers: Sequence[int] | None = None) -> Mapping[int, SeedHealth]:
    """
    How connectors fare, by number; all of them, or these.

    Raises:
        SinkError: as routed.
    """
    sql = statements()
    async with connection(pool) as held:
        types = {row["number"]: row["type"] for row in await held.fetch(sql["seed_types"], numbers)}
        rows = await held.fetch(sql["seed_health"], numbers)
    return {row["number"]: _health(row, types[row["number"]]) for row in rows if row["number"] in types}


# asyncpg's records are mappings of anything
def _health(row: Mapping[str, Any], type_: str) -> SeedHealth:
    return SeedHealth(
        row["health_status"],
        row["last_run_at"],
        row["last_run_status"],
        row["last_success_at"],
        int(row["backlog"]),
        type_,
    )
