"""
A slice as PostgreSQL takes it: one array per column. CPU only, so that a lane prepares one slice while another commits.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncpg.pgproto import pgproto

from schemas.identity import event_digest, payment_digests
from schemas.payment import MEANINGS
from sinks.base import Dead, Place, Record

# asyncpg's own UUID, made from bytes and encoded without a detour over text.
fast_uuid = pgproto.UUID

# Place of each status in the statement's table of meanings, counted from 1.
_MEANING = {status: place for place, status in enumerate(MEANINGS, start=1)}
_HALVES = struct.Struct(">qq")

# A column of the statement: what asyncpg encodes as an array.
Column = Sequence[Any]
# One row of the statement's columns.
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Wave:
    """
    Records whose event ids differ. `batches` is what many records share, said once; `rows` are the parameters' columns.

    A batch is (connector, source object, path, run, revision instant, revision order).
    """

    batches: tuple[Row, ...]
    rows: tuple[Column, ...]

    def parameters(self, place: Place) -> tuple[Column, ...]:
        """The statement's arrays, in order."""
        connectors, objects, paths, runs, instants, orders = zip(*self.batches, strict=True)
        origins = [_origin(place, *batch[:3]) for batch in self.batches]
        return (connectors, objects, paths, runs, origins, instants, orders, *self.rows)


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    Records and dead ones, ready to be sent.

    `waves` are applied one after the other in one transaction: an event id stands at most once in each, and only one
    that several runs published within this slice needs a second.
    """

    waves: tuple[Wave, ...]
    dead: tuple[Column, ...] | None
    records: int
    dead_records: int


def prepare(records: Sequence[Record], dead: Sequence[Dead] = ()) -> Prepared:
    """The arrays of `records`, in their order. Raises nothing: what PostgreSQL refuses is found when it is sent."""
    makers = [_Maker()]
    first_wave = makers[0].add
    first_run: dict[bytes, UUID] = {}
    further: dict[bytes, list[UUID]] = {}
    for record in records:
        digest = event_digest(record.event_id)
        if digest not in first_run:
            first_run[digest] = record.run_id
            first_wave(record, digest)
            continue
        runs = further.setdefault(digest, [first_run[digest]])
        if record.run_id in runs:
            continue  # the same pair again: a redelivery counts nowhere
        runs.append(record.run_id)
        if len(makers) < len(runs):
            makers.append(_Maker())
        makers[len(runs) - 1].add(record, digest)
    return Prepared(
        waves=tuple(maker.wave() for maker in makers if maker.rows),
        dead=_dead_columns(dead) if dead else None,
        records=len(records),
        dead_records=len(dead),
    )


class _Maker:
    """Collects the rows of one wave."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._batches: dict[Row, int] = {}
        self._batch: Row = ()
        self._number = 0

    def add(self, record: Record, digest: bytes) -> None:
        payment, lineage = record.payment, record.event.lineage
        batch: Row
        if lineage is None:
            # Another team's client: its event's own time is all there is to order revisions by.
            batch = (None, "", "", record.run_id, record.event.created_at, 0)
            line, position = None, ""
        else:
            batch = (
                lineage.connector_id,
                lineage.source_object,
                lineage.path,
                record.run_id,
                lineage.revision_at,
                lineage.revision_seq,
            )
            line, position = lineage.line, lineage.position
        if batch != self._batch:  # as a rule it is that of the record before: comparing is cheaper than hashing
            self._batch, self._number = batch, self._batches.setdefault(batch, len(self._batches) + 1)
        whose, key, content = payment_digests(payment)
        self.rows.append(
            (
                self._number,
                fast_uuid(digest),
                fast_uuid(whose),
                fast_uuid(key),
                fast_uuid(content),
                # asyncpg would cut a fraction off; as text it refuses.
                payment.amount if payment.amount.__class__ is int else repr(payment.amount),
                payment.effective_at,
                record.offset,
                line,
                _MEANING[payment.status],
                payment.asset,
                payment.scheme,
                payment.provider,
                payment.type,
                payment.reference,
                payment.parent_reference,
                record.event_id,
                position,
                payment.raw,
                *_HALVES.unpack(digest),
            )
        )

    def wave(self) -> Wave:
        return Wave(tuple(self._batches), tuple(zip(*self.rows, strict=True)))


def _origin(place: Place, connector: UUID | None, source_object: str, path: str) -> UUID:
    parts = (str(connector), source_object, path, place.topic, str(place.partition))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return UUID(bytes=hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])


def storable(text: str) -> str:
    """`text` as PostgreSQL can hold it: what it cannot (NUL, lone surrogates) is spelled out as an escape."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _dead_columns(dead: Sequence[Dead]) -> tuple[Column, ...]:
    rows = []
    for one in {(one.event_id, one.run_id): one for one in dead}.values():
        digest = event_digest(one.event_id)
        rows.append(
            (
                fast_uuid(digest),
                one.run_id,
                one.offset,
                storable(one.event_id),
                storable(one.letter_id),
                storable(one.reason),
                *_HALVES.unpack(digest),
            )
        )
    return tuple(zip(*rows, strict=True))
