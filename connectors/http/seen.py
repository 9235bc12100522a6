"""
Which records were read already, so that what an overlap reads again costs no duplicate.

It is only an economy: a record that is forgotten here is published again under the same event id, and changes nothing.
Therefore it is bounded: many in memory, the newest of them in each cursor. A record counts as seen only once the
broker has acknowledged it, which is when a cursor that covers it comes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

DIGEST_CHARS = 12
MOST_IN_MEMORY = 200_000
_MOST_MARKS = 10_000
MOST_IN_CURSOR = 2_000  # 24 kB: a checkpoint is written every second while a resource is read


class Seen:
    """The digests of one resource's records, in the order of their reading, each with the record's own time."""

    def __init__(self) -> None:
        self._at: dict[str, datetime | None] = {}
        self._marks: dict[str, int] = {}
        self._life = secrets.token_hex(4)
        self._turn = 0  # of going back: after it the same count stands for other records
        self._count = 0  # of all that were ever added

    def restore(self, cursor: Mapping[str, object]) -> None:
        """Go back to what this cursor covers: what was read after it may not be durable."""
        mark = cursor.get("mark")
        added = self._marks.get(mark) if isinstance(mark, str) else None
        if added is not None:
            later = self._count - added  # at most: some of them may be forgotten, or have come twice
            for digest in list(self._at)[max(0, len(self._at) - later) :]:
                del self._at[digest]
            self._count = added
            self._turn += later > 0
            self._marks = {name: count for name, count in self._marks.items() if count <= added}
            return
        text = cursor.get("seen")
        self._at = dict.fromkeys(_split(text if isinstance(text, str) else ""))
        self._count, self._marks = 0, {}
        self._turn += 1

    def __contains__(self, digest: str) -> bool:
        return digest in self._at

    def add(self, digest: str, at: datetime | None) -> None:
        """The record was read. The oldest are forgotten when there are too many."""
        self._at[digest] = at
        self._count += 1
        if len(self._at) > MOST_IN_MEMORY:
            del self._at[next(iter(self._at))]

    def forget_before(self, horizon: datetime | None) -> None:
        """
        Nothing older will be read again: that is so once a cursor is durable that says it. Records without a time stay.
        """
        if horizon is not None:
            self._at = {digest: at for digest, at in self._at.items() if at is None or at >= horizon}

    def kept(self, horizon: datetime | None = None) -> dict[str, str]:
        """What a cursor holds of it, of what is not older than `horizon`."""
        mark = f"{self._life}-{self._turn}-{self._count}"
        self._marks[mark] = self._count
        if len(self._marks) > _MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        wanted = (digest for digest, at in reversed(self._at.items()) if not horizon or not at or at >= horizon)
        return {"seen": "".join(reversed(list(islice(wanted, MOST_IN_CURSOR)))), "mark": mark}


def _split(text: str) -> Iterable[str]:
    return (text[at : at + DIGEST_CHARS] for at in range(0, len(text) - DIGEST_CHARS + 1, DIGEST_CHARS))
