from __future__ import annotations

import pytest

from streams.position import Because, Start, start_of


@pytest.mark.parametrize(
    ("committed", "sink", "expected"),
    [
        pytest.param(70, None, Start(70, 70, Because.COMMITTED, 70), id="no sink is asked"),
        pytest.param(70, {0: 70}, Start(70, 70, Because.COMMITTED, 70), id="both agree"),
        pytest.param(70, {0: 90}, Start(70, 70, Because.COMMITTED, 70), id="killed between the two commits"),
        pytest.param(70, {0: 30}, Start(30, 70, Because.SINK_IS_BEHIND, 30), id="restored database"),
        pytest.param(70, {0: 70, 1: 5}, Start(70, 70, Because.COMMITTED, 70), id="other partitions do not count"),
        pytest.param(70, {}, Start(10, 70, Because.UNKNOWN), id="new database"),
        pytest.param(None, {0: 70}, Start(10, None, Because.UNKNOWN), id="new group"),
        pytest.param(None, None, Start(10, None, Because.UNKNOWN), id="new group, no sink"),
        pytest.param(None, {}, Start(10, None, Because.UNKNOWN), id="everything is new"),
        pytest.param(100, {0: 100}, Start(100, 100, Because.COMMITTED, 100), id="nothing left to read"),
        pytest.param(10, {0: 10}, Start(10, 10, Because.COMMITTED, 10), id="nothing read yet"),
        pytest.param(5, {0: 70}, Start(10, None, Because.OUT_OF_RANGE, 5), id="deleted unread"),
        pytest.param(70, {0: 5}, Start(10, 70, Because.OUT_OF_RANGE, 5), id="restored database, and deleted since"),
        pytest.param(101, {0: 101}, Start(10, None, Because.OUT_OF_RANGE, 101), id="another log of that name"),
        pytest.param(
            101, {0: 50}, Start(10, None, Because.OUT_OF_RANGE, 50), id="another log, the sink's offset looks right"
        ),
        pytest.param(
            50, {0: 101}, Start(10, 50, Because.OUT_OF_RANGE, 50), id="another log, the group's offset looks right"
        ),
    ],
)
def test_start_is_never_after_what_the_group_or_the_sink_holds(
    committed: int | None, sink: dict[int, int] | None, expected: Start
) -> None:
    assert start_of(0, committed=committed, sink=sink, beginning=10, end=100) == expected
