"""
How fast a connector may publish: its option `records_per_s`.

A connector runs on one worker at a time, so one bucket there is one for all workers. It is empty when a connector
begins, or a handover would be a way around the limit; and a stop gives nobody a turn.
"""

from __future__ import annotations

import asyncio

from connectors.ports import Clock
from connectors.wait import Stopped, pause

_STEP_S = 0.2  # a limit is kept in steps of so long, not in bursts of a whole batch


class RateLimit:
    """A bucket that fills with `per_s` turns a second. With no rate everybody's turn is now."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._free_at_s = clock.monotonic()

    @property
    def step(self) -> int:
        """How many records to publish at a time; 0: as many as there are."""
        return max(1, round(self._per_s * _STEP_S)) if self._per_s else 0

    async def turn(self, records: int, *, stop: asyncio.Event) -> None:
        """
        Return when so many may be published, in the order of asking.

        Raises:
            Stopped: the stop came first, and nothing may be published any more.
        """
        if not self._per_s:
            return
        now_s = self._clock.monotonic()
        # unused time is worth one step, no more: a quiet hour must not end in a burst
        self._free_at_s = max(self._free_at_s, now_s - _STEP_S) + records / self._per_s
        wait_s = self._free_at_s - now_s
        if stop.is_set() or (wait_s > 0 and await pause(wait_s, clock=self._clock, stop=stop)):
            raise Stopped
