"""
Columns as PostgreSQL's binary arrays, made in one go.

asyncpg encodes an array element by element, and only as the statement is sent, so inside the transaction: 3.7 µs for
the columns of one event. Here a column becomes bytes in a few calls, for a quarter of that, whenever there is time for
it; a connection that was told by `take_arrays` sends such bytes as they are. There, lists still work as parameters, and
arrays still come back as lists, of the types below.

Source of the format: PostgreSQL's `array_send`: dimensions, null flag, element type, size, lower bound; then each
element's length, -1 for null, and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

# asyncpg ships no types.
Connection: TypeAlias = Any
# Elements without the array's header, so that those of several pieces can be put together.
Body: TypeAlias = bytes

_HEAD = struct.Struct(">iiIii")
_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)
_SIZES = [_SIZE.pack(size) for size in range(1_025)]  # of nearly every text
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # where PostgreSQL counts from
_MICROSECOND = timedelta(microseconds=1)
_DAY_S = 86_400


def digests(values: Sequence[bytes]) -> Body:
    """Values of 16 bytes, as uuid; none is null."""
    return _of_size(16, values)


def halves(values: Sequence[bytes], first: int) -> Body:
    """8 bytes of each value from `first` on, as a signed bigint."""
    return _of_size(8, [value[first : first + 8] for value in values])


def texts(values: Sequence[str | None]) -> Body:
    """Text or null. What PostgreSQL cannot hold is sent all the same, for it to refuse."""
    try:
        encoded = [value.encode() for value in values]  # type: ignore[union-attr]  # None raises
        sizes = [_SIZES[len(each)] for each in encoded]
    except (AttributeError, UnicodeEncodeError, IndexError):
        return b"".join([_NULL if value is None else _text(value) for value in values])
    return _alternating(sizes, encoded)


def bigints(values: Sequence[int | None]) -> Body:
    """64 bits, or null."""
    return _integers(8, "q", values)


def integers(values: Sequence[int | None]) -> Body:
    """32 bits, or null."""
    return _integers(4, "i", values)


def smallints(values: Sequence[int | None]) -> Body:
    """16 bits, or null."""
    return _integers(2, "h", values)


def instants(values: Sequence[datetime | None]) -> Body:
    """Aware instants, or null. The first and the last of Python are themselves, not the infinities of asyncpg."""
    epoch, day_s = _EPOCH, _DAY_S
    return bigints(
        [
            None
            if at is None
            else ((since := at - epoch).days * day_s + since.seconds) * 1_000_000 + since.microseconds
            for at in values
        ]
    )


def uuids(values: Sequence[UUID | None]) -> Body:
    """UUIDs, or null."""
    return b"".join([_NULL if value is None else _SIZES[16] + value.bytes for value in values])


@dataclass(frozen=True, slots=True)
class ArrayType:
    """One of PostgreSQL's array types. `element` is its element's object id; those of built-in types never change."""

    name: str
    oid: int
    element: int
    encode: Callable[[Sequence[Any]], Body]
    decode: Callable[[bytes], Any]

    def array(self, bodies: Sequence[Body], count: int) -> bytes:
        """The array whose `count` elements are in `bodies`, in order."""
        return b"".join((_HEAD.pack(1, 1, self.element, count, 1), *bodies))

    def sent(self, value: Any) -> bytes:
        """What goes to the server for a parameter: an array made before, or a flat list."""
        if value.__class__ is bytes:
            return bytes(value)
        if not isinstance(value, list | tuple):
            raise TypeError(f"a list or tuple is needed for {self.name}[], not {type(value).__name__}")
        return self.array((self.encode(value),), len(value))

    def received(self, data: bytes) -> list[Any]:
        """The list that an array from the server is."""
        return [None if each is None else self.decode(each) for each in _elements(data)]


UUIDS = ArrayType("uuid", 2951, 2950, uuids, lambda each: UUID(bytes=each))
TEXTS = ArrayType("text", 1009, 25, texts, bytes.decode)
BIGINTS = ArrayType("int8", 1016, 20, bigints, lambda each: int.from_bytes(each, signed=True))
INTEGERS = ArrayType("int4", 1007, 23, integers, lambda each: int.from_bytes(each, signed=True))
SMALLINTS = ArrayType("int2", 1005, 21, smallints, lambda each: int.from_bytes(each, signed=True))
INSTANTS = ArrayType(
    "timestamptz", 1185, 1184, instants, lambda each: _EPOCH + int.from_bytes(each, signed=True) * _MICROSECOND
)
_TYPES = (UUIDS, TEXTS, BIGINTS, INTEGERS, SMALLINTS, INSTANTS)


def take_arrays(held: Connection) -> None:
    """
    Let the connection send what this module makes, from the next statement that it prepares on.

    asyncpg offers codecs for scalar types alone, although its own take any: hence the way through a private name, which
    a test pins.
    """
    settings = held._protocol.get_settings()  # noqa: SLF001  as said
    for each in _TYPES:
        settings.add_python_codec(
            each.oid, f"_{each.name}", "pg_catalog", [], "scalar", each.sent, each.received, "binary"
        )


def _of_size(size: int, values: Sequence[bytes]) -> Body:
    return _SIZES[size] + _SIZES[size].join(values) if values else b""


def _integers(size: int, code: str, values: Sequence[int | None]) -> Body:
    if None in values:
        one = _packed(code, 1)
        return b"".join([_NULL if value is None else one.pack(size, value) for value in values])
    both = [size] * (2 * len(values))
    both[1::2] = values  # type: ignore[assignment]  # none is null
    return _packed(code, len(values)).pack(*both)


@lru_cache(maxsize=64)
def _packed(code: str, count: int) -> struct.Struct:
    return struct.Struct(">" + f"i{code}" * count)


def _alternating(sizes: Sequence[bytes], encoded: Sequence[bytes]) -> Body:
    both = [b""] * (2 * len(encoded))
    both[::2] = sizes
    both[1::2] = encoded
    return b"".join(both)


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return _SIZE.pack(len(encoded)) + encoded


def _elements(data: bytes) -> Iterator[bytes | None]:
    at, dimensions = _HEAD.size, int.from_bytes(data[:4])
    if dimensions > 1:
        raise ValueError("an array of several dimensions")
    while dimensions and at < len(data):
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        yield None if size < 0 else data[at : at + size]
        at += max(size, 0)
