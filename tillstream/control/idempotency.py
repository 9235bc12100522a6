"""
Requests that may come twice: the first answer is kept for a day, and whoever goes on after a crash makes the same.

A key is held by a lock of the session, which ends with the process, so that a retry need not wait for a dead one.
Each key reserves an id; what the request makes gets it, so that making it again is finding it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID, uuid4

import asyncpg

from sinks.pool import Connection, Pool, connection
from sinks.sqlstate import sink_error
from tillstream.control.statement import statements

KEPT_H = 24


class Refused(Enum):
    """Why a key cannot be used now."""

    AT_WORK = auto()  # the first request is being answered
    REUSED = auto()  # the key belongs to another request


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given before."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The request may be done. `again`: an earlier try had begun and did not end, and may have made `reserved`."""

    reserved: UUID
    again: bool


class Keys:
    """The keys that this process holds. One connection of the pool holds the locks for as long as there are any."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._session: Connection = None
        self._opened = AsyncExitStack()
        self._using = asyncio.Lock()  # a connection does one thing at a time

    async def begin(self, pool: Pool, key: str, request: bytes) -> Begun | Kept | Refused:
        """
        Hold the key for a request of this hash; `end` or `release` it afterwards if it was begun.

        Raises:
            SinkError: as `sinks/sqlstate.py` routes it.
        """
        if key in self._held:
            return Refused.AT_WORK
        self._held.add(key)
        try:
            found = await self._begin(pool, key, request)
        except BaseException:
            self._held.discard(key)
            raise
        if not isinstance(found, Begun):
            await self.release(key)
        return found

    async def end(self, pool: Pool, key: str, answer: Kept) -> None:
        """
        Keep the answer.

        Raises:
            SinkError: as routed; a retry then does the request again, and makes nothing twice.
        """
        async with connection(pool) as held:
            headers = json.dumps(dict(answer.headers))
            await held.execute(statements()["keep_answer"], key, answer.status, headers, answer.body)

    async def release(self, key: str) -> None:
        """Hold the key no longer; the last one gives the connection back. Raises nothing."""
        self._held.discard(key)
        async with self._using:
            if self._session is None:
                return
            try:
                await self._session.execute("SELECT pg_advisory_unlock($1)", _lock_of(key))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._close()  # its locks end with it
            if not self._held:
                await self._close()

    async def _begin(self, pool: Pool, key: str, request: bytes) -> Begun | Kept | Refused:
        if not await self._lock(pool, key):
            return Refused.AT_WORK
        async with connection(pool) as held, held.transaction():
            await held.execute(statements()["forget_keys"], KEPT_H)
            made = await held.fetchval(statements()["make_key"], key, request, uuid4())
            if made is not None:
                return Begun(made, again=False)
            row = await held.fetchrow(statements()["find_key"], key)
        if row["request"] != request:
            return Refused.REUSED
        if row["status"] is None:
            return Begun(row["reserved"], again=True)
        return Kept(row["status"], json.loads(row["headers"]), row["body"])

    async def _lock(self, pool: Pool, key: str) -> bool:
        """Whether no other process holds the key."""
        async with self._using:
            if self._session is None or self._session.is_closed():
                await self._close()
                self._session = await self._opened.enter_async_context(connection(pool))
            try:
                return bool(await self._session.fetchval("SELECT pg_try_advisory_lock($1)", _lock_of(key)))
            except Exception as exc:
                await self._close()
                raise sink_error(exc) or exc from exc

    async def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.terminate()  # never given to somebody else with a lock on it
        opened, self._opened = self._opened, AsyncExitStack()
        await opened.aclose()


def _lock_of(key: str) -> int:
    """The number of a key's lock, in the range of PostgreSQL's bigint."""
    return int.from_bytes(hashlib.sha256(b"tillstream idempotency " + key.encode()).digest()[:8], "big", signed=True)
