"""
Waiting between tries: exponential, capped, with full jitter. Source: the AWS Architecture Blog's comparison of jitters.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 10.0
_GROWTH = 2.0


@dataclass(slots=True)
class Backoff:
    """The waits of one series of tries. `next_s` grows the ceiling; `reset` starts over."""

    first_s: float = FIRST_S
    longest_s: float = LONGEST_S
    tries: int = 0

    def next_s(self) -> float:
        """Seconds to wait now: uniform between half the ceiling and the ceiling, so that it never spins."""
        ceiling = min(self.longest_s, self.first_s * _GROWTH ** min(self.tries, 30))
        self.tries += 1
        return ceiling * (0.5 + random.random() / 2)  # jitter is no secret

    def reset(self) -> None:
        """The last try went through."""
        self.tries = 0
