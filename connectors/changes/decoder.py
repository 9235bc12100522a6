"""
PostgreSQL's logical decoding messages (plugin `pgoutput`, protocol version 1) → values. Pure: bytes in, tuples out.

Source: PostgreSQL's manual, "Logical Replication Message Formats". Values come in their text form, as `UNCHANGED` where
PostgreSQL did not send them (a large value that an update left alone), or as None.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple


class Unchanged(Enum):
    """Says that a value was not sent, because the update did not touch it."""

    UNCHANGED = 0


UNCHANGED: Final = Unchanged.UNCHANGED

Value = str | None | Unchanged
Values = list[Value]


class Begin(NamedTuple):
    """A transaction begins; all of it follows, up to its `Commit`. `commit_lsn` is where its commit stands."""

    commit_lsn: int
    committed_at: datetime
    xid: int


class Commit(NamedTuple):
    """A transaction is complete. Everything before `end_lsn` that is not part of a later one was sent."""

    commit_lsn: int
    end_lsn: int
    committed_at: datetime


class Column(NamedTuple):
    """A column of a relation. `is_key`: a part of the replica identity."""

    name: str
    type_oid: int
    is_key: bool


class Relation(NamedTuple):
    """What the tuples of a table mean from here on. `identity`: d(efault), n(othing), f(ull), i(ndex)."""

    id: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Insert(NamedTuple):
    """A row is new."""

    relation: int
    new: Values


class Update(NamedTuple):
    """A row has changed. `old` is there if its key changed, or the whole of it where the identity is full."""

    relation: int
    old: Values | None
    new: Values


class Delete(NamedTuple):
    """A row is gone. `old` has its key, or the whole of it where the identity is full."""

    relation: int
    old: Values


class Truncate(NamedTuple):
    """Tables were emptied."""

    relations: tuple[int, ...]


class Other(NamedTuple):
    """A message that says nothing about rows: a type, an origin, a message of an application."""

    kind: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Other


class Undecodable(ValueError):
    """The bytes are no message of the protocol we asked for."""


def decode(data: bytes) -> Message:
    """
    The message that the bytes spell.

    Raises:
        Undecodable: they are none. UnicodeDecodeError: a text in it is not UTF-8.
    """
    try:
        return _DECODERS[data[0]](data)
    except UnicodeDecodeError:
        raise
    except (IndexError, KeyError, struct.error, ValueError, OverflowError) as exc:
        raise Undecodable(f"not a message of pgoutput, version 1: {data[:16]!r} ({exc})") from exc


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_U32 = Struct(">I")
_TEXT, _NULL, _UNCHANGED = b"tnu"
_NEW, _KEY, _OLD = b"NKO"


def _begin(data: bytes) -> Begin:
    lsn, microseconds, xid = _BEGIN.unpack_from(data, 1)
    return Begin(lsn, _EPOCH + timedelta(microseconds=microseconds), xid)


def _commit(data: bytes) -> Commit:
    _, commit_lsn, end_lsn, microseconds = _COMMIT.unpack_from(data, 1)
    return Commit(commit_lsn, end_lsn, _EPOCH + timedelta(microseconds=microseconds))


def _relation(data: bytes) -> Relation:
    (identifier,) = _U32.unpack_from(data, 1)
    schema, at = _string(data, 5)
    name, at = _string(data, at)
    identity = chr(data[at])
    count = data[at + 1] << 8 | data[at + 2]
    at += 3
    columns = []
    for _ in range(count):
        flags = data[at]
        column, at = _string(data, at + 1)
        (type_oid,) = _U32.unpack_from(data, at)
        at += 8  # and the type's modifier
        columns.append(Column(column, type_oid, bool(flags & 1)))
    _ends(data, at)
    return Relation(identifier, schema or "pg_catalog", name, identity, tuple(columns))


def _insert(data: bytes) -> Insert:
    if data[5] != _NEW:
        raise ValueError("an insert without a new row")
    new, at = _tuple(data, 6)
    _ends(data, at)
    return Insert(int.from_bytes(data[1:5]), new)


def _update(data: bytes) -> Update:
    old, at = None, 5
    if data[at] in (_KEY, _OLD):
        old, at = _tuple(data, at + 1)
    if data[at] != _NEW:
        raise ValueError("an update without a new row")
    new, at = _tuple(data, at + 1)
    _ends(data, at)
    return Update(int.from_bytes(data[1:5]), old, new)


def _delete(data: bytes) -> Delete:
    if data[5] not in (_KEY, _OLD):
        raise ValueError("a delete without an old row")
    old, at = _tuple(data, 6)
    _ends(data, at)
    return Delete(int.from_bytes(data[1:5]), old)


def _truncate(data: bytes) -> Truncate:
    (count,) = _U32.unpack_from(data, 1)
    _ends(data, 6 + 4 * count)
    return Truncate(tuple(_U32.unpack_from(data, 6 + 4 * place)[0] for place in range(count)))


def _tuple(data: bytes, at: int) -> tuple[Values, int]:
    """The values from there on, and where they end. Every row of every change passes here."""
    count = data[at] << 8 | data[at + 1]
    at += 2
    values: Values = []
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + int.from_bytes(data[at + 1 : start])
            values.append(str(data[start:at], "utf-8"))
        elif kind == _NULL:
            at += 1
            values.append(None)
        elif kind == _UNCHANGED:
            at += 1
            values.append(UNCHANGED)
        else:
            raise ValueError(f"a value of the kind {kind:#x}, which was not asked for")
    return values, at


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return str(data[at:end], "utf-8"), end + 1


def _ends(data: bytes, at: int) -> None:
    """A value that was cut off would decode as a shorter one."""
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, {at} expected")


def _other(data: bytes) -> Other:
    return Other(chr(data[0]))


_DECODERS: dict[int, Callable[[bytes], Message]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("R"): _relation,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("Y"): _other,
    ord("O"): _other,
    ord("M"): _other,
}
