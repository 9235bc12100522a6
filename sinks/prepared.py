"""
A slice as PostgreSQL takes it: one encoded array per column. CPU only, and done before the transaction, piece by piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from asyncpg import DataError
from asyncpg.pgproto import pgproto

from schemas.identity import event_digest, payment_digests
from schemas.payment import MEANINGS
from sinks import arrays
from sinks.arrays import BIGINTS, INSTANTS, INTEGERS, SMALLINTS, TEXTS, UUIDS, ArrayType, Body
from sinks.base import Dead, Place, Record, facts

# asyncpg's own UUID, made from bytes and encoded without a detour over text.
fast_uuid = pgproto.UUID

# Place of each status in the statement's table of meanings, counted from 1.
_MEANING = {status: place for place, status in enumerate(MEANINGS, start=1)}

# One row of the statement's columns, a batch or a facet: not a type of its own, because making one costs time.
Row: TypeAlias = tuple[Any, ...]
# What the statement takes for a column: an encoded array, or a list.
Column: TypeAlias = bytes | Sequence[Any]
Encode: TypeAlias = Callable[[Sequence[Any]], Body]

# The columns of one event's row: their types in the statement, and how they are encoded.
_COLUMNS: Sequence[tuple[ArrayType, Encode]] = (
    (SMALLINTS, arrays.smallints),  # batch
    (SMALLINTS, arrays.smallints),  # facet
    (UUIDS, arrays.digests),  # digest
    (UUIDS, arrays.digests),  # payment
    (UUIDS, arrays.digests),  # key
    (UUIDS, arrays.digests),  # content
    (BIGINTS, arrays.bigints),  # amount
    (INSTANTS, arrays.instants),  # effective_at
    (BIGINTS, arrays.bigints),  # log_offset
    (INTEGERS, arrays.integers),  # line
    (TEXTS, arrays.texts),  # reference
    (TEXTS, arrays.texts),  # parent_reference
    (TEXTS, arrays.texts),  # event_id
    (TEXTS, arrays.texts),  # position
    (TEXTS, arrays.texts),  # raw
)
_DIGEST = 2  # the place of the event's digest among them


@dataclass(frozen=True, slots=True)
class Wave:
    """
    Records whose event ids differ. What many of them share is said once: `batches` and `facets`.

    A batch is (connector, source object, path, run, revision instant, revision order), a facet what takes few values:
    (status, asset, scheme, provider, type). `refused` is why the columns cannot be sent at all.
    """

    count: int
    batches: tuple[Row, ...]
    facets: tuple[Row, ...]
    columns: tuple[bytes, ...]
    refused: str = ""

    def parameters(self, place: Place) -> tuple[Column, ...]:
        """
        The statement's arrays, in order.

        Raises:
            asyncpg.DataError: some value fits no column.
        """
        if self.refused:
            raise DataError(self.refused)
        connectors, objects, paths, runs, instants, orders = zip(*self.batches, strict=True)
        statuses, *facets = zip(*self.facets, strict=True)
        origins = [_origin(place, *batch[:3]) for batch in self.batches]
        meanings = [_MEANING[status] for status in statuses]
        return (connectors, objects, paths, runs, origins, instants, orders, meanings, *facets, *self.columns)


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    Records and dead ones, ready to be sent.

    `waves` are applied one after the other in one transaction: an event id stands at most once in each, and only one
    that came from several runs, or for several records, within this slice needs a second.
    """

    waves: tuple[Wave, ...]
    dead: tuple[Column, ...] | None
    records: int
    dead_records: int


class Ready(list[Record]):
    """Records whose columns are encoded already. A part of them is a plain list again."""

    waves: tuple[Wave, ...] = ()


