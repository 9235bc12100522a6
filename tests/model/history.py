"""Records for sink tests: a short way to say what happened to a payment, and strategies over such histories."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from schemas.event import ConnectorEvent, Lineage
from schemas.identity import foreign_id
from schemas.payment import MEANINGS, Kind, PaymentPayload, PaymentType, Status
from sinks.base import Place, Record
from sinks.fold import PaymentState

START = datetime(2026, 1, 1, tzinfo=UTC)
CONNECTOR = UUID(int=7)
RUN = UUID(int=1)
PLACE = Place("till.events", 0)

_numbers = itertools.count(1)


def day(number: float) -> datetime:
    """The instant `number` days after the beginning of the tests' time."""
    return START + timedelta(days=number)


def record(
    status: str,
    amount: int = 100,
    *,
    reference: str = "001",
    parent: str | None = None,
    at: float | None = None,
    revision: float = 0,
    seq: int = 0,
    asset: str = "USD",
    scheme: str = "",
    raw: str | None = None,
    event_id: str | None = None,
    run: UUID = RUN,
    offset: int = 0,
    type_: PaymentType = PaymentType.PAYIN,
    provider: str = "example",
    line: int | None = None,
    path: str = "in/001.json",
) -> Record:
    """
    One record. `at` and `revision` are days; a delta gets its parent `001` and a reference of its own unless told
    otherwise.

    Every call without `event_id` is a new event.
    """
    if MEANINGS[Status(status)].kind is Kind.DELTA and parent is None:
        reference, parent = ("own-" + reference) if reference == "001" else reference, "001"
    payment = PaymentPayload(
        provider=provider,
        reference=reference,
        parent_reference=parent,
        type=type_,
        status=Status(status),
        amount=amount,
        asset=asset,
        scheme=scheme,
        effective_at=None if at is None else day(at),
        raw=raw,
    )
    number = next(_numbers)
    identifier = event_id or f"event-{number}"
    event = ConnectorEvent(
        id=identifier,
        foreign_id=foreign_id(provider, payment.original_reference),
        type=f"payment.{status}",
        created_at=START,
        payment=payment,
        lineage=Lineage(
            connector_id=CONNECTOR,
            connector=provider,
            run_id=run,
            source_object="ab" * 32,
            position=f"row {number}",
            path=path,
            line=line,
            revision_at=day(revision),
            revision_seq=seq,
        ),
    )
    return Record(event, payment, identifier, run, offset)


# Small pools, so that keys, instants, revisions and ties meet often.
_INSTANTS = st.sampled_from([None, None, 1, 2, 3])
_REVISIONS = st.sampled_from([0, 0, 1, 2])


@st.composite
def records(draw: st.DrawFn, *, payments: int = 2, runs: Sequence[UUID] = (RUN,), events: int = 40) -> Record:
    """Any record about one of a few payments, valid as the schemas see it; an event id stands for one content."""
    status = draw(st.sampled_from(list(Status)))
    parent = f"p{draw(st.integers(1, payments))}"
    is_delta = MEANINGS[status].kind is Kind.DELTA
    own = f"{parent}-{draw(st.sampled_from('abc'))}" if is_delta else parent
    facts: dict[str, Any] = {
        "amount": draw(st.sampled_from([0, 30, 70, 100, 10**16 - 1]))
        if is_delta
        else draw(st.sampled_from([-100, 0, 100, 10**16 - 1])),
        "reference": own,
        "parent": parent if is_delta else None,
        "at": draw(_INSTANTS),
        "revision": draw(_REVISIONS),
        "seq": draw(st.sampled_from([0, 1])),
        "asset": draw(st.sampled_from(["USD", "USD", "USD", "EUR"])),
        "scheme": draw(st.sampled_from(["", "visa", "upi"])),
        "raw": draw(st.sampled_from([None, "x"])),
        "type_": draw(st.sampled_from([PaymentType.PAYIN, PaymentType.PAYIN, PaymentType.PAYOUT])),
    }
    version = draw(st.integers(1, events))
    identifier = f"{version}/{status}/{sorted((name, str(value)) for name, value in facts.items())}"[:200]
    return record(status.value, event_id=identifier, run=draw(st.sampled_from(list(runs))), **facts)


def state_of(row: Mapping[str, Any]) -> PaymentState:
    """A row of `payments` as the fold's own value, so that the two compare."""
    return PaymentState(
        payment=row["payment"].bytes,
        id=row["id"],
        provider=row["provider"],
        type=PaymentType(row["type"]),
        reference=row["reference"],
        status=Status(row["status"]),
        status_rank=row["status_rank"],
        status_key=row["status_key"].bytes if row["status_key"] else None,
        status_at=row["status_at"],
        initial_amount=row["initial_amount"],
        amount=int(row["amount"]),
        asset=row["asset"],
        scheme=row["scheme"],
        dispute=Status(row["dispute"]) if row["dispute"] else None,
        created_at=row["created_at"],
        adjustments=row["adjustments"],
        awaiting_original=row["awaiting_original"],
        over_refund=row["over_refund"],
        conflicting_amounts=row["conflicting_amounts"],
        asset_mismatch=row["asset_mismatch"],
    )
