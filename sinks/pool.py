"""
A bounded pool of connections to PostgreSQL: nothing on it can wait for ever, and no commit is acknowledged before it is
on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from schemas.errors import SinkMisconfigured
from sinks.arrays import take_arrays
from sinks.sqlstate import sink_error

# asyncpg ships no types.
Connection: TypeAlias = Any
Pool: TypeAlias = Any

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # where PostgreSQL counts from
_MICROSECOND = timedelta(microseconds=1)
_DAY_S = 86_400
_DURABLE_COMMITS = frozenset({"on", "remote_apply"})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    What bounds every wait, in seconds. The server's own come first, so that a healthy server ends what it began.

    `idle_s` frees the locks of a client that was frozen inside a transaction, so that its successor can go on.
    """

    connect_s: float = 5.0
    acquire_s: float = 10.0
    lock_s: float = 15.0
    statement_s: float = 30.0
    idle_s: float = 10.0
    client_s: float = 35.0


DEFAULT_TIMEOUTS = Timeouts()
WHOLE_TABLE_S = 3600.0  # a recount reads whole tables, for as long as that takes


async def open_pool(
    dsn: str,
    *,
    size: int = 4,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    application: str = "tillstream",
    durable: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Pool:
    """
    A pool of at most `size` connections, the first of them open and checked.

    `durable` insists on `synchronous_commit` and `fsync` and pins them; readers need not. `settings` are further
    settings of the session.

    Raises:
        SinkUnavailable: retry. SinkMisconfigured: pause; also where a commit could be acknowledged and lost.
    """
    every = {
        "application_name": application,
        "timezone": "UTC",
        "jit": "off",
        "lock_timeout": _milliseconds(timeouts.lock_s),
        "statement_timeout": _milliseconds(timeouts.statement_s),
        "idle_in_transaction_session_timeout": _milliseconds(timeouts.idle_s),
        **(settings or {}),
    }
    pool = await asyncpg.create_pool(
        dsn,
        # No floor: the pool would restore it in the background, with a traceback in the log for each attempt.
        min_size=0,
        max_size=size,
        timeout=timeouts.connect_s,
        command_timeout=timeouts.client_s,
        # Plans live as long as their connection; the sink's statement is longer than asyncpg caches by default.
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
        server_settings=every,
        init=_begin_durable if durable else _begin,
        reset=_keep,
    )
    try:
        async with connection(pool, timeouts=timeouts):
            return pool
    except ValueError as exc:
        pool.terminate()
        raise SinkMisconfigured(
            "the DSN cannot be read", hint="correct the DSN: postgresql://user@host:port/name"
        ) from exc
    except BaseException:
        pool.terminate()
        raise


@asynccontextmanager
async def connection(pool: Pool, *, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> AsyncIterator[Connection]:
    """
    A connection of the pool; after any error it is closed, never given to somebody else in an unknown state.

    Raises:
        SinkError: whatever went wrong inside, as `sinks/sqlstate.py` routes it.
    """
    held: Connection = None
    try:
        held = await pool.acquire(timeout=timeouts.acquire_s)
        yield held
    except BaseException as exc:
        if held is not None:
            # The pool takes a connection back by itself once the server has closed it.
            with suppress(asyncpg.InterfaceError):
                held.terminate()
        told = sink_error(exc)
        if told is None or told is exc:
            raise
        raise told from exc
    finally:
        if held is not None:
            await pool.release(held, timeout=timeouts.acquire_s)


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """
    A connection that sees one moment of the database, for reading whole tables: give its calls `timeout=WHOLE_TABLE_S`.

    Raises:
        SinkError: as `connection`.
    """
    async with connection(pool) as held, held.transaction(isolation="repeatable_read", readonly=True):
        await held.execute(f"SET LOCAL statement_timeout = {_milliseconds(WHOLE_TABLE_S)}")
        yield held


async def close_pool(pool: Pool, *, timeout_s: float = 5.0) -> None:
    """Close every connection, abruptly after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _begin(held: Connection) -> None:
    await held.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_microseconds, decoder=_instant, format="tuple"
    )


async def _begin_durable(held: Connection) -> None:
    await _begin(held)
    take_arrays(held)
    row = await held.fetchrow(
        "SELECT current_setting('synchronous_commit') AS commits, current_setting('fsync') AS fsync,"
        " set_config('synchronous_commit', current_setting('synchronous_commit'), false)"
    )
    if row["commits"] not in _DURABLE_COMMITS or row["fsync"] != "on":
        raise SinkMisconfigured(
            f"a crash would lose acknowledged commits: synchronous_commit={row['commits']}, fsync={row['fsync']}",
            hint="set synchronous_commit=on and fsync=on: the log forgets what the sink has acknowledged",
        )


def _microseconds(at: datetime) -> tuple[int]:
    """
    As PostgreSQL counts. asyncpg's own codec sends the first and the last instant of Python as infinities, which are
    other instants.
    """
    since = at - _EPOCH
    return ((since.days * _DAY_S + since.seconds) * 1_000_000 + since.microseconds,)  # `//` takes twice the time


def _instant(counted: tuple[int]) -> datetime:
    return _EPOCH + counted[0] * _MICROSECOND


async def _keep(_: Connection) -> None:
    """Nothing to reset: statements set no session state. asyncpg has rolled back what was open."""


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
