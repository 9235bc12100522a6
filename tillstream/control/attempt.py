"""A change that may be a trial: the same statements and the same checks, and a dry run takes them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.failpoint import failpoint
from sinks.pool import Connection, Pool, connection


@asynccontextmanager
async def attempt(pool: Pool, *, dry_run: bool) -> AsyncIterator[Connection]:
    """
    A connection in a transaction, which is committed at the end, or taken back if this is a dry run.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        transaction = held.transaction()
        await transaction.start()
        try:
            yield held
        except BaseException:
            await transaction.rollback()
            raise
        if dry_run:
            await transaction.rollback()
            return
        failpoint("api_before_commit")
        await transaction.commit()
        failpoint("api_after_commit")
