"""Which days of a resource were read, and when, as its tasks' cursors tell; and which are to be read once more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Self

from connectors.http.window import Calendar
from connectors.source import Cursor

_DAY = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?P<again>\+\d+d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class History:
    """
    What is known of a resource's days. `first_due` is the first that was read because it was due: since then none may
    be missed. `read_at` has of each day that was read to its end the instant at which that began last.
    """

    first_due: date | None
    read_at: Mapping[date, datetime]

    @classmethod
    def of(cls, prefix: str, known: Mapping[str, Cursor]) -> Self:
        """The history of the resource whose tasks' keys begin so."""
        due: list[date] = []
        read_at: dict[date, datetime] = {}
        for key, cursor in known.items():
            # a day that was asked for before it had settled has another name, and is not read
            match = _DAY.fullmatch(key, len(prefix)) if key.startswith(prefix) else None
            if match is None:
                continue
            of = date.fromisoformat(match["day"])
            if not match["again"] and cursor.get("asked") is False:
                due.append(of)
            if "walk" not in cursor and "read_at" in cursor:
                at = datetime.fromisoformat(cursor["read_at"])
                read_at[of] = max(at, read_at.get(of, at))
        return cls(min(due, default=None), read_at)

    def due_again(
        self, calendar: Calendar, newest: date, after_days: Sequence[int], *, most: int
    ) -> list[tuple[date, int]]:
        """
        Days to be read once more for what came late, oldest first, each with the number of days after which.

        That is due from the moment on at which the day so many days later is ready, until the day has been read again,
        or for `most` days. Of several that are due at once the last one brings what all would.
        """
        found = []
        for of, read_at in self.read_at.items():
            due = [
                after
                for after in after_days
                if 0 <= (newest - of).days - after < most and read_at < calendar.ready(of + timedelta(days=after))
            ]
            if due:
                found.append((of, max(due)))
        return sorted(found)
