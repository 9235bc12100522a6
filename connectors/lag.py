"""
How far a connector is behind its source: the age of the oldest thing that is known to wait and is not published.

    an object to be read once     waits since it was met, until all of it is published
    a recurring task              stands where the last record that it published stands in time, and before that where
                                  it began; it has no lag once a reading has come to its end
    the listing                   nobody knows what waits since it last succeeded

A connector that has nothing to do has no lag. What happens at the sink is the monitor's to measure.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import datetime

from connectors.ports import Clock
from schemas import metric
from schemas.metric import Meter


class SourceLag:
    """Knows since when each task waits. With `alert_s`, more than that is a problem."""

    def __init__(self, connector: str, *, alert_s: float, clock: Clock, meter: Meter) -> None:
        self._connector = connector
        self._alert_s = alert_s
        self._clock = clock
        self._meter = meter
        self._since: dict[str, datetime] = {}

    def waits(self, key: str, since: datetime) -> None:
        """Something of this task waits, the oldest of it since then."""
        self._since[key] = since

    def begins(self, key: str, now: datetime) -> None:
        """A recurring task is begun: it waits since now, or since its last beginning that came to nothing."""
        self._since.setdefault(key, now)

    def through(self, key: str) -> None:
        """Nothing of it waits any more."""
        self._since.pop(key, None)

    def keep(self, keys: AbstractSet[str]) -> None:
        """Nothing else is there any more."""
        self._since = {key: since for key, since in self._since.items() if key in keys}

    @property
    def seconds(self) -> float:
        """The age of the oldest; 0 where nothing waits."""
        if not self._since:
            return 0.0
        return max(0.0, (self._clock.now() - min(self._since.values())).total_seconds())

    @property
    def problem(self) -> str:
        """What an operator is told; empty while all is well."""
        seconds = self.seconds
        if not self._alert_s or seconds <= self._alert_s:
            return ""
        return f"lags {seconds:.0f} s behind its source, more than lag_alert_s ({self._alert_s:g} s)"

    def show(self) -> None:
        """Bring it to the metrics."""
        self._meter.set(metric.SOURCE_LAG_SECONDS, self.seconds, connector=self._connector)
