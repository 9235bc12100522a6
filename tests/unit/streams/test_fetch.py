"""How a slice is taken out of what aiokafka has fetched: on real record batches, without a broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CorruptRecordException, RecordTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.batch import Batches
from streams.fetch import Fetched, Want, _read
from streams.inflight import InFlight
from streams.slice import RECORD_BYTES, Slice
from tests import foreign

TP = TopicPartition("t", 0)


def batch(
    base: int, offsets: Iterable[int], *, last: int | None = None, compression: int = 0, value: bytes = b"value"
) -> bytearray:
    """A batch as a log holds it: `last` is the last offset that it had before compaction."""
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 16 * 1_048_576)
    for offset in offsets:
        builder.append(offset - base, timestamp=1_000 + offset, key=None, value=value, headers=[("h", b"1")])
    data = builder.build()
    last_delta = (max(offsets, default=base) if last is None else last) - base
    data[0:8] = base.to_bytes(8, "big")
    data[23:27] = last_delta.to_bytes(4, "big")
    return data


class Fetches:
    """aiokafka's fetcher, as far as `_read` touches it: fetched results, and the word to fetch again."""

    def __init__(self, position: int, data: bytes) -> None:
        self.assignment = Assignment([TP])
        self.assignment.state_value(TP).seek(position)
        source = PartitionRecords(TP, Batches(bytes(data)), [], position, None, None, False, 0)
        result = FetchResult(TP, assignment=self.assignment, partition_records=source, backoff=0)
        self._records: dict[TopicPartition, Any] = {TP: result}
        self._wait_consume_future = None
        self.inflight = InFlight(position)
        self.fetches_again = 0

    def _notify(self, _: object) -> None:
        self.fetches_again += 1

    def read(self, *, max_records: int = 1_000, max_bytes: int = 1_000_000, position: int | None = None) -> Any:
        wanted = self.inflight.position if position is None else position
        fetched = _read(self, TP, self._records[TP], Want(self.inflight, wanted, max_records, max_bytes))
        if fetched is not None and fetched.next_offset > fetched.first_offset:
            self.inflight.track(fetched.first_offset, fetched.next_offset)
        return fetched

    @property
    def position(self) -> int:
        return int(self.assignment.state_value(TP).position)


def offsets(fetched: Fetched) -> list[int]:
    return [record.offset for record in fetched.records]


@pytest.fixture(autouse=True)
async def _loop() -> None:
    """aiokafka makes futures as it goes."""


async def test_slice_is_what_the_fetch_returned() -> None:
    fetches = Fetches(0, batch(0, range(5)) + batch(5, range(5, 8)))

    fetched = fetches.read()

    assert (fetched.first_offset, fetched.next_offset, offsets(fetched)) == (0, 8, list(range(8)))
    assert fetches.position == 8
    assert fetches.fetches_again == 1


async def test_slices_cut_by_count_tile_the_fetch() -> None:
    fetches = Fetches(0, batch(0, range(10)))

    cut = [fetches.read(max_records=4) for _ in range(3)]

    assert [(each.first_offset, each.next_offset) for each in cut] == [(0, 4), (4, 8), (8, 10)]
    assert [offset for each in cut for offset in offsets(each)] == list(range(10))


async def test_slice_is_cut_by_bytes_and_never_empty() -> None:
    fetches = Fetches(0, batch(0, range(6), value=b"x" * 1_000))

    cut = [fetches.read(max_bytes=2 * (1_000 + RECORD_BYTES)) for _ in range(3)]
    alone = Fetches(0, batch(0, range(2), value=b"x" * 1_000)).read(max_bytes=1)

    assert [len(each.records) for each in cut] == [2, 2, 2]
    assert len(alone.records) == 1


async def test_cut_at_the_very_end_leaves_nothing_behind() -> None:
    fetches = Fetches(0, batch(0, range(4)))
    fetches.read(max_records=4)

    assert fetches.read(max_records=4) is None
    assert fetches.fetches_again == 1
    assert fetches.position == 4


async def test_holes_of_compaction_belong_to_the_slice_around_them() -> None:
    """Offsets 0 to 9 of which 2 and 7 are left, then a batch of which nothing is left."""
    fetches = Fetches(0, batch(0, [2, 7], last=9) + batch(10, [], last=14))

    fetched = fetches.read()

    assert (fetched.first_offset, fetched.next_offset, offsets(fetched)) == (0, 15, [2, 7])


async def test_fetch_with_nothing_but_compacted_batches_moves_the_position() -> None:
    fetches = Fetches(20, batch(20, [], last=29))

    fetched = fetches.read()

    assert (fetched.first_offset, fetched.next_offset, fetched.records) == (20, 30, [])


