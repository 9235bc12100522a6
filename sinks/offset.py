"""Where the sink stands in each partition, as PostgreSQL has it: for whoever measures, without being a sink."""

from __future__ import annotations

from collections.abc import Mapping

from sinks.pool import Pool, connection
from sinks.statement import statements


async def next_offsets(pool: Pool, topic: str) -> Mapping[int, int]:
    """
    The next offset to read of each partition; one that the sink never saw is absent.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        rows = await held.fetch(statements()["next_offsets"], topic)
    return {row["log_partition"]: row["next_offset"] for row in rows}
