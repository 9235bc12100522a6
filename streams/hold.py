"""Partitions on hold: which ones are not read just now, and why. Declared, so that operators and the watchdog know."""

from __future__ import annotations

from collections.abc import Callable

from schemas import metric
from schemas.metric import Meter


class Holds:
    """
    The holds of one process. Reasons are kept apart: a partition is read again when all of them are released.

    `on_release` is called when there may be more to read than before.
    """

    def __init__(self, meter: Meter, on_release: Callable[[], None]) -> None:
        self._meter = meter
        self._on_release = on_release
        self._reasons: dict[tuple[str, int | None], set[str]] = {}

    def hold(self, topic: str, partition: int | None, reason: str) -> None:
        """
        Read nothing more of the partition (None: of the whole topic) until `release`; what is in flight goes on.

        The group does not notice: heartbeats and polls go on. A hold of a partition ends with its revocation, one of a
        topic does not.
        """
        self._reasons.setdefault((topic, partition), set()).add(reason)
        self._report(topic, partition, reason, on=True)

    def release(self, topic: str, partition: int | None, reason: str) -> None:
        """The reason is gone; nothing happens if it was not there."""
        reasons = self._reasons.get((topic, partition), set())
        if reason in reasons:
            reasons.discard(reason)
            if not reasons:
                del self._reasons[topic, partition]
            self._report(topic, partition, reason, on=False)
            self._on_release()

    def of(self, topic: str, partition: int) -> frozenset[str]:
        """Why the partition is not read; empty if it is. Safe to call from any thread."""
        return frozenset(self._reasons.get((topic, partition), ())) | frozenset(self._reasons.get((topic, None), ()))

    def forget(self, topic: str, partition: int) -> None:
        """The partition is not ours any more."""
        for reason in self._reasons.pop((topic, partition), ()):
            self._report(topic, partition, reason, on=False)

    def _report(self, topic: str, partition: int | None, reason: str, *, on: bool) -> None:
        label = "all" if partition is None else str(partition)
        self._meter.set(metric.HELD, float(on), topic=topic, partition=label, reason=reason)
