"""
MemorySink: the sink's twin without a database, for tests of whatever stands on the protocol. Same outcomes, same fold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.errors import EventIdReused
from schemas.identity import digest_sum, event_digest
from schemas.payment import Kind
from sinks.base import NOT_DECODED, Applied, AsTheyAre, Dead, Place, Preparation, Record, facts
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
    deaths: dict[tuple[UUID, bytes, bytes], tuple[Place, Dead]] = field(default_factory=dict)
    _facts: dict[bytes, tuple[object, ...]] = field(default_factory=dict)
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
        if reused := self._reused(place, rows):
            raise EventIdReused(reused)
        for record, row in rows:
            outcome = self._outcome(place, record, row)
            if outcome is None:
                continue
            counts[outcome] += 1
            self._count(place, record.run_id, outcome, row.digest)
            if outcome == "applied" and row.meaning.kind in (Kind.SNAPSHOT, Kind.DELTA):
                stale += self.payments[row.payment].status_key != row.key
        for one in dead:
            digest = event_digest(one.event_id)
            if not self._is_known_dead(one, digest):
                self.deaths[one.run_id, digest, one.content] = (place, one)
                counts["dead"] += 1
                self._count(place, one.run_id, "dead", digest)
        if next_offset is not None:
            self.offsets[place] = max(next_offset, self.offsets.get(place, 0))
        return Applied(**counts, redelivered=len(records) + len(dead) - sum(counts.values()), stale=stale)

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """As the protocol says."""
        return {place.partition: offset for place, offset in self.offsets.items() if place.topic == topic}

    async def is_counted(self, place: Place, record: Record) -> bool:
        """As the protocol says."""
        row = event_row(record)
        stored = self.events.get(row.digest)
        if stored is not None and stored[0].content == row.content and self._met(record.run_id, row.digest):
            return True
        return self._is_dead(record.run_id, row) or self._died_at(record.run_id, row) == (place, record.offset)

    def _reused(self, place: Place, rows: Sequence[tuple[Record, EventRow]]) -> list[int]:
        """Offsets of records whose event ids stand for others."""
        said, found = dict(self._facts), []
        for record, row in rows:
            if self._is_dead(record.run_id, row):
                continue
            died_at = self._died_at(record.run_id, row)
            if died_at is None:
                is_other = said.setdefault(row.digest, facts(record.payment)) != facts(record.payment)
            else:
                is_other = died_at != (place, record.offset)
            if is_other:
                found.append(record.offset)
        return found

    def _outcome(self, place: Place, record: Record, row: EventRow) -> str | None:
        """Store the row if it is new; its outcome in the run, None if it has one already."""
        run = record.run_id
        if self._met(run, row.digest) or self._is_dead(run, row) or self._died_at(run, row) == (place, record.offset):
            return None
        if row.digest in self.events:
            self._repeats.add((run, row.digest))
            return "duplicate"
        self._facts[row.digest] = facts(record.payment)
        siblings = self._of_payment[row.payment]
        outcome = "duplicate" if any(other.key == row.key for other in siblings) else "applied"
        self.events[row.digest] = (row, run)
        siblings.append(row)
        self.payments[row.payment] = fold(siblings)
        return outcome

    def _met(self, run: UUID, digest: bytes) -> bool:
        """Whether the run published what is stored under the digest."""
        stored = self.events.get(digest)
        return (stored is not None and stored[1] == run) or (run, digest) in self._repeats

    def _is_dead(self, run: UUID, row: EventRow) -> bool:
        return (run, row.digest, row.content) in self.deaths

    def _died_at(self, run: UUID, row: EventRow) -> tuple[Place, int] | None:
        """Where a record that nobody could decode died under the pair."""
        found = self.deaths.get((run, row.digest, NOT_DECODED))
        return None if found is None else (found[0], found[1].offset)

    def _is_known_dead(self, one: Dead, digest: bytes) -> bool:
        if (one.run_id, digest, one.content) in self.deaths:
            return True
        stored = self.events.get(digest)
        return self._met(one.run_id, digest) and stored is not None and one.content in {NOT_DECODED, stored[0].content}

    def _count(self, place: Place, run: UUID, outcome: str, digest: bytes) -> None:
        key = (run, place.topic, place.partition, outcome)
        events, total = self.ledger.get(key, (0, 0))
        self.ledger[key] = (events + 1, digest_sum([digest], total))
