"""
The watchdog: ends a process that makes no progress while there is work, so that its supervisor starts a new one.

Consumers are known to stop silently after a rebalance or an outage. Seen from outside they look idle; what gives them
away is lag without progress. A wait that somebody has declared (the database is down, an operator's pause, the breaker,
consume lag) is no stall.

It runs in a thread of its own: an event loop that is blocked cannot watch itself.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from schemas import metric
from schemas.metric import Meter, NullMeter

log = logging.getLogger(__name__)

EXIT_STALLED = 70  # EX_SOFTWARE of sysexits.h: restart me
STALL_S = 60.0  # P6: the pipeline recovers within 60 s of a fault's end
_LOOK_EVERY_S = 1.0
_WAS_FROZEN_S = 5.0  # a look so late means that the process itself stood still (SIGSTOP, a suspended machine)

Key = tuple[str, int]  # topic, partition


@dataclass(slots=True)
class Watchdog:
    """
    Looks at every partition, and says which ones have stood still for `stall_s` seconds with lag and without a hold.

    The three callables are called from the watchdog's thread and must return at once. A partition that `lag` does not
    name is not watched. `progress` is any number that changes when something gets done.
    """

    lag: Callable[[], Mapping[Key, int]]
    progress: Callable[[], Mapping[Key, int]]
    held: Callable[[], Collection[Key]]
    stall_s: float = STALL_S
    meter: Meter = field(default_factory=NullMeter)
    _seen: dict[Key, tuple[int, float]] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _stopped: threading.Event = field(default_factory=threading.Event)

    def look(self, now: float) -> list[Key]:
        """The partitions that have stalled. `now` is monotonic time in seconds."""
        lag, progress, held = self.lag(), self.progress(), self.held()
        was_frozen = now - self._looked_at > _WAS_FROZEN_S
        self._looked_at = now
        idle: dict[Key, float] = {}
        seen: dict[Key, tuple[int, float]] = {}
        for key, behind in lag.items():
            done = progress.get(key, 0)
            before, since = self._seen.get(key, (done, now))
            if done != before or behind <= 0 or key in held or was_frozen:
                since = now
            seen[key] = (done, since)
            idle[key] = now - since
        self._seen = seen
        self.meter.set(metric.WATCHDOG_IDLE_SECONDS, max(idle.values(), default=0.0))
        return [key for key, idle_s in idle.items() if idle_s >= self.stall_s]

    def start(self, on_stall: Callable[[list[Key]], None] | None = None) -> None:
        """Watch from now on; by default a stall ends the process with status 70."""
        act = on_stall or end_process
        threading.Thread(target=self._watch, args=(act,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _watch(self, on_stall: Callable[[list[Key]], None]) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            stalled = self.look(time.monotonic())
            if stalled and not self._stopped.is_set():
                on_stall(stalled)
                return


def end_process(stalled: list[Key]) -> None:
    """Say what stands still and where every thread is, then end the process at once."""
    names = ",".join(f"{topic}/{partition}" for topic, partition in stalled)
    log.critical("no progress while there is lag: the process ends", extra={"facts": {"stalled": names}})
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(EXIT_STALLED)
