"""
What a worker tells of its connectors, every few seconds: how they fare, and their tasks, so that any process can show
them. Bounded: a connector with a hundred thousand files tells of the newest and of those at work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from connectors.health import Status
from connectors.task import TaskStatus, TaskView
from schemas import identity
from schemas.checkpoint import Counts
from sinks.pool import Pool, connection
from sinks.prepared import storable
from tillstream.control.statement import statements

MOST_TASKS = 200
_STATE_CHARS = 2_000  # of a cursor; a longer one is told by its size
_ERROR_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task as operators see it (seed 000). `state` is its cursor; `live` tells that its worker runs it now."""

    id: str
    descriptor: str
    status: str
    error: str
    created_at: datetime
    state: dict[str, Any]
    live: bool


@dataclass(slots=True)
class Reporter:
    """Tells of one connector, for the worker of one claim. Tasks are told only where they changed."""

    connector_id: UUID
    worker: str
    epoch: int | None = None
    _told: str = field(default="")

    async def tell(self, pool: Pool, status: Status, tasks: Sequence[TaskView], *, note: str = "") -> None:
        """
        Replace what was told before; an outdated worker's word is not taken. `note` is what the worker adds.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        problem = "; ".join([*status.problems, *([note] if note else [])])
        listed = json.dumps([_told(task) for task in tasks])
        progress = [[each.descriptor, each.done_bytes, each.size_bytes] for each in status.progress]
        async with connection(pool) as held:
            await held.execute(
                statements()["report_connector"],
                self.connector_id,
                self.epoch,
                self.worker,
                status.state.value,
                storable(problem),
                storable(status.hint),
                status.listed_at,
                status.open_runs,
                status.pending,
                status.active,
                status.left_behind,
                json.dumps(dict(status.skipped)),
                None if listed == self._told else listed,
                json.dumps(progress),
            )
        self._told = listed


async def tasks_of(pool: Pool, connector_id: UUID, *, limit: int = MOST_TASKS) -> list[TaskRow]:
    """
    The tasks of a connector, the oldest first: those that its worker tells of, then those of earlier lives.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        row = await held.fetchrow(statements()["reported_tasks"], connector_id)
        live = [_live(each) for each in json.loads(row["tasks"])] if row else []
        known = [each.descriptor for each in live]
        earlier = await held.fetch(statements()["known_tasks"], connector_id, known, max(0, limit - len(live)))
    listing, rest = live[:1], live[1:]
    found = [*(_earlier(each) for each in reversed(earlier)), *rest]
    return [*listing, *sorted(found, key=lambda task: task.created_at)]


def _told(task: TaskView) -> dict[str, object]:
    state = task.state if len(json.dumps(task.state, default=str)) <= _STATE_CHARS else {"truncated": True}
    return {
        "descriptor": task.descriptor,
        "status": task.status.value,
        "error": task.error[:_ERROR_CHARS],
        "created_at": task.created_at.isoformat(),
        "state": state,
    }


# what `_told` wrote
def _live(told: dict[str, Any]) -> TaskRow:
    descriptor = told["descriptor"]
    created_at = datetime.fromisoformat(told["created_at"])
    task_id = identity.task_id(descriptor)
    return TaskRow(task_id, descriptor, told["status"], told["error"], created_at, told["state"], live=True)


# asyncpg's records are mappings of anything
def _earlier(row: Any) -> TaskRow:
    counts = Counts.model_validate_json(row["counts"])
    failed = counts.rejected and counts.rejected == counts.read
    status = TaskStatus.STOPPED if not row["done"] else TaskStatus.FAILED if failed else TaskStatus.TERMINATED
    error = "none of its records could be used: see `till deadletter list`" if row["done"] and failed else ""
    state = json.loads(row["cursor"]) if row["cursor"] else {}
    descriptor = row["descriptor"] or row["task"]
    task_id = identity.task_id(descriptor)
    return TaskRow(task_id, descriptor, status.value, error, row["revision_at"], state, live=False)
