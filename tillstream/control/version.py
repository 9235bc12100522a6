"""Every configuration that a connector ever had. Secrets are in it by reference; old ones may spell some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from connectors.spec import SourceSpec
from schemas.errors import NotFound
from sinks.pool import Pool, connection
from tillstream.control.connector import Configuration
from tillstream.control.difference import Difference, differences, hiding
from tillstream.control.statement import statements


@dataclass(frozen=True, slots=True)
class Version:
    """One configuration, and the provider that came with it. `made_by` is empty where nobody said who."""

    version: int
    kind: str
    provider: str
    configuration: Configuration
    made_at: datetime
    made_by: str


async def versions(pool: Pool, connector_id: UUID, *, before: int | None = None, limit: int = 50) -> list[Version]:
    """
    The newest first, before this one. What was before versions were kept is not there.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return [_version(row) for row in await held.fetch(statements()["list_versions"], connector_id, before, limit)]


async def version(pool: Pool, connector_id: UUID, number: int) -> Version:
    """
    This one.

    Raises:
        NotFound: there is none. SinkError: as routed.
    """
    async with connection(pool) as held:
        row = await held.fetchrow(statements()["find_version"], connector_id, min(number, 2**31 - 1))
    if row is None:
        raise NotFound(f"there is no version {number} of this connector's configuration", hint="list the versions")
    return _version(row)


async def compared(
    pool: Pool, connector_id: UUID, first: int, second: int, specs: Mapping[str, SourceSpec] | None = None
) -> list[Difference]:
    """
    What changed from one to the other, key by key; secrets that an old one spells are masked.

    Raises:
        NotFound: one of them is not there. SinkError: as routed.
    """
    old, new = await version(pool, connector_id, first), await version(pool, connector_id, second)
    spec = (specs or {}).get(new.kind)
    return list(differences(_document(old), _document(new), hide=hiding(spec.config if spec else None)))


# any JSON object
def _document(each: Version) -> dict[str, Any]:
    return {"provider": each.provider, "configuration": dict(each.configuration)}


# asyncpg's records are mappings of anything
def _version(row: Mapping[str, Any]) -> Version:
    return Version(**{**row, "configuration": json.loads(row["configuration"])})
