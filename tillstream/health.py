"""
Readiness: what a process still waits for, in words, and since when.

`ready` means that the process does its work now. A process that is not ready is alive: it waits and goes on by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

Probe = Callable[[], str | None]


@dataclass(slots=True)
class Health:
    """The reasons against readiness, by what they are about (`kafka`, `postgres`, `table`, …)."""

    _reasons: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    _probes: dict[str, Probe] = field(default_factory=dict)

    def wait(self, subject: str, reason: str) -> None:
        """Not ready because of `subject`. The instant is that of the first word about it."""
        since = self._reasons[subject][1] if subject in self._reasons else datetime.now(UTC)
        self._reasons[subject] = (reason, since)

    def clear(self, subject: str) -> None:
        """`subject` is well."""
        self._reasons.pop(subject, None)

    def probe(self, subject: str, ask: Probe) -> None:
        """Ask `ask` each time: it answers the reason against readiness, or None."""
        self._probes[subject] = ask

    def reasons(self) -> dict[str, str]:
        """Why the process is not ready; empty when it is."""
        for subject, ask in self._probes.items():
            reason = ask()
            if reason is None:
                self.clear(subject)
            else:
                self.wait(subject, reason)
        return {
            subject: f"{reason} (since {_text(since)})" for subject, (reason, since) in sorted(self._reasons.items())
        }


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
