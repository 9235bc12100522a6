"""
Where a connector's tasks stand: their checkpoints, as the connector role mirrors them.

A task is named in URLs by its `ref`: its key may be any text, and descriptors may come twice.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas import identity
from schemas.errors import NotFound
from sinks.pool import Connection, Pool, connection
from tillstream.control.statement import statements


@dataclass(frozen=True, slots=True)
class CursorView:
    """
    One task's newest checkpoint. `id` is the task's as task lists show it, `task` its key, `ref` names it in URLs.

    `cursor` is the source's own (null: nothing read yet), `done` says that nothing is left to read; `pending` is an
    edit that its worker has not seen to yet. `etag` is another one after each change.
    """

    id: str
    ref: str
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
    pending: UUID | None

    @property
    def etag(self) -> str:
        """What an edit says that it is meant for."""
        return f'"{self.epoch}.{self.seq}{f".{self.pending}" if self.pending else ""}"'


def ref_of(task: str) -> str:
    """The base64url, without padding, of a task's key in UTF-8."""
    return base64.urlsafe_b64encode(task.encode()).decode().rstrip("=")


def task_of(ref: str) -> str:
    """
    The task's key.

    Raises:
        NotFound: no key is named so.
    """
    try:
        raw = ref.encode("ascii")
        task = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        task = ""
    if not task or "\x00" in task or ref_of(task) != ref:
        raise NotFound(f"no task is named {ref[:100]!r}", hint="the list of cursors tells the `ref` of each")
    return task


async def cursors_of(pool: Pool, connector_id: UUID, *, limit: int, after: str | None = None) -> list[CursorView]:
    """
    The cursors of a connector by their tasks' keys, from the one after `after`.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["list_cursors"], connector_id, after, limit)
    return [_view(row) for row in rows]


async def find_cursor(held: Connection, connector_id: UUID, task: str) -> CursorView:
    """
    One task's cursor.

    Raises:
        NotFound: no checkpoint of it is known.
    """
    row = await held.fetchrow(statements()["find_cursor"], connector_id, task)
    if row is None:
        raise NotFound(f"there is no task {task[:100]!r}", hint="the list of cursors tells the `ref` of each")
    return _view(row)


# asyncpg's records are mappings of anything
def _view(row: Mapping[str, Any]) -> CursorView:
    return CursorView(
        id=identity.task_id(row["descriptor"] or row["task"]),
        ref=ref_of(row["task"]),
        task=row["task"],
        descriptor=row["descriptor"],
        cursor=None if row["cursor"] is None else json.loads(row["cursor"]),
        done=row["done"],
        run=row["run_id"],
        epoch=row["epoch"],
        seq=row["seq"],
        revision_at=row["revision_at"],
        updated_at=row["updated_at"],
        pending=row["pending"],
    )
