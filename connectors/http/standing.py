"""Where a resource stands between two readings, and within a window that is being read, as its cursor keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from connectors.http.paging import FIRST, Place
from connectors.http.window import Window
from connectors.source import Cursor

MOST_PASSES = 5  # readings of one window of which no two in a row agree
_QUIET_S = 300.0  # a place in time that moved less, over nothing new, is not worth a checkpoint
_WALKED = ("asked", "chain", "before", "passes", "revisits")
_INSTANTS = ("until", "read_at", "revisited_at")


@dataclass(frozen=True, slots=True)
class Walk:
    """
    One window while it is read. `chain` stands for the records of this pass so far, `before` for those of the last one.
    """

    window: Window | None
    read_at: datetime
    place: Place = field(default_factory=dict)
    asked: int = 0
    chain: str = ""
    before: str = ""
    passes: int = 0
    revisits: bool = False

    @property
    def is_worn_out(self) -> bool:
        """Whether it was read so often, each time another list, that it must begin afresh."""
        return self.passes >= MOST_PASSES

    def next_pass(self) -> Walk:
        """The same window, from its first page."""
        return replace(self, place=FIRST, asked=0, chain="", before=self.chain, passes=self.passes + 1)

    def afresh(self) -> Walk:
        """The same window, as if nothing had been read of it."""
        return Walk(self.window, self.read_at, revisits=self.revisits)

    def json(self) -> dict[str, Any]:
        """As a cursor keeps it."""
        span = [self.window.begin.isoformat(), self.window.end.isoformat()] if self.window else None
        found = {name: getattr(self, name) for name in _WALKED}
        return {**found, "place": dict(self.place), "window": span, "read_at": self.read_at.isoformat()}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        """What `json` kept."""
        span = kept["window"] and Window(*map(datetime.fromisoformat, kept["window"]))
        rest = {name: kept[name] for name in ("place", *_WALKED)}
        return cls(span, datetime.fromisoformat(kept["read_at"]), **rest)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a resource stands: in time, in a feed's pages, in a window that is being read."""

    until: datetime | None = None
    read_at: datetime | None = None
    revisited_at: datetime | None = None
    place: Place = field(default_factory=dict)
    walk: Walk | None = None

    def cursor(self) -> dict[str, Any]:
        """As it goes through checkpoints."""
        kept: dict[str, Any] = {}
        kept |= {name: at.isoformat() for name in _INSTANTS if (at := getattr(self, name)) is not None}
        if self.place:
            kept["place"] = dict(self.place)
        if self.walk is not None:
            kept["walk"] = self.walk.json()
        return kept

    @classmethod
    def of(cls, cursor: Cursor | None) -> Self:
        """What `cursor` kept."""
        kept = cursor or {}
        instants = {name: datetime.fromisoformat(kept[name]) for name in _INSTANTS if name in kept}
        return cls(**instants, place=kept.get("place", {}), walk=Walk.of(kept["walk"]) if "walk" in kept else None)


def chained(chain: str, names: Sequence[str]) -> str:
    """What stands for these records after those that `chain` stands for, however they fall into pages."""
    for name in names:
        chain = hashlib.sha256(json.dumps([chain, name]).encode()).hexdigest()[:32]
    return chain


def is_worth_keeping(since: Cursor | None, kept: Standing, standing: Standing) -> bool:
    """Whether a place that was reached without a new record should be kept all the same."""
    if standing.walk is not None:
        # or what comes next would compare the same two readings for ever
        return standing.walk.is_worn_out
    if since is None or kept.walk is not None or kept.until is None or standing.until is None:
        return kept != standing or since is None
    return (standing.until - kept.until).total_seconds() >= _QUIET_S
