"""
The payment fold as one pure function: the state of a payment from the set of its events, whatever their order.

The statement in `queries.sql` says the same in SQL, and tests hold the two equal. This one is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.identity import adjustment_key, content_hash, event_digest, payment_digest, payment_id
from schemas.payment import MEANINGS, Kind, Meaning, PaymentType, Status
from sinks.base import Record

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
# Who gives the asset while there is no snapshot.
_CHOICE = {Kind.SNAPSHOT: 0, Kind.DELTA: 1, Kind.ABSOLUTE: 2, Kind.OVERLAY: 3}


@dataclass(frozen=True, slots=True)
class EventRow:
    """What one event says that the fold reads. Digests are 16 bytes; `reference` is the original payment's."""

    digest: bytes
    payment: bytes
    key: bytes
    content: bytes
    status: Status
    amount: int
    asset: str
    scheme: str
    effective_at: datetime | None
    revision: tuple[datetime, int]
    provider: str
    type: PaymentType
    reference: str

    @property
    def meaning(self) -> Meaning:
        """What its status means."""
        return MEANINGS[self.status]


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One key: its representative, the revision of the key, and whether its events disagree about money."""

    event: EventRow
    revision: tuple[datetime, int]
    conflicting: bool

    @property
    def order(self) -> tuple[datetime, int, tuple[datetime, int], bytes]:
        """Among the dated, or among the undated, the greatest of these is the greatest adjustment."""
        return (self.event.effective_at or _BEFORE_ALL, self.event.meaning.rank, self.revision, self.event.key)

    @property
    def dated(self) -> bool:
        """Whether it is known when it happened."""
        return self.event.effective_at is not None


@dataclass(frozen=True, slots=True)
class PaymentState:
    """The business columns of `payments`; each column's fold is told in the migration that makes it."""

    payment: bytes
    id: str
    provider: str
    type: PaymentType
    reference: str
    status: Status
    status_rank: int
    status_key: bytes | None
    status_at: datetime | None
    initial_amount: int | None
    amount: int
    asset: str
    scheme: str
    dispute: Status | None
    created_at: datetime | None
    adjustments: int
    awaiting_original: bool
    over_refund: bool
    conflicting_amounts: bool
    asset_mismatch: bool


def event_row(record: Record) -> EventRow:
    """The fold's view of a record."""
    payment, lineage = record.payment, record.event.lineage
    return EventRow(
        digest=event_digest(record.event_id),
        payment=payment_digest(payment),
        key=adjustment_key(payment),
        content=content_hash(payment),
        status=payment.status,
        amount=payment.amount,
        asset=payment.asset,
        scheme=payment.scheme,
        effective_at=payment.effective_at,
        # Another team's client sends no lineage: its event's own time is all there is to order by.
        revision=(lineage.revision_at, lineage.revision_seq) if lineage else (record.event.created_at, 0),
        provider=payment.provider,
        type=payment.type,
        reference=payment.original_reference,
    )


def adjustments(rows: Iterable[EventRow]) -> list[Adjustment]:
    """
    One per key, in the order of keys.

    The representative is the event with the greatest revision, then content hash; a key is as old as its oldest event.
    """
    by_key: dict[bytes, list[EventRow]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    return [
        Adjustment(
            event=max(events, key=lambda row: (row.revision, row.content, row.digest)),
            revision=min(row.revision for row in events),
            conflicting=len({(row.amount, row.asset) for row in events}) > 1,
        )
        for _, events in sorted(by_key.items())
    ]


def fold(rows: Iterable[EventRow]) -> PaymentState:
    """The state of the payment whose events are `rows`: at least one, all of one payment, in any order."""
    kept = adjustments(rows)
    snapshot = _greatest(_of(kept, Kind.SNAPSHOT))
    state = _greatest(_of(kept, Kind.SNAPSHOT, Kind.DELTA))
    lead = snapshot or _first_choice(kept)
    asset = lead.event.asset
    absolute = _newest([one for one in _of(kept, Kind.ABSOLUTE) if one.event.asset == asset])
    deltas = [one.event for one in _of(kept, Kind.DELTA) if one.event.asset == asset and _counts_after(one, absolute)]
    amount = _base(absolute, snapshot) + sum(row.meaning.sign * row.amount for row in deltas)
    base_known = snapshot is not None or absolute is not None
    return PaymentState(
        payment=lead.event.payment,
        id=payment_id(lead.event.provider, lead.event.reference, lead.event.type),
        provider=lead.event.provider,
        type=lead.event.type,
        reference=lead.event.reference,
        status=state.event.status if state else Status.UNKNOWN,
        status_rank=state.event.meaning.rank if state else 0,
        status_key=state.event.key if state else None,
        status_at=state.event.effective_at if state else None,
        initial_amount=snapshot.event.amount if snapshot else None,
        amount=amount,
        asset=asset,
        scheme=lead.event.scheme or max(one.event.scheme for one in kept),
        dispute=max(
            (one.event.status for one in _of(kept, Kind.OVERLAY)),
            key=lambda status: MEANINGS[status].rank,
            default=None,
        ),
        created_at=min((one.event.effective_at for one in kept if one.event.effective_at), default=None),
        adjustments=len(kept),
        awaiting_original=snapshot is None,
        over_refund=base_known and amount < 0 and any(row.meaning.sign < 0 for row in deltas),
        conflicting_amounts=any(one.conflicting for one in kept),
        asset_mismatch=any(one.event.asset != asset for one in kept),
    )


def _of(kept: Sequence[Adjustment], *kinds: Kind) -> list[Adjustment]:
    return [one for one in kept if one.event.meaning.kind in kinds]


def _greatest(candidates: Sequence[Adjustment]) -> Adjustment | None:
    """The greatest dated and the greatest undated are found apart; the higher rank wins, the dated one on a tie."""
    best = [
        max(some, key=lambda one: one.order)
        for some in ([one for one in candidates if one.dated], [one for one in candidates if not one.dated])
        if some
    ]
    return max(best, key=lambda one: (one.event.meaning.rank, one.dated), default=None)


def _first_choice(kept: Sequence[Adjustment]) -> Adjustment:
    choice = min(_CHOICE[one.event.meaning.kind] for one in kept)
    found = _greatest([one for one in kept if _CHOICE[one.event.meaning.kind] == choice])
    assert found is not None  # noqa: S101 - `kept` is not empty
    return found


def _newest(absolutes: Sequence[Adjustment]) -> Adjustment | None:
    """An undated absolute stands before everything dated."""
    return max(absolutes, key=lambda one: (one.dated, one.order), default=None)


def _counts_after(delta: Adjustment, absolute: Adjustment | None) -> bool:
    """Every delta counts, except a dated one at or before a dated absolute."""
    if absolute is None or absolute.event.effective_at is None or delta.event.effective_at is None:
        return True
    return delta.event.effective_at > absolute.event.effective_at


def _base(absolute: Adjustment | None, snapshot: Adjustment | None) -> int:
    """The newest absolute's amount, else the greatest snapshot's if money has moved in its status."""
    if absolute is not None:
        return absolute.event.amount
    return snapshot.event.amount if snapshot is not None and snapshot.event.meaning.moved else 0
