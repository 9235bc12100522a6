"""The day of a file's last change, whatever nonsense its time is."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo

_FIRST_S, _LAST_S = 86_400.0, 250_000_000_000.0  # days that every zone can tell: 1970 to 9892


def day_of(changed_at_s: float, zone: tzinfo) -> date:
    """The day of the instant, in seconds since 1970, in the zone; the nearest that the calendar has."""
    at_s = min(max(changed_at_s, _FIRST_S), _LAST_S)
    return datetime.fromtimestamp(at_s, UTC).astimezone(zone).date()
