"""Libraries that repeat themselves: one line of a kind in a while, and how many were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

EVERY_S = 10.0  # aiokafka logs 40 lines a second while a broker is away (measured)


class Seldom(logging.Filter):
    """Lets a warning or error of one kind (logger, and message before formatting) through once in `every_s` seconds."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; one that is tells how many before it were not."""
        if record.levelno < logging.WARNING:
            return True
        kind, now = (record.name, str(record.msg)), self._clock()
        last, left_out = self._last.get(kind, (float("-inf"), 0))
        if now - last < self._every_s:
            self._last[kind] = (last, left_out + 1)
            return False
        self._last[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more like it)"
        return True


def calm(library: str = "aiokafka") -> None:
    """Make the library's loggers seldom. For loggers that exist, so after it was imported; again is no harm."""
    seldom = Seldom()
    for name in [library, *logging.root.manager.loggerDict]:
        if name == library or name.startswith(f"{library}."):
            logger = logging.getLogger(name)
            if not any(isinstance(each, Seldom) for each in logger.filters):
                logger.addFilter(seldom)
