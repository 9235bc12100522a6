"""
Payments as people ask for them: the service functions under the CLI, and later the API. They read; nothing here writes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from schemas.errors import ConfigError
from schemas.identity import payment_digest_of
from schemas.payment import PaymentType
from sinks.pool import Pool, connection
from sinks.statement import statements

PAGE = 50
MOST_PER_PAGE = 500
_LOOKED = 20_000  # payments that a page looks at: some 20 ms
_LOOKED_INTO = 2_000  # where it looks at their events, too

_KINDS = {b"s": "snapshot", b"d": "delta", b"a": "absolute", b"o": "overlay"}


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment; each column's fold is told in the migration that makes it. Amounts are minor units of `asset`."""

    payment: UUID
    id: str
    provider: str
    type: str
    reference: str
    status: str
    status_at: datetime | None
    status_key: UUID | None
    initial_amount: int | None
    amount: int
    asset: str
    scheme: str
    dispute: str | None
    created_at: datetime | None
    adjustments: int
    awaiting_original: bool
    over_refund: bool
    conflicting_amounts: bool
    asset_mismatch: bool
    first_seen_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the table."""
        return cls(**_values(cls, row) | {"amount": int(row["amount"])})

    @property
    def flags(self) -> list[str]:
        """What is odd about it, by name."""
        return [
            name
            for name in ("awaiting_original", "over_refund", "conflicting_amounts", "asset_mismatch")
            if getattr(self, name)
        ]


@dataclass(frozen=True, slots=True)
class Adjustment:
    """
    One adjustment, told by its representative event, with where that event came from.

    `amount` is what the record stated; `signed_amount` is what it adds for a delta, and states for every other kind.
    """

    payment: UUID
    key: UUID
    kind: str
    status: str
    sign: int
    amount: int
    asset: str
    scheme: str
    effective_at: datetime | None
    reference: str
    parent_reference: str | None
    raw: str | None
    conflicting: bool
    events: int
    event_id: str
    run: UUID
    connector: UUID | None
    connector_name: str | None
    source_object: str | None
    path: str | None
    position: str
    line: int | None
    topic: str | None
    log_partition: int | None
    log_offset: int
    first_seen_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the view."""
        return cls(**_values(cls, row) | {"kind": _KINDS[row["kind"]]})

    @property
    def signed_amount(self) -> int:
        """What it adds, or states."""
        return self.sign * self.amount if self.kind == "delta" else self.amount


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a payment, as it was stored first. `applied`: the first of its adjustment."""

    event_id: str
    key: UUID
    status: str
    amount: int
    asset: str
    effective_at: datetime | None
    revision_at: datetime
    revision_seq: int
    run: UUID
    applied: bool
    raw: str | None
    connector: UUID | None
    source_object: str | None
    path: str | None
    position: str
    line: int | None
    topic: str | None
    log_partition: int | None
    log_offset: int
    first_seen_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row."""
        return cls(**_values(cls, row))


