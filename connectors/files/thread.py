"""
Blocking calls on a file system, off the event loop.

Each runs in a daemon thread of its own: one that hangs in the kernel (a dead network mount) starves nobody and holds up
no exit. Too many of them hanging at a time is an error, so that they cannot pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from schemas.errors import SourceUnavailable

T = TypeVar("T")


class Threads:
    """Runs blocking calls, at most `limit` at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._busy = 0

    async def run(self, call: Callable[..., T], *args: Any) -> T:  # Any: the call's own arguments
        """
        What the call returns or raises. Cancelling the wait abandons the call, it does not end it.

        Raises:
            SourceUnavailable: retry; `limit` earlier calls have not come back.
        """
        if self._busy >= self._limit:
            raise SourceUnavailable(f"{self._busy} calls to the file system do not come back")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._busy += 1

        def deliver(value: T | None, error: BaseException | None) -> None:
            self._busy -= 1
            if result.cancelled():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]  # without an error it is the call's own

        def work() -> None:
            value: T | None = None
            error: BaseException | None = None
            try:
                value = call(*args)
            except BaseException as exc:
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, value, error)

        threading.Thread(target=work, name="file", daemon=True).start()
        return await result
