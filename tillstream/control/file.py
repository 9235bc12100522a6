"""The files that connectors met, by their content (seed 004)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sinks.pool import Pool, connection
from tillstream.control.statement import statements


@dataclass(frozen=True, slots=True)
class FileView:
    """
    One file: DISCOVERED, DOWNLOADED (it is here whole), NORMALIZED (its records are published), MATCHED or ERROR.

    `run_id` is the last run that had it in hand. `records` were read, `rejected` of them are dead letters.
    """

    id: int
    connector_id: UUID
    connector: str
    run_id: UUID | None
    task: str
    provider: str
    cycle_date: date
    filename: str
    path: str
    sha256: str | None
    size_bytes: int | None
    state: str
    records: int
    rejected: int
    error: str
    discovered_at: datetime
    downloaded_at: datetime | None
    normalized_at: datetime | None
    updated_at: datetime


async def page(
    pool: Pool,
    *,
    connector_id: UUID | None = None,
    run_id: UUID | None = None,
    state: str | None = None,
    after: int | None = None,
    limit: int = 50,
) -> tuple[list[FileView], int | None]:
    """
    Files, the newest first, after this id; and the id to go on after, None at the end.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["page_files"], connector_id, run_id, state, after, limit + 1)
    found = [_view(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


# asyncpg's records are mappings of anything
def _view(row: Mapping[str, Any]) -> FileView:
    return FileView(
        run_id=row["run"],
        **{name: row[name] for name in FileView.__slots__ if name != "run_id"},
    )
