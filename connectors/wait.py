"""Waiting with a bound: for a source that may hang, until a stop, and for the next attempt."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
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


async def within(
    work: Coroutine[Any, Any, T], *, seconds: float, clock: Clock, what: str, stop: asyncio.Event | None = None
) -> T:
    """
    The result of `work`, if it comes within `seconds`.

    Raises:
        SourceUnavailable: retry; it did not, and was cancelled, or abandoned if it does not even heed that.
        Stopped: `stop` was set first.
    """
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    stopping = asyncio.ensure_future(stop.wait()) if stop is not None else None
    others = {timer} if stopping is None else {timer, stopping}
    try:
        await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        stopped = stopping is not None and stopping.done()
        await _abandon(task)
    except asyncio.CancelledError:
        await _abandon(task)
        raise
    finally:
        for other in others:
            other.cancel()
    if stopped:
        raise Stopped
    raise SourceUnavailable(f"timeout in {what}: silent for {seconds:g} s")


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


async def next_of(iterator: AsyncIterator[T]) -> T | Literal[End.END]:
    """The next item, or `END`."""
    try:
        return await anext(iterator)
    except StopAsyncIteration:
        return END


async def close_iterator(iterator: AsyncIterator[object]) -> None:
    """Close a generator, within a bound; one that still hangs in an await that was given up is left behind."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError, TimeoutError):
            await asyncio.wait_for(close(), _GRACE_S)


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


async def _abandon(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=_GRACE_S)
    if task.done():
        if not task.cancelled():
            task.exception()  # seen, and of no use any more
    else:
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
