"""Waiting with a bound: for a source that may hang, until a stop, and for the next attempt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Literal, TypeVar

from connectors.ports import Clock
from schemas.errors import SourceThrottled, SourceUnavailable, TillError

T = TypeVar("T")

_GRACE_S = 1.0  # what a cancelled await may take to go; a thread that hangs in the kernel never does


class End(Enum):
    """Says that an iterator has ended."""

    END = 0


END = End.END


class Stopped(Exception):
    """The wait ended because of a stop."""


class Guard:
    """
    Bounds what a source may make us wait: by silence, and by a stop. Use as `async with`; one per attempt.

    An await that is given up is cancelled, and left behind if it does not even heed that.
    """

    def __init__(self, *, seconds: float, clock: Clock, stop: asyncio.Event) -> None:
        self._seconds = seconds
        self._clock = clock
        self._stop = stop
        self._since_s = clock.monotonic()
        self._silence: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Guard:
        self.stopping = asyncio.ensure_future(self._stop.wait())
        self._watching = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stopping.cancel()
        self._watching.cancel()

    async def next(self, iterator: AsyncIterator[T], what: str) -> T | Literal[End.END]:
        """
        The next item, or `END`.

        Raises:
            SourceUnavailable: retry; the source kept silent for `seconds`. Stopped: the stop came first.
        """
        task = asyncio.ensure_future(_next_of(iterator))
        self._since_s = self._clock.monotonic()
        self._silence = asyncio.get_running_loop().create_future()
        waits: set[asyncio.Future[Any]] = {task, self._silence, self.stopping}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await abandon(task)
            raise
        finally:
            silent, self._silence = self._silence.done(), None
        if task.done():
            return task.result()
        await abandon(task)
        if not silent:
            raise Stopped
        raise SourceUnavailable(f"timeout in {what}: silent for {self._seconds:g} s")

    async def _watch(self) -> None:
        while True:
            waiting = self._silence is not None and not self._silence.done()
            left_s = self._seconds - (self._clock.monotonic() - self._since_s) if waiting else self._seconds
            if left_s <= 0 and self._silence is not None:
                self._silence.set_result(None)
            else:
                await self._clock.sleep(left_s)


async def pause(seconds: float, *, clock: Clock, stop: asyncio.Event) -> bool:
    """Let `seconds` pass, or less if `stop` is set meanwhile; whether it was."""
    if stop.is_set():
        return True
    timer = asyncio.ensure_future(clock.sleep(seconds))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({timer, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        stopping.cancel()
    return stop.is_set()


async def _next_of(iterator: AsyncIterator[T]) -> T | Literal[End.END]:
    """The next item, or `END`."""
    try:
        return await anext(iterator)
    except StopAsyncIteration:
        return END


async def close_iterator(iterator: AsyncIterator[object]) -> None:
    """Close a generator, within a bound; one that still hangs in an await that was given up is left behind."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        closing = asyncio.ensure_future(close())
        await asyncio.wait({closing}, timeout=_GRACE_S)  # `wait_for` of Python 3.11 may swallow a cancellation
        await abandon(closing)


class Backoff:
    """Pauses between attempts: exponential with full jitter, so that what failed together does not return together."""

    def __init__(self, first_s: float, most_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng

    def pause_s(self, failures: int, error: TillError) -> float:
        """How long to wait after the `failures`-th failure in a row. What the source asks for is a minimum."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(failures - 1, 62))
        jittered = self._rng.uniform(0, ceiling)
        return error.retry_after_s + jittered if isinstance(error, SourceThrottled) else jittered


async def abandon(task: asyncio.Future[Any]) -> None:
    """Cancel it, and do not wait for it much."""
    task.cancel()
    await asyncio.wait({task}, timeout=_GRACE_S)
    if task.done():
        if not task.cancelled():
            task.exception()  # seen, and of no use any more
    else:
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
