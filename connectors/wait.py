"""
Waiting with a bound: for a source that may hang, until a stop, and for the next attempt.

A source's code is a stranger's. It may keep silent, refuse to be cancelled, cancel itself, raise anything, or ask the
process to exit: all of that comes out of here as an error of its connector, and of nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import Enum
from typing import Any, Literal, TypeVar

from connectors.log import extra
from connectors.ports import Clock
from schemas.errors import SourceBroken, SourceUnavailable, TillError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_RETRY_AFTER_S = 86_400.0  # a server that asks for more asks for an operator
_GRACE_S = 1.0  # what a cancelled await may take to go; a thread that hangs in the kernel never does


class End(Enum):
    """Says that an iterator has ended."""

    END = 0


END = End.END


class Stopped(Exception):
    """The wait ended because of a stop."""


class Leftovers:
    """Awaits of a source that were given up and do not end. They hold memory, and whatever they wait for."""

    def __init__(self) -> None:
        self._left: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._left)

    def add(self, late: asyncio.Future[Any]) -> None:
        """Remember it until it ends after all."""
        self._left.add(late)
        late.add_done_callback(self._ended)

    def _ended(self, late: asyncio.Future[Any]) -> None:
        self._left.discard(late)
        if not late.cancelled():
            late.exception()  # seen, and of no use any more


class Guard:
    """
    Bounds what a source may make us wait: by silence, and by a stop. Use as `async with`; one per attempt.

    An await that is given up is cancelled, and left behind if it does not even heed that. `owner` is who is blamed
    for blocking the event loop.
    """

    def __init__(
        self, *, seconds: float, clock: Clock, stop: asyncio.Event, left: Leftovers | None = None, owner: str = ""
    ) -> None:
        self._owner = owner
        self._seconds = seconds
        self._clock = clock
        self._stop = stop
        self._left = left
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
            SourceUnavailable: retry; the source kept silent for `seconds`. SourceBroken: retry; it raised what is none
                of ours. Stopped: the stop came first.
        """
        # the name tells the watchdog who blocks the event loop
        task = asyncio.create_task(_next_of(iterator), name=f"{self._owner}: {what}")
        self._since_s = self._clock.monotonic()
        self._silence = asyncio.get_running_loop().create_future()
        waits: set[asyncio.Future[Any]] = {task, self._silence, self.stopping}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await abandon(task, self._left)
            raise
        finally:
            silent, self._silence = self._silence.done(), None
        if task.done():
            return _result(task, what)
        await abandon(task, self._left)
        if not silent:
            raise Stopped
        raise SourceUnavailable(f"timeout in {what}: silent for {self._seconds:g} s")

    async def close(self, iterator: AsyncIterator[object]) -> None:
        """Close a generator, within a bound."""
        await close_iterator(iterator, self._left)

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
    except SystemExit as exc:  # a task that raises it ends the whole process
        raise RuntimeError(f"the source asked the process to exit with {exc.code!r}") from exc


def _result(task: asyncio.Task[T], what: str) -> T:
    """
    What the source gave.

    Raises:
        TillError: the source's. SourceBroken: instead of anything else.
    """
    if task.cancelled():  # by itself: nobody of us cancelled it
        raise SourceBroken(f"internal error in {what}: it cancelled itself")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, TillError):
        raise error
    raise broken(error, what) from error


def broken(error: BaseException, what: str) -> SourceBroken:
    """The error of a source whose code raised what is none of ours. Its traceback goes to the log, here."""
    logger.error("a bug in the source: %s", what, exc_info=error, extra=extra(code=SourceBroken.code))
    return SourceBroken(f"internal error in {what}: {type(error).__name__}")


async def close_iterator(iterator: AsyncIterator[object], left: Leftovers | None = None) -> None:
    """Close a generator, within a bound; one that still hangs in an await that was given up is left behind."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await bounded(close, _GRACE_S, left, what="closing a generator")


async def bounded(
    work: Callable[[], Coroutine[Any, Any, object]], seconds: float, left: Leftovers | None = None, *, what: str
) -> None:
    """Let the source do it, for so long. What it raises is logged, what does not end is left behind."""
    doing = asyncio.create_task(quietly(work, what), name=what)
    await asyncio.wait({doing}, timeout=seconds)  # `wait_for` of Python 3.11 may swallow a cancellation
    await abandon(doing, left)


async def quietly(work: Callable[[], Coroutine[Any, Any, object]], what: str) -> None:
    """Let a source do what is to raise nothing; what it raises is logged."""
    try:
        await work()
    except (Exception, SystemExit) as exc:  # a stranger's code may fail in any way
        logger.warning("%s failed", what, extra=extra(error=f"{type(exc).__name__}: {exc}"))


class Backoff:
    """
    Pauses between attempts: exponential with jitter, so that what failed together does not return together.

    `jitter` is the part of a pause that is left to chance: 1 for all of it, 0 for none.
    """

    def __init__(self, first_s: float, most_s: float, rng: random.Random, *, jitter: float = 1.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng
        self._jitter = jitter

    def pause_s(self, failures: int, error: TillError) -> float:
        """How long to wait after the `failures`-th failure in a row. What the source asks for is a minimum."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(failures - 1, 62))
        jittered = self._rng.uniform((1 - self._jitter) * ceiling, ceiling)
        return min(error.retry_after_s, _MOST_RETRY_AFTER_S) + jittered


async def abandon(task: asyncio.Future[Any], left: Leftovers | None = None) -> None:
    """Cancel it, and do not wait for it much. What does not end is remembered in `left`."""
    task.cancel()
    await asyncio.wait({task}, timeout=_GRACE_S)
    if not task.done():
        (Leftovers() if left is None else left).add(task)
    elif not task.cancelled():
        task.exception()  # seen, and of no use any more
