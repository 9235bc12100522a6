"""
What the contenders that are not Tillstream do with an event: one row per payment, last writer by time wins.

No event rows, no fold, no refunds that come before their payment, no ledger, no offsets, no dead letters: less than
Tillstream does. The statement counts its events in a row per partition, so that the instrument sees what is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.codec import decode_event
from schemas.identity import payment_id

CREATE_FLAT = """
CREATE TABLE flat_payments (
    id           text PRIMARY KEY,
    amount       bigint NOT NULL,
    effective_at timestamptz,
    status       text NOT NULL,
    asset        text NOT NULL,
    scheme       text NOT NULL,
    provider     text NOT NULL,
    type         text NOT NULL,
    reference    text NOT NULL,
    event_id     text NOT NULL,
    raw          text
);
CREATE TABLE flat_progress (slot integer PRIMARY KEY, events bigint NOT NULL);
"""
UPSERT = """
WITH upserted AS (
    INSERT INTO flat_payments AS p
    SELECT * FROM unnest($3::text[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[],
                         $10::text[], $11::text[], $12::text[], $13::text[])
        ON CONFLICT (id) DO UPDATE
       SET amount = excluded.amount, effective_at = excluded.effective_at, status = excluded.status,
           event_id = excluded.event_id, raw = excluded.raw
     WHERE excluded.effective_at >= p.effective_at
)
INSERT INTO flat_progress AS f VALUES ($1, $2) ON CONFLICT (slot) DO UPDATE SET events = f.events + excluded.events
"""
COUNT = "SELECT coalesce(sum(events), 0)::bigint FROM flat_progress"

Row = tuple[Any, ...]


def parsed(value: bytes | None) -> Row:
    """An event, parsed and validated by pydantic, as a row."""
    event = decode_event(value)
    payment = event.payment
    assert payment is not None
    reference = payment.original_reference
    return (
        payment_id(payment.provider, reference, payment.type.value),
        payment.amount,
        payment.effective_at,
        payment.status.value,
        payment.asset,
        payment.scheme,
        payment.provider,
        payment.type.value,
        reference,
        event.id,
        payment.raw,
    )


async def upsert(connection: Any, slot: int, rows: Sequence[Row]) -> None:
    """Store a batch in one statement, durably; of two rows of one payment the later one holds."""
    newest = {row[0]: row for row in rows}
    await connection.execute(UPSERT, slot, len(rows), *(list(column) for column in zip(*newest.values(), strict=True)))


def run(main: Any) -> None:
    """The loop of a contender: uvloop, as Tillstream's workers have it."""
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
