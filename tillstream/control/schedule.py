"""
When a connector runs by itself: seed 003's cron line, in a zone. It is judged here and kept by the database; nothing
here keeps the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_PART = re.compile(r"(?:(?P<any>\*)|(?P<first>\w{1,3})(?:-(?P<last>\w{1,3}))?)(?:/(?P<step>[0-9]{1,2}))?", re.ASCII)
_MOST = 100  # seed 003's column
_KEYS = {"cron": (str, type(None)), "timezone": (str,), "enabled": (bool,)}


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a connector runs by itself. One with a `cron` does not poll, whether it is `enabled` or not."""

    cron: str | None = None
    timezone: str = "Asia/Kolkata"
    enabled: bool = False


# what a body or a file holds may be anything
def form_problems(schedule: Any) -> Iterator[str]:
    """Everything that is wrong with the form of a described one; null is none."""
    if schedule is None:
        return
    if not isinstance(schedule, dict):
        yield f"schedule: must be an object; got {type(schedule).__name__}"
        return
    for key, value in schedule.items():
        if key not in _KEYS:
            yield f"schedule.{key}: is no key of a schedule; there are {', '.join(_KEYS)}"
        elif not isinstance(value, _KEYS[key]):
            yield f"schedule.{key}: must be {_KEYS[key][0].__name__}; got {type(value).__name__}"


def problems(schedule: Schedule) -> Iterator[str]:
    """Everything that is wrong with it."""
    if schedule.cron is not None:
        yield from _cron(schedule.cron)
    try:
        ZoneInfo(schedule.timezone)
    except (ValueError, OSError, KeyError):  # no name of a zone, a folder of zones, none that is known
        yield f"schedule.timezone: there is no zone {schedule.timezone[:50]!r}"


def _cron(line: str) -> Iterator[str]:
    fields = line.split()
    if len(fields) != len(_FIELDS) or len(line) > _MOST:
        yield "schedule.cron: must be five fields: minute, hour, day, month, weekday"
        return
    for text, (name, least, most) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(part, name, least, most) for part in text.split(",")):
            yield f"schedule.cron: {text!r} is no {name}: {least} to {most}, *, ranges, lists and steps"


def _fits(part: str, name: str, least: int, most: int) -> bool:
    match = _PART.fullmatch(part)
    if match is None or match["step"] == "0":
        return False
    if match["any"]:
        return True
    ends = [_number(match[key], name) for key in ("first", "last") if match[key]]
    return all(end is not None and least <= end <= most for end in ends) and sorted(ends, key=lambda n: n or 0) == ends


def _number(text: str, name: str) -> int | None:
    if text.isdecimal():
        return int(text)
    names = _NAMES.get(name, ())
    return names.index(text.lower()) + (name == "month") if text.lower() in names else None
