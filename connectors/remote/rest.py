"""
Which files nobody is writing: those that look the same for a while.

The server's clock is not ours, so a file's own time says nothing about how long it has been at rest: only two looks do.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from connectors.ports import Clock

LONGEST_WAIT_S = 60.0  # within one listing; a file that needs longer is looked at again by the next one
_ROUNDING_S = 0.001


class Rest:
    """Remembers since when each file has looked as it does."""

    def __init__(self, rest_s: float, clock: Clock) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._since: dict[Hashable, tuple[str, float]] = {}

    def look(self, stamps: Mapping[Hashable, str]) -> None:
        """These files are there now, with these stamps; others are forgotten."""
        now, before = self._clock.monotonic(), self._since
        self._since = {
            name: (stamp, before[name][1] if before.get(name, ("",))[0] == stamp else now)
            for name, stamp in stamps.items()
        }

    def missing_s(self, name: Hashable) -> float:
        """How long a file that was looked at must go on resting; 0: it is at rest."""
        left_s = self._rest_s - (self._clock.monotonic() - self._since[name][1])
        return left_s if left_s > _ROUNDING_S else 0.0

    async def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        await self._clock.sleep(seconds)
