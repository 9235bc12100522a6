"""One slice: what one fetch returned of one partition, raw and in order. The unit of all work from Kafka to the
sink.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka import ConsumerRecord

RECORD_BYTES = 500  # what a record with two headers takes beside its bytes (CPython 3.11, tracemalloc)


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """
    Consecutive records of one partition, undecoded.

    Tombstones, null keys, headers and garbage are all as the broker gave them.
    `records` is never empty and ascends by offset, with gaps where the log has gaps.
    The slice covers every offset from `first_offset` up to, not including, `next_offset`, also those without a record
    (compacted, deleted, transaction markers): the slices that a consumer hands out tile the log.
    `size_bytes` is about what it takes in memory.
    """

    topic: str
    partition: int
    records: list[ConsumerRecord]
    first_offset: int
    next_offset: int
    size_bytes: int

    def __len__(self) -> int:
        return len(self.records)

    @classmethod
    def of(cls, topic: str, partition: int, records: list[ConsumerRecord]) -> Slice:
        """A slice that covers just these records, for readers that keep no position: replay, redrive, tests."""
        size_bytes = sum(size_of(record) for record in records)
        return cls(topic, partition, records, records[0].offset, records[-1].offset + 1, size_bytes)


def size_of(record: ConsumerRecord) -> int:
    """Bytes that the record takes in memory, about."""
    # aiokafka says -1 for what is null: less than the rounding of the constant
    size_bytes = RECORD_BYTES + record.serialized_key_size + record.serialized_value_size
    for name, value in record.headers:
        size_bytes += len(name) + len(value or b"")
    return int(size_bytes)