@dataclass(frozen=True, slots=True)
class PaymentDetail:
    """A payment with its adjustments, newest first, and its events in the order of arrival."""

    payment: Payment
    adjustments: Sequence[Adjustment]
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some payments, newest first; `next` asks for those after them, None at the end."""

    payments: Sequence[PaymentDetail]
    next: str | None


async def list_payments(
    pool: Pool,
    *,
    provider: str | None = None,
    status: str | None = None,
    reference: str | None = None,
    limit: int = PAGE,
    after: str | None = None,
    is_bounded: bool = False,
) -> Page:
    """
    Payments that were first seen last come first; a page does not move while new ones arrive.

    `reference` is the original payment's, which an index finds. A page that `is_bounded` looks at so many payments at
    most: it may have fewer than `limit`, or none, though more follow.

    Raises:
        ConfigError: `after` is not what a page returned. SinkError: as `sinks/sqlstate.py` routes it.
    """
    limit = max(1, min(limit, MOST_PER_PAGE))
    sql = statements()
    end: int | None = None
    async with connection(pool) as held, held.transaction(isolation="repeatable_read", readonly=True):
        if provider is not None and reference is not None:
            digests = [UUID(bytes=payment_digest_of(provider, reference, type_)) for type_ in PaymentType]
            rows = [row for row in await held.fetch(sql["find_payments"], digests) if status in (None, row["status"])]
            rows = rows if after is None else []
        elif reference is not None:
            place = None if after is None else _place(after)
            rows = await held.fetch(sql["payments_of_reference"], reference, status, place, limit + 1)
        else:
            place = None if after is None else _place(after)
            looked = _LOOKED if is_bounded and (provider, status) != (None, None) else None
            rows = await held.fetch(sql["list_payments"], provider, status, place, limit + 1, looked)
            if looked is not None and len(rows) <= limit:
                end = await held.fetchval(sql["page_end"], place, looked)
        page = rows[:limit]
        if len(rows) > limit:
            end = page[-1]["ordinal"]
        adjustments = await held.fetch(sql["list_adjustments"], [row["payment"] for row in page])
    of_payment: dict[UUID, list[Adjustment]] = {row["payment"]: [] for row in page}
    for row in adjustments:
        of_payment[row["payment"]].append(Adjustment.of(row))
    return Page(
        [PaymentDetail(Payment.of(row), of_payment[row["payment"]]) for row in page],
        None if end is None else _token(end),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Which payments; None: any. `reference` is the original payment's, `connector` brought an event of it.

    `since` and `until` bound the payment's own instant, the second excluded; one without an instant is in no bounds.
    """

    provider: str | None = None
    status: str | None = None
    type: str | None = None
    asset: str | None = None
    reference: str | None = None
    connector: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page_payments(
    pool: Pool, wanted: Wanted | None = None, *, after: int | None = None, limit: int = PAGE
) -> tuple[list[PaymentDetail], int | None]:
    """
    Payments that were first seen last come first, and the place to go on from, None at the end.

    A page looks at so many payments at most, so it may have fewer than `limit`, or none, though more follow.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    of, sql = wanted or Wanted(), statements()
    filters = (of.provider, of.status, of.type, of.asset, of.reference, of.connector, of.since, of.until)
    looked = _LOOKED_INTO if of.connector is not None else _LOOKED
    async with connection(pool) as held, held.transaction(isolation="repeatable_read", readonly=True):
        if of.reference is not None:  # an index finds it
            rows = await held.fetch(sql["page_payments_of_reference"], after, _LOOKED, *filters, limit + 1)
            end = None
        else:
            rows = await held.fetch(sql["page_payments"], after, looked, *filters, limit + 1)
            end = None if len(rows) > limit else await held.fetchval(sql["page_end"], after, looked)
        page = rows[:limit]
        end = page[-1]["ordinal"] if len(rows) > limit else end
        adjustments = await held.fetch(sql["list_adjustments"], [row["payment"] for row in page])
    of_payment: dict[UUID, list[Adjustment]] = {row["payment"]: [] for row in page}
    for row in adjustments:
        of_payment[row["payment"]].append(Adjustment.of(row))
    return [PaymentDetail(Payment.of(row), of_payment[row["payment"]]) for row in page], end


async def show_payment(pool: Pool, identifier: str) -> PaymentDetail | None:
    """
    The payment with this id (seed 000's), with adjustments and every event's lineage; None if there is none.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    named = parse_payment_id(identifier)
    if named is None:
        return None
    digest = UUID(bytes=payment_digest_of(*named))
    sql = statements()
    async with connection(pool) as held, held.transaction(isolation="repeatable_read", readonly=True):
        found = await held.fetchrow(sql["find_payments"], [digest])
        if found is None:
            return None
        adjustments = await held.fetch(sql["list_adjustments"], [digest])
        events = await held.fetch(sql["list_events"], digest)
    return PaymentDetail(
        Payment.of(found), [Adjustment.of(row) for row in adjustments], [Event.of(row) for row in events]
    )


def parse_payment_id(identifier: str) -> tuple[str, str, str] | None:
    """Provider, original reference and type, as the id says; None if it is no payment's id."""
    try:
        named = json.loads(base64.urlsafe_b64decode(identifier.encode("ascii") + b"=="))
        parts = (named["provider"], named["reference"], named["type"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not all(isinstance(part, str) and "\x00" not in part for part in parts):
        return None
    return parts


def _values(cls: type, row: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(cls)}


def _token(ordinal: int) -> str:
    return base64.urlsafe_b64encode(f"p{ordinal}".encode()).decode().rstrip("=")


def _place(token: str) -> int:
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii") + b"==").decode("ascii")
        if text[:1] != "p" or not text[1:].isdigit() or len(text) > 19:
            raise ValueError(text)
        return int(text[1:])
    except ValueError as exc:
        raise ConfigError("this is not the `next` of a page", hint="start from the first page") from exc