async def test_records_before_the_position_are_left_out() -> None:
    """A broker sends whole batches."""
    fetched = Fetches(3, batch(0, range(6))).read()

    assert (fetched.first_offset, fetched.next_offset, offsets(fetched)) == (3, 6, [3, 4, 5])


async def test_nothing_is_taken_where_the_partition_stands_elsewhere() -> None:
    """aiokafka was out of range and went to the earliest offset."""
    fetches = Fetches(50, batch(50, range(50, 55)))

    fetched = fetches.read(position=7)

    assert (fetched.first_offset, fetched.records) == (50, [])
    assert fetches.position == 50
    assert offsets(fetches.read(position=50)) == list(range(50, 55))


async def test_result_of_an_assignment_that_is_over_is_dropped() -> None:
    fetches = Fetches(0, batch(0, range(5)))
    fetches.assignment._unassign()

    assert fetches.read() is None
    assert TP not in fetches._records


async def test_result_from_before_a_seek_is_dropped() -> None:
    fetches = Fetches(0, batch(0, range(5)))
    fetches.assignment.state_value(TP).seek(3)

    assert fetches.read(position=3) is None
    assert TP not in fetches._records


async def test_error_of_a_fetch_is_handed_on_and_nothing_moves() -> None:
    fetches = Fetches(0, batch(0, range(5)))
    error = RecordTooLargeError("too large", TP)
    fetches._records[TP] = FetchError(error=error, backoff=0)

    fetched = fetches.read()

    assert fetched.error is error
    assert fetched.next_offset == fetched.first_offset == 0
    assert TP not in fetches._records


async def test_batch_that_cannot_be_read_gives_nothing_of_the_slice_and_is_fetched_again() -> None:
    """Also the good batch before it: nothing is half handed out."""
    broken = batch(5, range(5, 8), compression=1)
    broken[70:] = bytes(len(broken) - 70)
    fetches = Fetches(0, batch(0, range(5)) + broken)

    fetched = fetches.read()

    assert fetched.error is not None
    assert fetched.records == []
    assert fetches.position == 0
    assert TP not in fetches._records


async def test_size_is_counted_as_a_slice_counts_it() -> None:
    fetched = Fetches(0, batch(0, range(5))).read()

    assert fetched.size_bytes == Slice.of("t", 0, fetched.records).size_bytes
    assert fetched.size_bytes == 5 * (RECORD_BYTES - 1 + len(b"value") + len("h") + len(b"1"))


async def test_records_stay_raw() -> None:
    record = Fetches(0, batch(0, [0], value=b"\xff\x00")).read().records[0]

    assert (record.topic, record.partition, record.offset, record.timestamp) == ("t", 0, 0, 1_000)
    assert (record.key, record.value, record.headers) == (None, b"\xff\x00", (("h", b"1"),))


def labelled(base: int, name: str, *, gzipped: bool = False) -> bytes:
    data = bytearray(foreign.batch_with(b"k", b"value", [("h", b"1"), (name, None), ("z", b"")], gzipped=gzipped))
    data[0:8] = base.to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("name", ["\udcff\udcfe", "till-\udce9vent", "\udced\udca0\udc80"])
async def test_record_whose_header_has_a_name_that_is_not_utf8_is_read_with_those_around_it(
    name: str, gzipped: bool
) -> None:
    """A broker takes it; aiokafka's decoder gives up on the whole fetch."""
    fetches = Fetches(0, batch(0, range(3)) + labelled(3, name, gzipped=gzipped) + batch(4, range(4, 6)))

    fetched = fetches.read()

    assert fetched.error is None
    assert (fetched.next_offset, offsets(fetched)) == (6, list(range(6)))
    assert (fetched.records[3].key, fetched.records[3].value) == (b"k", b"value")
    assert fetched.records[3].headers == (("h", b"1"), (name, None), ("z", b""))
    assert fetched.records[3].timestamp > 0


async def test_records_after_a_name_that_is_not_utf8_in_the_same_batch_come_once_each() -> None:
    data = batch(10, range(10, 20))
    spoilt = bytes(data).replace(b"\x02h\x021", b"\x02\xff\x021", 8).replace(b"\x02\xff\x021", b"\x02h\x021", 3)
    fetches = Fetches(12, foreign.signed(spoilt))

    cut = [fetches.read(max_records=3) for _ in range(3)]

    assert [offset for each in cut for offset in offsets(each)] == list(range(12, 20))
    assert [name for each in cut for record in each.records for name, _ in record.headers] == [
        *(["h"] * 1),
        *(["\udcff"] * 5),
        *(["h"] * 2),
    ]


async def test_batch_that_is_broken_behind_such_a_name_is_still_corrupt() -> None:
    data = labelled(0, "\udcff\udcfe")
    broken = foreign.signed(data.replace(b"\x04\xff\xfe\x01", b"\x04\xff\xfe\x12"))

    assert isinstance(Fetches(0, broken).read().error, CorruptRecordException)