class Preparation:
    """
    Collects the records of one transaction, a piece at a time, so that an event loop can do other things between.

    Raises nothing: what PostgreSQL refuses is found when it is sent.
    """

    def __init__(self) -> None:
        self._ready = Ready()
        self._makers = [_Maker()]
        self._first: dict[bytes, Record] = {}
        self._several: dict[bytes, list[Record]] = {}  # of event ids that came more than once

    def add(self, records: Sequence[Record]) -> None:
        """Records that follow those before: their digests."""
        first, first_wave = self._first, self._makers[0].add
        for record in records:
            digest = event_digest(record.event_id)
            if digest in first:
                self._add_again(record, digest)
            else:
                first[digest] = record
                first_wave(record, digest)
        self._ready += records

    def encode(self) -> None:
        """Make bytes of what was added so far."""
        for maker in self._makers:
            maker.encode()

    def ready(self) -> Ready:
        """All of them, with their columns."""
        self.encode()
        self._ready.waves = tuple(maker.wave() for maker in self._makers if maker.count)
        return self._ready

    def _add_again(self, record: Record, digest: bytes) -> None:
        several = self._several.setdefault(digest, [self._first[digest]])
        said = facts(record.payment)
        if any(record.run_id == other.run_id and said == facts(other.payment) for other in several):
            return  # the same again: a redelivery counts nowhere
        several.append(record)
        if len(self._makers) < len(several):
            self._makers.append(_Maker())
        self._makers[len(several) - 1].add(record, digest)


def prepare(records: Sequence[Record], dead: Sequence[Dead] = ()) -> Prepared:
    """The arrays of `records`, in their order; those that are there already are not made again. Raises nothing."""
    if not isinstance(records, Ready):
        preparation = Preparation()
        preparation.add(records)
        records = preparation.ready()
    return Prepared(records.waves, _dead_columns(dead) if dead else None, len(records), len(dead))


class _Maker:
    """Collects the rows of one wave."""

    def __init__(self) -> None:
        self.count = 0
        self._flat: list[Any] = []  # row after row: strided slices are its columns, at a tenth of what `zip` takes
        self._bodies: list[list[Body]] = [[] for _ in (*_COLUMNS, "high", "low")]
        self._batches: dict[Row, int] = {}
        self._facets: dict[Row, int] = {}
        self._batch: Row = ()
        self._number = 0
        self._refused = ""

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
        facets = self._facets
        facet = (payment.status, payment.asset, payment.scheme, payment.provider, payment.type)
        self._flat += (
            self._number,
            facets.setdefault(facet, len(facets) + 1),
            digest,
            *payment_digests(payment),
            payment.amount,
            payment.effective_at,
            record.offset,
            line,
            payment.reference,
            payment.parent_reference,
            record.event_id,
            position,
            payment.raw,
        )

    def encode(self) -> None:
        """The rows so far become bytes."""
        flat, width = self._flat, len(_COLUMNS)
        if not flat:
            return
        self._flat = []
        self.count += len(flat) // width
        try:
            bodies = [encode(flat[place::width]) for place, (_, encode) in enumerate(_COLUMNS)]
        except Exception as exc:  # whatever a value is: it is refused when it is sent, and its record found by halving
            self._refused = self._refused or f"a value fits no column: {exc.__class__.__name__}"
            return
        digests = flat[_DIGEST::width]
        bodies += [arrays.halves(digests, 0), arrays.halves(digests, 8)]
        for kept, body in zip(self._bodies, bodies, strict=True):
            kept.append(body)

    def wave(self) -> Wave:
        types = [*(type_ for type_, _ in _COLUMNS), BIGINTS, BIGINTS]
        columns = tuple(type_.array(bodies, self.count) for type_, bodies in zip(types, self._bodies, strict=True))
        return Wave(self.count, tuple(self._batches), tuple(self._facets), columns, self._refused)


def _origin(place: Place, connector: UUID | None, source_object: str, path: str) -> UUID:
    parts = (str(connector), source_object, path, place.topic, str(place.partition))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return UUID(bytes=hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])


def storable(text: str) -> str:
    """`text` as PostgreSQL can hold it: what it cannot (NUL, lone surrogates) is spelled out as an escape."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _dead_columns(dead: Sequence[Dead]) -> tuple[Column, ...]:
    once = list({(one.event_id, one.run_id, one.content): one for one in dead}.values())
    digests = [event_digest(one.event_id) for one in once]
    return (
        UUIDS.array([arrays.digests(digests)], len(once)),
        [one.run_id for one in once],
        UUIDS.array([arrays.digests([one.content for one in once])], len(once)),
        [one.offset for one in once],
        [storable(one.event_id) for one in once],
        [storable(one.letter_id) for one in once],
        [storable(one.reason) for one in once],
        BIGINTS.array([arrays.halves(digests, 0)], len(once)),
        BIGINTS.array([arrays.halves(digests, 8)], len(once)),
    )
