# ruff: noqa: SLF001  # aiokafka has no public way in: tests/unit/streams/test_transport_contract.py pins each private name
"""
Record batches that are read whatever their headers are called.

A header's name is a string of UTF-8 by Kafka's protocol, but no broker looks into it: another client may write any
bytes there. aiokafka's decoder then fails for the whole fetch, and would for ever. Here such a record is read like
every other; bytes of a name that are not UTF-8 stand in the string as lone surrogates (PEP 383), so that nothing of
them is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

_LENGTH_AT, _BATCH_AT = 8, 12  # of a batch: its length follows its base offset


def read_any_header() -> None:
    """
    Let every consumer of this process read such records; before the first one fetches. Calling it again does nothing.

    aiokafka makes its `MemoryRecords` by that name, deep in a method that is better not copied.
    """
    fetcher.MemoryRecords = Batches


class Batches:
    """What one fetch returned of one partition: aiokafka's `MemoryRecords`, which forgets the bytes it was made of."""

    __slots__ = ("_data", "_next_at", "_records")

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data
        self._next_at = 0

    def size_in_bytes(self) -> int:
        """Of all batches."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether a whole batch is left."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:  # aiokafka's batches have no common type
        """The next batch."""
        batch = self._records.next_batch()
        at = self._next_at
        self._next_at = at + _BATCH_AT + int.from_bytes(self._data[at + _LENGTH_AT : at + _BATCH_AT], "big")
        if type(batch) is not DefaultRecordBatch or batch.is_control_batch:
            return batch
        return _Batch(batch, memoryview(self._data)[at : self._next_at])


class _Batch:
    """A batch as aiokafka decodes it, in C; again in Python from the first name on that it cannot decode."""

    __slots__ = ("_batch", "_data", "base_offset", "is_transactional", "next_offset", "producer_id", "validate_crc")

    is_control_batch = False

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data
        self.base_offset: int = batch.base_offset
        self.next_offset: int = batch.next_offset
        self.producer_id: int = batch.producer_id
        self.is_transactional: bool = batch.is_transactional
        self.validate_crc = batch.validate_crc

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except UnicodeDecodeError:
            pass
        except CorruptRecordException as exc:  # what aiokafka's decoder in Python makes of it
            if not isinstance(exc.__cause__, UnicodeDecodeError):
                raise
        else:
            return
        yield from _records(self._data)  # from its beginning: aiokafka leaves out what lies before its position


def _records(data: memoryview) -> Iterator[_DefaultRecordPy]:
    """
    The records of a batch, names of headers as `os.fsdecode` would have them.

    Source: Kafka's message format, version 2, https://kafka.apache.org/documentation/#record

    Raises:
        CorruptRecordException: a record does not fill the room that it claims.
    """
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()
    content, at = batch._buffer, batch._pos
    for _ in range(batch._num_records):
        size, start = decode_varint(content, at)
        record, at = _record(batch, content, start)
        if at != start + size or at > len(content):
            raise CorruptRecordException(f"a record of {size} bytes was read as {at - start}")
        yield record


def _record(batch: _DefaultRecordBatchPy, content: bytearray, at: int) -> tuple[_DefaultRecordPy, int]:
    _, at = decode_varint(content, at)  # attributes, of which there are none yet
    delta_ms, at = decode_varint(content, at)
    timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta_ms
    delta, at = decode_varint(content, at)
    key, at = _bytes(content, at)
    value, at = _bytes(content, at)
    count, at = decode_varint(content, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _bytes(content, at)
        item, at = _bytes(content, at)
        headers.append(((name or b"").decode("utf-8", "surrogateescape"), item))
    record = _DefaultRecordPy(batch.base_offset + delta, timestamp, batch.timestamp_type, key, value, headers)
    return record, at


def _bytes(content: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(content, at)
    if size < 0:
        return None, at
    return bytes(content[at : at + size]), at + size
