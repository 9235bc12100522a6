"""What happened to connectors and runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from tillstream.api.v1.shape import Model
from tillstream.control.activity import Activity


class ActivityShape(Model):
    """One thing that happened. `id` is its position; `kind` a noun and what it did, such as `run.ended`."""

    id: str
    at: datetime
    kind: str
    connector_id: UUID | None
    connector: str
    run_id: UUID | None
    actor: str
    # by kind: names, statuses, counts
    facts: dict[str, Any]

    @classmethod
    def told(cls, each: Activity) -> Self:
        """From the service's value."""
        return cls(
            id=str(each.position),
            at=each.at,
            kind=each.kind,
            connector_id=each.connector_id,
            connector=each.connector,
            run_id=each.run_id,
            actor=each.actor,
            facts=dict(each.facts),
        )
