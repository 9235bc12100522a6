"""How far checkpoints stand, and since when: what a slot may let go of."""

from __future__ import annotations

from collections import deque


class Durable:
    """
    The places that checkpoints held, each with the moment at which it was told.

    A slot lets go of a place only some time after: a checkpoint that the broker acknowledged may still come to nothing.
    A worker that was frozen past its session writes one more before it hears that it has been succeeded, and the table
    behind checkpoints may lose its last writes in a crash. Whoever goes on from the place before finds it all there.
    """

    def __init__(self) -> None:
        self._told: deque[tuple[float, int]] = deque()
        self._old_enough = 0
        self.newest = 0

    def reaches(self, place: int, at_s: float) -> None:
        """A checkpoint holds the place since then."""
        if place > self.newest:
            self.newest = place
            self._told.append((at_s, place))

    def before(self, at_s: float) -> int:
        """The greatest place that a checkpoint held by then; 0 if none did."""
        while self._told and self._told[0][0] <= at_s:
            self._old_enough = self._told.popleft()[1]
        return self._old_enough
