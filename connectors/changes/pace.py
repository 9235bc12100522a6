"""How long a reading lasts, how often it looks, and waiting for a slow server without keeping silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from connectors.ports import Clock

T = TypeVar("T")

SIGN_OF_LIFE_S = 5.0  # well below the silence that a runner takes for death


@dataclass(frozen=True, slots=True)
class Pace:
    """
    A reading looks every `interval_s`. It ends once nothing came for `idle_s`, and after `run_s` in any case, so that
    its run can be confirmed; the next one goes on.
    """

    interval_s: float
    idle_s: float
    run_s: float


class Pacemaker:
    """Measures one reading against its pace."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._pace = pace
        self._clock = clock
        self._began_s = self._spoke_s = clock.monotonic()
        self._idle_s = 0.0
        self._looked = False

    @property
    def is_over(self) -> bool:
        """Whether the reading should end; never before its first look."""
        lasted_s = self._clock.monotonic() - self._began_s
        return self._looked and (self._idle_s >= self._pace.idle_s or lasted_s >= self._pace.run_s)

    @property
    def is_silent(self) -> bool:
        """Whether a sign of life is due."""
        return self._clock.monotonic() - self._spoke_s >= SIGN_OF_LIFE_S

    def speaks(self) -> None:
        """A batch was handed on, maybe an empty one."""
        self._spoke_s = self._clock.monotonic()

    def looked(self, *, found: bool) -> None:
        """A look has ended."""
        self._looked = True
        if found:
            self._idle_s = 0.0

    async def pause(self, *, took_s: float = 0.0) -> None:
        """Wait for the next look, at least as long as the last one took: a look must not become the server's work."""
        seconds = max(self._pace.interval_s, took_s)
        await self._clock.sleep(seconds)
        self._idle_s += seconds


@contextlib.contextmanager
def pending(work: Awaitable[T]) -> Iterator[asyncio.Future[T]]:
    """The work under way; whoever leaves early gives it up."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda late: late.cancelled() or late.exception())


async def arrived(task: asyncio.Future[T], *, within_s: float = SIGN_OF_LIFE_S) -> bool:
    """Whether it is done, or will be within this time."""
    await asyncio.wait({task}, timeout=within_s)
    return task.done()
