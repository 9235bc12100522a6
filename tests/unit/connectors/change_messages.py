"""Messages of logical decoding, spelled as PostgreSQL does: the decoder's inverse, written from the manual."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from connectors.changes.decoder import UNCHANGED, Column, Value

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TEXT, BIGINT, NUMERIC, TIMESTAMPTZ, JSONB = 25, 20, 1_700, 1_184, 3_802


def begin(commit_lsn: int, *, at: datetime = AT, xid: int = 700) -> bytes:
    return b"B" + struct.pack(">QqI", commit_lsn, _microseconds(at), xid)


def commit(commit_lsn: int, end_lsn: int, *, at: datetime = AT) -> bytes:
    return b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, _microseconds(at))


def relation(
    identifier: int, name: str, columns: Sequence[Column], *, schema: str = "public", identity: str = "d"
) -> bytes:
    parts = [b"R", struct.pack(">I", identifier), _string(schema), _string(name), identity.encode()]
    parts.append(struct.pack(">H", len(columns)))
    parts += [
        struct.pack(">B", column.is_key) + _string(column.name) + struct.pack(">Ii", column.type_oid, -1)
        for column in columns
    ]
    return b"".join(parts)


def insert(identifier: int, new: Sequence[Value]) -> bytes:
    return b"I" + struct.pack(">I", identifier) + b"N" + _row(new)


def update(identifier: int, new: Sequence[Value], old: Sequence[Value] | None = None, *, kind: bytes = b"O") -> bytes:
    before = b"" if old is None else kind + _row(old)
    return b"U" + struct.pack(">I", identifier) + before + b"N" + _row(new)


def delete(identifier: int, old: Sequence[Value], *, kind: bytes = b"K") -> bytes:
    return b"D" + struct.pack(">I", identifier) + kind + _row(old)


def truncate(*identifiers: int) -> bytes:
    return b"T" + struct.pack(">IB", len(identifiers), 0) + b"".join(struct.pack(">I", each) for each in identifiers)


def _row(values: Sequence[Value]) -> bytes:
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(value.encode())) + value.encode())
    return b"".join(parts)


def _string(text: str) -> bytes:
    return text.encode() + b"\0"


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
