"""
One hash of all business that the sink holds: equal on two databases exactly if their payments and adjustments are.

Lineage (event, run, offset, raw) and clocks stay out, so that order, duplicates and replay cannot show.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sinks.pool import WHOLE_TABLE_S, Connection, Pool, snapshot
from sinks.statement import LIVE_SCHEMA, statements


@dataclass(frozen=True, slots=True)
class TableHash:
    """SHA-256 of each table's business columns, in the order of keys."""

    payments: str
    adjustments: str


async def table_hash(pool: Pool, *, schema: str = LIVE_SCHEMA) -> TableHash:
    """
    Both hashes, from one snapshot, in bounded memory.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements(schema)
    async with snapshot(pool) as held:
        return TableHash(await _hash(held, sql["hash_payments"]), await _hash(held, sql["hash_adjustments"]))


async def _hash(held: Connection, query: str) -> str:
    digest = hashlib.sha256()

    async def take(data: bytes) -> None:
        digest.update(data)

    # The timezone of the session is UTC, so that the text of an instant is one.
    await held.copy_from_query(query, output=take, timeout=WHOLE_TABLE_S)
    return digest.hexdigest()
