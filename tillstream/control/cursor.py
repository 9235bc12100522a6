"""Where a connector's tasks stand: their checkpoints, as the connector role mirrors them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas import identity
from sinks.pool import Pool, connection
from tillstream.control.statement import statements


@dataclass(frozen=True, slots=True)
class CursorView:
    """
    One task's newest checkpoint. `id` is the task's as task lists show it, `task` its key; `cursor` is the source's own
    (null: nothing read yet), `done` says that nothing is left to read.
    """

    id: str
    task: str
    descriptor: str
    # a source's own JSON object
    cursor: dict[str, Any] | None
    done: bool
    run: UUID
    epoch: int
    seq: int
    revision_at: datetime
    updated_at: datetime


async def cursors_of(pool: Pool, connector_id: UUID, *, limit: int, after: str | None = None) -> list[CursorView]:
    """
    The cursors of a connector by their tasks' keys, from the one after `after`.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["list_cursors"], connector_id, after, limit)
    return [
        CursorView(
            id=identity.task_id(row["descriptor"] or row["task"]),
            task=row["task"],
            descriptor=row["descriptor"],
            cursor=None if row["cursor"] is None else json.loads(row["cursor"]),
            done=row["done"],
            run=row["run_id"],
            epoch=row["epoch"],
            seq=row["seq"],
            revision_at=row["revision_at"],
            updated_at=row["updated_at"],
        )
        for row in rows
    ]
