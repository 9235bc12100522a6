"""The cursors of a change stream and of a poll, as `Place` and `Mark` keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from connectors.changes import lsn
from connectors.changes.option import Mode
from connectors.cursor import CursorModel, Direction, Document, InstantText, Problem, compared

_XID = re.compile(r"[0-9]{1,20}", re.ASCII)
_FOREIGN = "names the server, database and slot that are read, and stays so"


def _lsn(text: str) -> str:
    lsn.parse(text)
    return text


Lsn = Annotated[str, AfterValidator(_lsn)]
Snapshot = Annotated[str, StringConstraints(pattern=r"^[0-9]+:[0-9]+:([0-9]+(,[0-9]+)*)?$")]


class SeenCursor(CursorModel):
    """What a copy has seen."""

    snapshot: Snapshot
    until: Lsn
    at: InstantText


class CopyingCursor(CursorModel):
    """The table that is being copied, up to a key."""

    table: str = Field(min_length=1)
    after: list[str] | None


class OriginCursor(CursorModel):
    """Which server and history the cursor counts."""

    _same: ClassVar[tuple[str, ...]] = ("system", "timeline", "database")

    system: str
    timeline: int = Field(ge=0)
    database: int = Field(ge=0)

    def refusals(self, before: Document) -> Iterator[Problem]:
        """It counts the changes of another history."""
        for name in self._same:
            if name in before and before[name] != getattr(self, name):
                yield Problem(name, _FOREIGN)


class StreamCursor(OriginCursor):
    """A place in a slot's changes."""

    advice: ClassVar[tuple[str, ...]] = (
        "the slot keeps nothing before `done`: to read older rows again reset the cursor, which copies the tables anew",
    )
    advice_at_reset: ClassVar[tuple[str, ...]] = (
        "the changes begin where the slot stands; with `snapshot: initial` the tables are copied anew first",
        "without a copy, what the slot has let go of is not read again",
    )
    _same: ClassVar[tuple[str, ...]] = ("system", "timeline", "database", "slot")

    slot: str = Field(min_length=1)
    done: Lsn
    copied: list[str]
    published: dict[str, str]
    transaction: Lsn | None = None
    index: int | None = Field(default=None, ge=0)
    floor: InstantText | None = None
    seen: list[SeenCursor] | None = None
    copying: CopyingCursor | None = None

    def refusals(self, before: Document) -> Iterator[Problem]:
        """As an origin's; and what the slot has let go of cannot be had again."""
        yield from super().refusals(before)
        if "done" in before and lsn.parse(self.done) < lsn.parse(before["done"]):
            yield Problem(
                "done",
                f"{self.done} stands before {before['done']}, and the slot has let go of what is before that: it "
                "cannot be read again; reset the cursor to copy the tables anew",
            )
        if before.get("published") not in (None, self.published):
            yield Problem("published", "is a sign of the publication that was read, and stays so")

    def direction(self, before: Document) -> Direction:
        """By the log, then within a transaction."""
        if not before:
            return Direction.UNKNOWN
        by_log = compared(lsn.parse(self.done), lsn.parse(before["done"]))
        if by_log is Direction.UNKNOWN and self.transaction == before.get("transaction"):
            return compared(self.index or 0, before.get("index", 0))
        return by_log


class MarkCursor(OriginCursor):
    """A place in a table that is polled: after the row with this value and this key; no key: before that value."""

    _same: ClassVar[tuple[str, ...]] = ("system", "timeline", "database", "table")

    table: str = Field(min_length=1)
    value: str
    key: list[str]


def _xid(text: str) -> str:
    if text and not _XID.fullmatch(text):
        raise ValueError("must be the id of a transaction, a whole number")
    return text


class WatermarkCursor(MarkCursor):
    """By the id of a transaction."""

    value: Annotated[str, AfterValidator(_xid)]

    def direction(self, before: Document) -> Direction:
        """By the id."""
        return compared(int(self.value or 0), int(before.get("value") or 0)) if before else Direction.UNKNOWN


class WindowCursor(MarkCursor):
    """By the time of change, as PostgreSQL spells it."""

    value: str = Field(pattern=r"^(|-infinity|\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)*( BC)?)$")


# the configuration of the kind
def model(config: Any) -> type[CursorModel]:
    """The model of its cursors in the mode that is configured."""
    modes: dict[Mode, type[CursorModel]] = {
        Mode.LOGICAL: StreamCursor,
        Mode.WATERMARK: WatermarkCursor,
        Mode.CLOSED_WINDOW: WindowCursor,
    }
    return modes[Mode(config.mode)]
