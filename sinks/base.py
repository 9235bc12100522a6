"""
The sink's contract: what the delivery core asks of a store, whichever it is.

One call is one transaction: event rows, payments, ledger counts and the partition's next offset become durable
together, or none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from schemas.wire import Event, Payment

EXTERNAL_RUN = UUID(int=0)  # the run of events that name none: another team's client wrote them


@dataclass(frozen=True, slots=True)
class Place:
    """One partition of one topic."""

    topic: str
    partition: int


class Record(Struct, frozen=True):
    """
    One decoded event and its coordinates.

    `event_id` and `run_id` come from the message headers where they are there (a redrive has its own),
    else from the body.
    """

    event: Event
    payment: Payment
    event_id: str
    run_id: UUID
    offset: int


def facts(payment: Payment) -> tuple[object, ...]:
    """
    What a record says of a payment: two records of one event id are the same if these are equal.

    Who read it, when and where is no part of it; neither is `raw`, because an API may spell one fact differently each
    time it is asked.
    """
    return (
        payment.provider,
        payment.type,
        payment.reference,
        payment.parent_reference,
        payment.status,
        payment.amount,
        payment.asset,
        payment.scheme,
        payment.effective_at,
    )


NOT_DECODED = bytes(16)  # the content of a record that died before anybody knew what it says


@dataclass(frozen=True, slots=True)
class Dead:
    """
    One record whose letter is durable in the dead-letter topic.

    The sink counts it once per (run, event id, content), and one that was not decoded only where its (run, event id)
    has no outcome yet.
    """

    event_id: str
    run_id: UUID
    offset: int
    letter_id: str
    reason: str
    content: bytes = NOT_DECODED


@dataclass(frozen=True, slots=True)
class Applied:
    """
    What one call did, in events.

    `redelivered` counts nowhere in the ledger. `stale` (applied, but not the current state when it arrived) is a part
    of `applied`.
    """

    applied: int = 0
    duplicate: int = 0
    dead: int = 0
    redelivered: int = 0
    stale: int = 0


class Preparation(Protocol):
    """CPU work that a transaction needs and that need not wait for it. Pure: dropping it costs nothing."""

    def add(self, records: Sequence[Record]) -> None:
        """Records that follow those before. Raises nothing."""
        ...

    def encode(self) -> None:
        """The second half of the work for what was added so far. Raises nothing."""
        ...

    def ready(self) -> Sequence[Record]:
        """All of them, for `Sink.apply`; a part of them, cut out, is as good as any other sequence."""
        ...


class AsTheyAre(list[Record]):
    """The preparation of a sink that needs none."""

    def add(self, records: Sequence[Record]) -> None:
        """Records that follow those before."""
        self.extend(records)

    def encode(self) -> None:
        """Nothing to do."""

    def ready(self) -> Sequence[Record]:
        """All of them."""
        return self


class Sink(Protocol):
    """
    Where events become payments.

    Every method raises SinkUnavailable (retry), SinkRefused (reject: some record cannot be stored), SinkUnclear
    (reject, with care), EventIdReused (reject: the records it names) or SinkMisconfigured (pause), and nothing else.
    After an error nothing of the call is stored, or, if the connection broke at the commit, all of it: calling again is
    always safe.
    """

    def preparation(self) -> Preparation:
        """What makes records ready for `apply` ahead of it. Using it is a matter of speed alone."""
        ...

    async def apply(
        self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
    ) -> Applied:
        """
        Store the effect of `records` and the outcome of `dead`, durably, in one transaction.

        `next_offset` is the offset after the last record that is done once this returns; None leaves it (redrive,
        replay).
        """
        ...

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """The next offset to read of each partition, as the store holds it; a partition it never saw is absent."""
        ...

    async def is_counted(self, place: Place, record: Record) -> bool:
        """Whether this record has an outcome already, so that one that went through is not dead-lettered later."""
        ...
