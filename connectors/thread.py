"""
Threads for blocking calls, each connector's its own.

`asyncio.to_thread` and name look-ups of the default event loop share one small pool in a process: six calls that never
come back, of one source, would hang every other. With `ThreadsByOwner` as the loop's default executor, what is called
inside `own_threads` runs in threads of that owner alone. They are daemons: a call that hangs holds up no exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST = 32  # blocking calls of one owner at a time; more wait, and meet their deadline

_Call = Callable[[], None] | None  # what a thread does next; None ends it


class Threads:
    """One owner's threads, begun as they are needed. `busy` counts the calls that have not come back."""

    def __init__(self, name: str, most: int = MOST) -> None:
        self._name = name
        self._most = most
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._lock = threading.Lock()
        self._begun = 0
        self._waiting = 0
        self._running = 0
        self._closed = False

    @property
    def busy(self) -> int:
        """Calls under way; once closed, those that do not come back."""
        return self._running

    # a call's own arguments
    def submit(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Have it called in a thread of ours, as an executor would."""
        called: Future[T] = Future()

        def call() -> None:
            if not called.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:
                called.set_exception(exc)
            else:
                called.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError("these threads have been let go")
            self._waiting += 1
            if self._waiting + self._running > self._begun and self._begun < self._most:
                self._begun += 1
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        self._calls.put(call)
        return called

    def close(self) -> None:
        """Let the threads end; those that hang end with their call, or with the process."""
        with self._lock:
            self._closed = True
        for _ in range(self._begun):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            with self._lock:
                self._waiting -= 1
                self._running += 1
            try:
                call()
            finally:
                with self._lock:
                    self._running -= 1


_mine: ContextVar[Threads | None] = ContextVar("threads", default=None)


class ThreadsByOwner(ThreadPoolExecutor):
    """The executor that an event loop gets as its default: calls go to the threads of whoever calls."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the executor's."""
        mine = _mine.get()
        return super().submit(fn, *args, **kwargs) if mine is None else mine.submit(fn, *args, **kwargs)


@contextmanager
def own_threads(threads: Threads) -> Iterator[None]:
    """Blocking calls inside, also of tasks started there, run in these threads, which are closed at the end."""
    token = _mine.set(threads)
    try:
        yield
    finally:
        _mine.reset(token)
        threads.close()
