"""
Where a change stream stands, and which of its changes a copy of the tables has seen.

A copy reads a table as it was at one instant, between changes that the stream also tells. Both give the same facts the
same adjustment key, so what both tell counts once. What the two must agree on is which of two versions is the newer.
So revisions are kept in three ranges, whatever the clocks of the two machines say:

    changes that the copy has seen  ≤  the copy's instant  <  copied rows  <  changes that it has not seen

A key's revision is the least of its events, so a version that both tell stays in the first range, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.changes import lsn

_XIDS = 1 << 32
_HALF = 1 << 31
_STEP = timedelta(microseconds=1)
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Which server and history the changes are of. Places in the log mean nothing in any other.

    `system` is the cluster's identifier (empty where it may not be known), `timeline` counts its failovers.
    """

    system: str
    timeline: int
    database: int

    def __str__(self) -> str:
        return f"{self.system or '?'}/{self.timeline}/{self.database}"


def origin_in(cursor: Mapping[str, Any]) -> Origin:
    """The origin of the changes that a cursor counts."""
    return Origin(cursor["system"], cursor["timeline"], cursor["database"])


@dataclass(frozen=True, slots=True)
class Seen:
    """
    The changes that one copy has seen: those of transactions that `snapshot` (PostgreSQL's text form) shows as ended.

    It was taken at `at`, by our own clock, and all that it saw was committed before `until`.
    """

    snapshot: str
    until: int
    at: datetime

    def shows(self, xid: int) -> bool:
        """Whether a transaction, by the low 32 bits of its id, is part of it."""
        least, next_, running = self.snapshot.split(":")
        behind = (xid - int(next_)) % _XIDS
        full = int(next_) + (behind - _XIDS if behind >= _HALF else behind)
        return full < int(least) or (full < int(next_) and str(full) not in running.split(","))

    @property
    def copied_at(self) -> datetime:
        """What the revisions of the copied rows have as their time."""
        return self.at + _STEP

    @property
    def unseen_at(self) -> datetime:
        """Before this no change is dated that it has not seen."""
        return self.at + 2 * _STEP


@dataclass(slots=True)
class Place:
    """
    What is done: every transaction whose commit stands before `done`, and of the one at `transaction` the first `index`
    changes.

    `copied` are the tables whose older rows were read; `copying` is the one that is being read, up to the key `after`,
    and the last of `seen` is its copy. `published` has a sign of each table's publication, which is another one if it
    was interrupted.
    """

    origin: Origin
    slot: str
    done: int
    transaction: int = 0
    index: int = 0
    floor: datetime = EPOCH
    seen: list[Seen] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    copying: str = ""
    after: Sequence[str] | None = None
    published: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> Place:
        """The place that a cursor names."""
        copying = cursor.get("copying", {})
        return cls(
            origin=origin_in(cursor),
            slot=cursor["slot"],
            done=lsn.parse(cursor["done"]),
            transaction=lsn.parse(cursor.get("transaction", "0/0")),
            index=cursor.get("index", 0),
            floor=datetime.fromisoformat(cursor["floor"]) if "floor" in cursor else EPOCH,
            seen=[
                Seen(each["snapshot"], lsn.parse(each["until"]), datetime.fromisoformat(each["at"]))
                for each in cursor.get("seen", ())
            ],
            copied=list(cursor["copied"]),
            copying=copying.get("table", ""),
            after=copying.get("after"),
            published=dict(cursor["published"]),
        )

    def cursor(self) -> dict[str, Any]:
        """As a checkpoint has it."""
        found: dict[str, Any] = {
            "system": self.origin.system,
            "timeline": self.origin.timeline,
            "database": self.origin.database,
            "slot": self.slot,
            "done": lsn.spell(self.done),
            "copied": list(self.copied),
            "published": dict(self.published),
        }
        if self.transaction:
            found |= {"transaction": lsn.spell(self.transaction), "index": self.index}
        if self.floor > EPOCH:
            found["floor"] = self.floor.isoformat()
        if self.seen:
            found["seen"] = [
                {"snapshot": each.snapshot, "until": lsn.spell(each.until), "at": each.at.isoformat()}
                for each in self.seen
            ]
        if self.copying:
            found["copying"] = {"table": self.copying, "after": None if self.after is None else list(self.after)}
        return found

    def dated(self, commit_lsn: int, xid: int, committed_at: datetime) -> datetime:
        """The time of a transaction's revisions: its own, but on its side of every copy."""
        for each in [each for each in self.seen if commit_lsn >= each.until]:
            self.seen.remove(each)
            self.floor = max(self.floor, each.unseen_at)
        at = max(committed_at, self.floor)
        for each in self.seen:
            at = min(at, each.at) if each.shows(xid) else max(at, each.unseen_at)
        return at
