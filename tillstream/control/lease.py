"""
The gauges of one connector on this worker, for as long as it has the connector: afterwards somebody else measures them,
or nobody, and a last value that stays would be taken for the present.
"""

from __future__ import annotations

from schemas.metric import Meter, Metric

_Labels = frozenset[tuple[str, str]]


class MeterLease:
    """A `schemas.metric.Meter` that forgets the gauges that it has stated. Counters stay: they are the process's."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._stated: set[tuple[Metric, _Labels]] = set()
        self._ended = False

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count."""
        self._meter.add(metric, amount, **labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """State a gauge; nothing after the end, whoever still measures."""
        if not self._ended:
            self._stated.add((metric, frozenset(labels.items())))
            self._meter.set(metric, value, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add to a histogram."""
        self._meter.observe(metric, value, **labels)

    def forget(self, metric: Metric, **labels: str) -> None:
        """Drop one series."""
        self._stated.discard((metric, frozenset(labels.items())))
        self._meter.forget(metric, **labels)

    def forget_all(self, *but: Metric) -> None:
        """Drop whatever was stated, except these."""
        for metric, labels in list(self._stated):
            if metric not in but:
                self.forget(metric, **dict(labels))

    def end(self) -> None:
        """Drop whatever was stated; nothing is stated any more."""
        self._ended = True
        self.forget_all()
