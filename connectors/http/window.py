"""
Windows of time: what is asked for at once, frozen before the first page so that it cannot move while it is read.

    ... ──────────── until ────────────── to ───── settle_s ───── now
             overlap_s │      the new part     │  may still move

A record that turns up late is found as long as it is less than `overlap_s` late: each window begins that long before
the moment at which the last one was read. Once in `revisit_every_s` it begins `revisit_s` before, for what has changed
without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from connectors.http.resource import Resource


class Window(NamedTuple):
    """From an instant (included) to another one; aware, UTC."""

    begin: datetime
    end: datetime


def rolling(
    resource: Resource,
    now: datetime,
    *,
    until: datetime | None = None,
    read_at: datetime | None = None,
    overlap_s: float = 0.0,
    again: bool = False,
) -> Window | None:
    """
    The next window, or None while there is none. `until` is where the last one ended, `read_at` when it was read.

    With `again` there is one also where time stands still, or has gone back: what came late since then.
    """
    end = (now - timedelta(seconds=resource.settle_s)).replace(microsecond=0)
    if until is None:
        begin = resource.start or now - timedelta(seconds=resource.lookback_s)
        until = read_at = begin = begin.replace(microsecond=0)
    else:
        begin = until
        if read_at is not None:
            begin = min(until, read_at - timedelta(seconds=overlap_s)).replace(microsecond=0)
            begin = max(begin, min(until, resource.start)) if resource.start else begin
    if end <= until:
        return Window(begin, until) if again and begin < until else None
    if not (resource.names_end or resource.ends_by_time):
        # the API gives all until now in any case: in pieces it would be asked for once for each of them
        return Window(begin, end)
    return Window(begin, min(end, until + timedelta(seconds=resource.window_s)))


def day(of: date, zone: ZoneInfo) -> Window:
    """The whole day as clocks in the zone show it: 23 to 25 hours."""
    return Window(_midnight(of, zone), _midnight(of + timedelta(days=1), zone))


def _midnight(of: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(of, time(), zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Calendar:
    """When days are ready: at `ready_at` of the next one by the zone's clock, and `settle_s` after they ended."""

    zone: ZoneInfo
    ready_at: time
    settle_s: float

    def ready(self, of: date) -> datetime:
        """The instant from which the day may be asked for, whole."""
        settled = day(of, self.zone).end + timedelta(seconds=self.settle_s)
        return max(settled, datetime.combine(of + timedelta(days=1), self.ready_at, self.zone).astimezone(UTC))

    def newest(self, now: datetime) -> date:
        """The last day that is ready."""
        of = now.astimezone(self.zone).date()
        while self.ready(of) > now:
            of -= timedelta(days=1)
        return of


def due_days(now: datetime, calendar: Calendar, *, back: int, first: date | None = None, most: int = 31) -> list[date]:
    """
    Days that are over and ready, oldest first: the last `back` ones, and all since `first`, but `most` in all.

    `first` is the first day that was ever due: what was missed since then, because nobody ran or the API was away, is
    due still.
    """
    newest = calendar.newest(now)
    oldest = newest - timedelta(days=back - 1)
    if first is not None:
        oldest = max(min(oldest, first), newest - timedelta(days=most - 1))
    return [oldest + timedelta(days=index) for index in range((newest - oldest).days + 1)]
