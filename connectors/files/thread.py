"""
Blocking calls on a file system, off the event loop.

They run in daemon threads that belong to one source: a call that hangs in the kernel (a dead network mount) starves no
other source and holds up no exit. Too many of them hanging at a time is an error, so that they cannot pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from schemas.errors import SourceUnavailable

T = TypeVar("T")

# what a thread does next; None ends it
_Job = Callable[[], None] | None


class Threads:
    """Runs blocking calls, at most `limit` at a time. Threads are begun as they are needed, and kept until `close`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._begun = 0
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

        if self._busy > self._begun:
            self._begun += 1
            threading.Thread(target=_serve, args=(self._jobs,), name="files", daemon=True).start()
        self._jobs.put(work)
        return await result

    def close(self) -> None:
        """Let the threads end; those that hang end with their call."""
        for _ in range(self._begun):
            self._jobs.put(None)
        self._begun = 0


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while (job := jobs.get()) is not None:
        job()
