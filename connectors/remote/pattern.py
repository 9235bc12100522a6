"""
File names by pattern: `*` and `?` as in a shell, and a date: `AXIS_RECON_YYYYMMDD*.csv`.

The whole name must match, and its digits must be a day of the calendar. Year, month and day stand together, in a usual
order, with or without one of `-_.` between them: `YYYYMMDD`, `DD-MM-YYYY`, `MMDDYY`. Everything else means itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

_ORDERS = (("{}", "MM", "DD"), ("DD", "MM", "{}"), ("MM", "DD", "{}"))
_PLACE = re.compile("|".join("[-_.]?".join(order).format(year) for year in ("YYYY", "YY") for order in _ORDERS))
_PARTS = re.compile("(YYYY|YY|MM|DD)")
_DIGITS = {
    "YYYY": "(?P<year>[0-9]{4})",
    "YY": "(?P<year>[0-9]{2})",
    "MM": "(?P<month>[0-9]{2})",
    "DD": "(?P<day>[0-9]{2})",
}
_STAR = "*"  # nothing else becomes one: what is escaped has no star
_MOST_STARS = 8
_CENTURY = 2_000  # of a year in two digits: no bank sends files of another one
MAX_NAME_BYTES = 255  # of a name in a folder: NAME_MAX of Linux


@dataclass(frozen=True, slots=True)
class Window:
    """Days, both ends included; None: no bound."""

    since: date | None = None
    until: date | None = None

    @classmethod
    def back(cls, days: int | None, now: datetime, zone: tzinfo) -> Window:
        """Today in the zone and so many days before it; everything, if None."""
        if days is None:
            return cls()
        today = now.astimezone(zone).date()
        return cls(today - timedelta(days=days), today)

    @property
    def is_open(self) -> bool:
        """Whether every day is in it."""
        return self.since is None and self.until is None

    def __contains__(self, day: date) -> bool:
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


class NamePattern:
    """
    One connector's pattern.

    Raises:
        ValueError: it cannot be used.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern or "/" in pattern or "\0" in pattern:
            raise ValueError("a pattern is for names within one folder: it has no slash")
        if pattern.count("*") > _MOST_STARS:
            raise ValueError(f"a pattern has at most {_MOST_STARS} stars")
        places = list(_PLACE.finditer(pattern))
        if not places and "YYYY" in pattern:
            raise ValueError("a date is YYYY, MM and DD together, such as YYYYMMDD or DD-MM-YYYY")
        if len(places) > 1:
            raise ValueError("a pattern has one date at most")
        self.dated = bool(places)
        self._matches = re.compile(_regex(pattern, places[0].span() if places else (0, 0)), re.DOTALL).fullmatch

    def matches(self, name: str) -> bool:
        """Whether the name has the pattern's form; its date need not be one of the calendar."""
        return self._matches(name) is not None

    def day(self, name: str) -> date | None:
        """The day that the name tells; None if it tells none, or one that there never was."""
        match = self._matches(name) if self.dated else None
        if match is None:
            return None
        year = int(match["year"])
        try:
            return date(year if len(match["year"]) == 4 else _CENTURY + year, int(match["month"]), int(match["day"]))
        except ValueError:
            return None


def _regex(pattern: str, place: tuple[int, int]) -> str:
    """A star takes as little as it can, and never takes it back: no name can make that slow."""
    begin, end = place
    first, *rest = (_part(pattern[:begin]) + _dated(pattern[begin:end]) + _part(pattern[end:])).split(_STAR)
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{each})" for each in middle) + f".*{last}"


def _part(text: str) -> str:
    return "".join({"*": _STAR, "?": "."}.get(character) or re.escape(character) for character in text)


def _dated(text: str) -> str:
    return "".join(_DIGITS.get(each) or re.escape(each) for each in _PARTS.split(text))
