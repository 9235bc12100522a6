"""One session for everybody who needs one: opened when it is asked for, replaced when it broke, closed when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.remote.login import Login
from connectors.remote.session import Session

IDLE_S = 60.0  # polls come more often than that as a rule; a login a day needs no connection all day


class Door:
    """The way to the server. Many may use its session at a time: SFTP takes requests side by side."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """
        The session, for a while. Whether it still lives is for its user to see.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured, SourceUnauthorised: pause.
        """
        self._users += 1
        self._stop_waiting()
        try:
            async with self._opening:
                if self._session is None or not self._session.alive:
                    self._session = await self._login.open()
            yield self._session
        finally:
            self._users -= 1
            if self._users == 0:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._leave)

    async def close(self) -> None:
        """Leave. Raises nothing."""
        self._stop_waiting()
        self._leave()
        if self._closing:
            await asyncio.wait(self._closing)

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            closing = asyncio.create_task(session.close(), name="sftp close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
