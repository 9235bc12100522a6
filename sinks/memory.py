"""
MemorySink: the sink's twin without a database, for tests of whatever stands on the protocol. Same outcomes, same fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.identity import digest_sum, event_digest
from schemas.payment import Kind
from sinks.base import Applied, AsTheyAre, Dead, Place, Preparation, Record
from sinks.fold import EventRow, PaymentState, event_row, fold

# What the ledger counts by.
LedgerKey = tuple[UUID, str, int, str]


@dataclass(slots=True)
class MemorySink:
    """
    Everything the sink stores, as plain dictionaries that a test may read. Nothing here awaits, so each call is atomic.
    """

    events: dict[bytes, tuple[EventRow, UUID]] = field(default_factory=dict)
    payments: dict[bytes, PaymentState] = field(default_factory=dict)
    ledger: dict[LedgerKey, tuple[int, int]] = field(default_factory=dict)
    offsets: dict[Place, int] = field(default_factory=dict)
    deaths: dict[tuple[UUID, bytes], Dead] = field(default_factory=dict)
    _repeats: set[tuple[UUID, bytes]] = field(default_factory=set)
    _of_payment: defaultdict[bytes, list[EventRow]] = field(default_factory=lambda: defaultdict(list))

    def preparation(self) -> Preparation:
        """As the protocol says."""
        return AsTheyAre()

    async def apply(
        self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
    ) -> Applied:
        """As the protocol says."""
        counts = {"applied": 0, "duplicate": 0, "dead": 0}
        stale = 0
        rows = [(record, event_row(record)) for record in records]  # what raises, raises before anything is stored
        for record, row in rows:
            outcome = self._outcome(record.run_id, row)
            if outcome is None:
                continue
            counts[outcome] += 1
            self._count(place, record.run_id, outcome, row.digest)
            if outcome == "applied" and row.meaning.kind in (Kind.SNAPSHOT, Kind.DELTA):
                stale += self.payments[row.payment].status_key != row.key
        for one in dead:
            digest = event_digest(one.event_id)
            if not self._known(one.run_id, digest):
                self.deaths[one.run_id, digest] = one
                counts["dead"] += 1
                self._count(place, one.run_id, "dead", digest)
        if next_offset is not None:
            self.offsets[place] = max(next_offset, self.offsets.get(place, 0))
        return Applied(**counts, redelivered=len(records) + len(dead) - sum(counts.values()), stale=stale)

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """As the protocol says."""
        return {place.partition: offset for place, offset in self.offsets.items() if place.topic == topic}

    async def is_counted(self, run_id: UUID, event_id: str) -> bool:
        """As the protocol says."""
        return self._known(run_id, event_digest(event_id))

    def _outcome(self, run: UUID, row: EventRow) -> str | None:
        """Store the row if it is new; its outcome in the run, None if that pair has one already."""
        if self._known(run, row.digest):
            return None
        if row.digest in self.events:
            self._repeats.add((run, row.digest))
            return "duplicate"
        siblings = self._of_payment[row.payment]
        outcome = "duplicate" if any(other.key == row.key for other in siblings) else "applied"
        self.events[row.digest] = (row, run)
        siblings.append(row)
        self.payments[row.payment] = fold(siblings)
        return outcome

    def _known(self, run: UUID, digest: bytes) -> bool:
        stored = self.events.get(digest)
        return (
            (stored is not None and stored[1] == run) or (run, digest) in self._repeats or (run, digest) in self.deaths
        )

    def _count(self, place: Place, run: UUID, outcome: str, digest: bytes) -> None:
        key = (run, place.topic, place.partition, outcome)
        events, total = self.ledger.get(key, (0, 0))
        self.ledger[key] = (events + 1, digest_sum([digest], total))
