from __future__ import annotations

import pytest

from schemas import metric
from schemas.metric import Metric, NullMeter
from streams.hold import Holds


class Told(NullMeter):
    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], float] = {}

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self.held[labels["topic"], labels["partition"], labels["reason"]] = value


@pytest.fixture
def released() -> list[str]:
    return []


@pytest.fixture
def holds(released: list[str]) -> Holds:
    return Holds(Told(), lambda: released.append("wake"))


def test_partition_is_held_until_every_reason_is_released(holds: Holds, released: list[str]) -> None:
    holds.hold("t", 0, "breaker")
    holds.hold("t", 0, "consume_lag")

    holds.release("t", 0, "breaker")
    assert holds.of("t", 0) == {"consume_lag"}
    holds.release("t", 0, "consume_lag")

    assert holds.of("t", 0) == frozenset()
    assert released == ["wake", "wake"]


def test_hold_of_a_topic_holds_its_partitions_also_after_they_were_revoked(holds: Holds) -> None:
    holds.hold("t", None, "paused")
    holds.hold("t", 1, "breaker")

    holds.forget("t", 1)

    assert holds.of("t", 1) == {"paused"}
    assert holds.of("other", 1) == frozenset()


def test_releasing_what_is_not_held_does_nothing(holds: Holds, released: list[str]) -> None:
    holds.release("t", 0, "breaker")

    assert released == []


def test_holds_show_as_a_metric() -> None:
    meter = Told()
    holds = Holds(meter, lambda: None)

    holds.hold("t", 0, "breaker")
    assert meter.held == {("t", "0", "breaker"): 1.0}
    holds.forget("t", 0)

    assert meter.held == {("t", "0", "breaker"): 0.0}
    assert metric.HELD.labels == ("topic", "partition", "reason")
