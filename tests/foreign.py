"""What another client may put on a topic, and ours never would: headers whose names are not UTF-8."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

_LENGTH_AT, _CRC_AT, _CHECKED_FROM, _RECORDS_AT = 8, 17, 21, 61
_GZIP = 1
_NEVER_S = 60.0
_ASK_EVERY_S = 0.05
_MARK = "name that is not UTF-8: "


def batch_with(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], *, gzipped: bool = False
) -> bytes:
    """
    A batch of one record. A lone surrogate in a header's name stands for a byte that is not UTF-8 (PEP 383).

    aiokafka writes UTF-8 only: it writes a mark of the same length, and the mark is written over.
    """
    raw = {name: name.encode("utf-8", "surrogateescape") for name, _ in headers}
    marks = {name: _mark(number, len(raw[name])) for number, name in enumerate(raw) if not _is_utf8(raw[name])}
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    marked = [(marks.get(name, name), item) for name, item in headers]
    assert builder.append(0, int(time.time() * 1_000), key, value, marked) is not None
    data = bytes(builder.build())
    for name, mark in marks.items():
        assert data.count(mark.encode()) == 1
        data = data.replace(mark.encode(), raw[name])
    if gzipped:
        data = data[:_RECORDS_AT] + gzip.compress(data[_RECORDS_AT:])
        length = len(data) - _LENGTH_AT - 4
        data = data[:_LENGTH_AT] + length.to_bytes(4, "big") + data[_LENGTH_AT + 4 :]
        data = data[:_CHECKED_FROM] + _GZIP.to_bytes(2, "big") + data[_CHECKED_FROM + 2 :]
    return signed(data)


def signed(data: bytes) -> bytes:
    """The batch with a checksum that holds."""
    crc = calc_crc32c(data[_CHECKED_FROM:])
    return data[:_CRC_AT] + crc.to_bytes(4, "big") + data[_CHECKED_FROM:]


async def send(producer: AIOKafkaProducer, topic: str, partition: int, batch: bytes) -> None:
    """Write the batch as it is, and return when it is in the log."""
    request = ProduceRequest(
        transactional_id=None, required_acks=-1, timeout=5_000, topics=[(topic, [(partition, batch)])]
    )
    async with asyncio.timeout(_NEVER_S):
        while True:
            await producer.partitions_for(topic)
            leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
            answer = await producer.client.send(leader, request)
            ((_, ((_, error, *_),)),) = answer.topics
            if error != NotLeaderForPartitionError.errno:
                break
            await asyncio.sleep(_ASK_EVERY_S)  # the topic has just been made: every client asks again
    assert error == 0, answer


def _mark(number: int, length: int) -> str:
    return f"{number}{_MARK}"[:length].ljust(length, "~")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
