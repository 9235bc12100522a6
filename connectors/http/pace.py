"""How fast requests may follow each other: a connector's `requests_per_s`."""

from __future__ import annotations

from connectors.ports import Clock


class Pace:
    """Gives out turns, evenly spaced. With no rate everybody's turn is now."""

    def __init__(self, per_s: float | None, clock: Clock) -> None:
        self._interval_s = 1.0 / per_s if per_s else 0.0
        self._clock = clock
        self._next_s = clock.monotonic()

    async def turn(self) -> None:
        """Return when it is the caller's turn; turns are given in the order of asking."""
        if not self._interval_s:
            return
        now_s = self._clock.monotonic()
        at_s = max(self._next_s, now_s)
        self._next_s = at_s + self._interval_s
        if at_s > now_s:
            await self._clock.sleep(at_s - now_s)
