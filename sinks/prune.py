"""
Repeats of old runs, made small: `event_repeats` grows with every file that is sent again, and is looked at for a
redelivery only.

A pruned run keeps a count and a sum for each partition, so that its ledger still balances; what is redelivered of it
counts nowhere, because it closed with everything confirmed.
"""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from sinks.base import Place
from sinks.pool import Pool, connection
from sinks.postgres import partition_lock
from sinks.statement import LIVE_SCHEMA, statements

_LOCK_WAIT = "500ms"  # longer than a slice takes; whoever holds a partition for longer has trouble enough


async def prune_repeats(pool: Pool, *, older_than: timedelta, most: int) -> int:
    """
    Prune at most `most` repeats older than that, of runs that closed before that; how many it were.

    0 also where the partition is busy: a later call tries again.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    sql = statements()
    async with connection(pool) as held:
        found = await held.fetchrow(sql["prunable_place"], older_than)
        if found is None:
            return 0
        place = Place(found["topic"], found["log_partition"])
        try:
            async with held.transaction():
                await held.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                # In a statement of its own: what follows has a snapshot younger than the lock.
                await held.execute(f"SELECT pg_advisory_xact_lock({partition_lock(LIVE_SCHEMA, place)})")
                pruned: int = await held.fetchval(sql["prune_repeats"], place.topic, place.partition, older_than, most)
        except asyncpg.LockNotAvailableError:
            return 0
        return pruned
