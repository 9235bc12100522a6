from __future__ import annotations

import threading
from dataclasses import dataclass, field

from streams.watchdog import Key, Watchdog

ONE, TWO = ("topic", 1), ("topic", 2)


@dataclass(slots=True)
class World:
    lag: dict[Key, int] = field(default_factory=dict)
    progress: dict[Key, int] = field(default_factory=dict)
    held: set[Key] = field(default_factory=set)

    def watchdog(self, stall_s: float = 10.0) -> Watchdog:
        return Watchdog(lambda: self.lag, lambda: self.progress, lambda: self.held, stall_s)


def look_every_second(watchdog: Watchdog, start: int, end: int) -> list[Key]:
    found: list[Key] = []
    for second in range(start, end + 1):
        found = watchdog.look(float(second))
    return found


def test_partition_with_lag_that_does_nothing_has_stalled() -> None:
    world = World(lag={ONE: 5})
    watchdog = world.watchdog()

    assert look_every_second(watchdog, 0, 9) == []
    assert watchdog.look(10.0) == [ONE]


def test_partition_without_lag_may_do_nothing() -> None:
    assert look_every_second(World(lag={ONE: 0}).watchdog(), 0, 100) == []


def test_partition_that_moves_has_not_stalled() -> None:
    world = World(lag={ONE: 5})
    watchdog = world.watchdog()

    for second in range(100):
        world.progress[ONE] = second // 9
        assert watchdog.look(float(second)) == []


def test_one_partition_that_stalls_is_found_beside_one_that_moves() -> None:
    world = World(lag={ONE: 5, TWO: 5})
    watchdog = world.watchdog()

    for second in range(11):
        world.progress[TWO] = second
        found = watchdog.look(float(second))

    assert found == [ONE]


def test_declared_hold_is_no_stall_and_the_time_begins_anew_after_it() -> None:
    world = World(lag={ONE: 5}, held={ONE})
    watchdog = world.watchdog()
    assert look_every_second(watchdog, 0, 100) == []

    world.held.clear()

    assert look_every_second(watchdog, 101, 109) == []
    assert watchdog.look(110.0) == [ONE]


def test_process_that_was_frozen_itself_has_not_stalled() -> None:
    world = World(lag={ONE: 5})
    watchdog = world.watchdog()
    look_every_second(watchdog, 0, 5)

    assert watchdog.look(500.0) == []
    assert look_every_second(watchdog, 501, 509) == []
    assert watchdog.look(510.0) == [ONE]


def test_partition_that_left_and_came_back_begins_anew() -> None:
    world = World(lag={ONE: 5})
    watchdog = world.watchdog()
    look_every_second(watchdog, 0, 8)
    world.lag.clear()
    watchdog.look(9.0)

    world.lag[ONE] = 5

    assert look_every_second(watchdog, 10, 15) == []


def test_stall_is_told_from_the_watchdogs_own_thread() -> None:
    """A blocked event loop cannot tell."""
    told: list[tuple[list[Key], str]] = []
    heard = threading.Event()

    def on_stall(stalled: list[Key]) -> None:
        told.append((stalled, threading.current_thread().name))
        heard.set()

    World(lag={ONE: 5}).watchdog(stall_s=0.0).start(on_stall)

    assert heard.wait(5)
    assert told == [([ONE], "watchdog")]
