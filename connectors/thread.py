"""
Threads for blocking calls, each connector's its own.

`asyncio.to_thread` and name look-ups of the default event loop share one small pool in a process: six calls that never
come back, of one source, would hang every other. With `ThreadsByOwner` as the loop's default executor, what is called
inside `own_threads` runs in threads of that owner alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST = 32  # blocking calls of one owner at a time; more wait, and meet their deadline


class Threads(ThreadPoolExecutor):
    """One owner's threads. `busy` counts the calls that have not come back."""

    def __init__(self, name: str, most: int = MOST) -> None:
        super().__init__(max_workers=most, thread_name_prefix=name)
        self._running: set[Future[Any]] = set()

    @property
    def busy(self) -> int:
        """Calls under way; after `shutdown` those that do not come back."""
        return len(self._running)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the executor's."""
        called = super().submit(fn, *args, **kwargs)
        self._running.add(called)
        called.add_done_callback(self._running.discard)
        return called


_mine: ContextVar[Threads | None] = ContextVar("threads", default=None)


class ThreadsByOwner(ThreadPoolExecutor):
    """The executor that an event loop gets as its default: calls go to the threads of whoever calls."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the executor's."""
        mine = _mine.get()
        return super().submit(fn, *args, **kwargs) if mine is None else mine.submit(fn, *args, **kwargs)


@contextmanager
def own_threads(threads: Threads) -> Iterator[None]:
    """Blocking calls inside, also of tasks started there, run in these threads."""
    token = _mine.set(threads)
    try:
        yield
    finally:
        _mine.reset(token)
        threads.shutdown(wait=False, cancel_futures=True)
