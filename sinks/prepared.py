"""
A slice as PostgreSQL takes it: one array per column. CPU only, so that a lane prepares one slice while another commits.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncpg.pgproto import pgproto

from schemas.identity import adjustment_key, content_hash, event_digest, payment_digest
from schemas.payment import MEANINGS, Kind
from sinks.base import Dead, Record

# asyncpg's own UUID, made from bytes and encoded without a detour over text.
fast_uuid = pgproto.UUID

# In the order of the parameters of `apply_records`, from $4 on.
COLUMNS = (
    "digest payment key content run connector amount effective_at revision_at revision_seq log_offset line rank sign"
    " kind moved status asset scheme provider type reference parent_reference event_id source_object"
    " position path raw high low"
).split()
DEAD_COLUMNS = ("digest", "run", "log_offset", "event_id", "letter_id", "reason", "high", "low")

_KIND = {Kind.SNAPSHOT: b"s", Kind.DELTA: b"d", Kind.ABSOLUTE: b"a", Kind.OVERLAY: b"o"}
_MEANING = {
    status: (meaning.rank, meaning.sign, _KIND[meaning.kind], meaning.moved, status.value)
    for status, meaning in MEANINGS.items()
}
_HALVES = struct.Struct(">qq")

# A column of the statement: what asyncpg encodes as an array.
Column = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    Records and dead ones, ready to be sent.

    `waves` are applied one after the other in one transaction: an event id stands at most once in each, and only one
    that several runs published within this slice needs a second.
    """

    waves: tuple[tuple[Column, ...], ...]
    dead: tuple[Column, ...] | None
    records: int
    dead_records: int


def prepare(records: Sequence[Record], dead: Sequence[Dead] = ()) -> Prepared:
    """
    The arrays of `records`, in their order. Raises nothing: what PostgreSQL cannot store is found when it is sent.
    """
    waves: list[list[Row]] = [[]]
    runs_of: dict[bytes, set[Any]] = {}
    for record in records:
        digest = event_digest(record.event_id)
        runs = runs_of.get(digest)
        if runs is None:
            runs_of[digest] = {record.run_id}
            waves[0].append(_row(record, digest))
            continue
        if record.run_id in runs:
            continue  # the same pair again: a redelivery counts nowhere
        runs.add(record.run_id)
        if len(waves) < len(runs):
            waves.append([])
        waves[len(runs) - 1].append(_row(record, digest))
    return Prepared(
        waves=tuple(tuple(zip(*wave, strict=True)) for wave in waves if wave),
        dead=_dead_columns(dead) if dead else None,
        records=len(records),
        dead_records=len(dead),
    )


# One row of the statement's columns, in the order of COLUMNS.
Row = tuple[Any, ...]


def _row(record: Record, digest: bytes) -> Row:
    payment = record.payment
    lineage = record.event.lineage
    rank, sign, kind, moved, status = _MEANING[payment.status]
    high, low = _HALVES.unpack(digest)
    if lineage is None:
        # Another team's client: its event's own time is all there is to order revisions by.
        connector, revision_at, revision_seq, line = None, record.event.created_at, 0, None
        source_object = position = path = ""
    else:
        connector, revision_at, revision_seq, line = (
            fast_uuid(lineage.connector_id.bytes),
            lineage.revision_at,
            lineage.revision_seq,
            lineage.line,
        )
        source_object, position, path = lineage.source_object, lineage.position, lineage.path
    return (
        fast_uuid(digest),
        fast_uuid(payment_digest(payment)),
        fast_uuid(adjustment_key(payment)),
        fast_uuid(content_hash(payment)),
        fast_uuid(record.run_id.bytes),
        connector,
        payment.amount,
        payment.effective_at,
        revision_at,
        revision_seq,
        record.offset,
        line,
        rank,
        sign,
        kind,
        moved,
        status,
        payment.asset,
        payment.scheme,
        payment.provider,
        payment.type.value,
        payment.reference,
        payment.parent_reference,
        record.event_id,
        source_object,
        position,
        path,
        payment.raw,
        high,
        low,
    )


def _dead_columns(dead: Sequence[Dead]) -> tuple[Column, ...]:
    rows = []
    for one in {(one.event_id, one.run_id): one for one in dead}.values():
        digest = event_digest(one.event_id)
        high, low = _HALVES.unpack(digest)
        rows.append(
            (
                fast_uuid(digest),
                fast_uuid(one.run_id.bytes),
                one.offset,
                one.event_id,
                one.letter_id,
                one.reason,
                high,
                low,
            )
        )
    return tuple(zip(*rows, strict=True))
