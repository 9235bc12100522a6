"""
Where consumption of a partition starts: never after what the group or the sink holds.

A restored database is behind the group's offset; an expired or deleted group offset is behind the database. The lower
of the two is right in both cases, and reading something twice is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Because(StrEnum):
    """Why a partition starts where it does."""

    COMMITTED = "committed"  # where the group left off
    SINK_IS_BEHIND = "sink_is_behind"  # the sink holds less than the group committed: a restored database
    UNKNOWN = "unknown"  # the group or the sink never saw the partition: from the beginning
    OUT_OF_RANGE = "out_of_range"  # the log does not hold that offset: deleted unread, or another log of that name


@dataclass(frozen=True, slots=True)
class Start:
    """
    The first offset to read.

    `wanted` is the one that the group and the sink asked for, None if they did not. `committed` is the group's offset,
    as far as it is one of this log.
    """

    offset: int
    committed: int | None
    because: Because
    wanted: int | None = None


def start_of(
    partition: int, *, committed: int | None, sink: Mapping[int, int] | None, beginning: int, end: int
) -> Start:
    """
    The start of one partition.

    Args:
        partition: which one.
        committed: the group's offset, None if it has none.
        sink: the sink's offsets by partition, None if no sink is asked.
        beginning: the first offset of the log.
        end: the offset that the next record will get.
    """
    known_to_sink = committed if sink is None else sink.get(partition)
    floor = committed if committed is not None and beginning <= committed <= end else None
    if committed is None or known_to_sink is None:
        return Start(beginning, floor, Because.UNKNOWN)
    wanted = min(committed, known_to_sink)
    if wanted < beginning or max(committed, known_to_sink) > end:
        return Start(beginning, floor, Because.OUT_OF_RANGE, wanted)
    return Start(wanted, floor, Because.COMMITTED if wanted == committed else Because.SINK_IS_BEHIND, wanted)
