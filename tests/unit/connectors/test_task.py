from __future__ import annotations

import asyncio

import pytest

from connectors.source import Task
from connectors.task import Queue, TaskStatus, Work
from connectors.testing import START


def work(order: int) -> Work:
    return Work(Task(f"t{order}", f"k{order}", f"o{order}"), order, START)


def begun(queue: Queue) -> list[int]:
    started = []
    while (item := queue.begin()) is not None:
        started.append(item.order)
    return started


def filled(limit: int, count: int, *, waiting_factor: int = 4) -> Queue:
    queue = Queue(limit, waiting_factor=waiting_factor)
    for order in range(count):
        queue.add(work(order))
    return queue


def test_only_so_many_begin_and_the_oldest_first() -> None:
    queue = filled(2, 5)

    assert begun(queue) == [0, 1]
    queue.end()
    assert begun(queue) == [2]
    assert [item.order for item in queue] == [3, 4]
    assert len(queue) == 2


async def test_who_waits_lets_another_begin_and_comes_back_before_the_pending() -> None:
    queue = filled(1, 3)
    assert begun(queue) == [0]
    queue.give_way()
    assert begun(queue) == [1]

    back = asyncio.create_task(queue.come_back(0))
    await asyncio.sleep(0)
    assert not back.done()
    queue.end()
    await back

    assert begun(queue) == []
    queue.end()
    assert begun(queue) == [2]


async def test_the_oldest_of_those_that_come_back_is_first() -> None:
    queue = filled(1, 3)
    turns: list[int] = []
    for _ in range(3):
        begun(queue)
        queue.give_way()
    begun(queue)
    queue.add(work(9))
    assert begun(queue) == [9]

    async def come_back(order: int) -> None:
        await queue.come_back(order)
        turns.append(order)

    waiting = [asyncio.create_task(come_back(order)) for order in (2, 0, 1)]
    await asyncio.sleep(0)
    for _ in waiting:
        queue.give_way()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert turns == [0, 1, 2]


async def test_a_cancelled_return_takes_no_room() -> None:
    queue = filled(1, 2)
    begun(queue)
    queue.give_way()
    begun(queue)
    back = asyncio.create_task(queue.come_back(0))
    await asyncio.sleep(0)

    back.cancel()
    with pytest.raises(asyncio.CancelledError):
        await back
    queue.end()

    await asyncio.wait_for(queue.come_back(0), 1)


def test_those_that_wait_are_counted_too() -> None:
    queue = filled(1, 10, waiting_factor=2)

    for _ in range(3):
        assert len(begun(queue)) == 1
        queue.give_way()

    assert begun(queue) == []


def test_clearing_gives_back_what_has_not_begun() -> None:
    queue = filled(1, 3)
    begun(queue)

    assert [item.order for item in queue.clear()] == [1, 2]
    assert len(queue) == 0


def test_a_view_is_what_the_tutorial_shows() -> None:
    view = Work(Task("001.json", "sha", "sha"), 1, START, cursor={"offset": 3}).view("example")

    assert (view.provider, view.descriptor, view.id) == ("example", "001.json", "IjAwMS5qc29uIg==")
    assert (view.status, view.error, view.state, view.created_at) == (TaskStatus.PENDING, "", {"offset": 3}, START)
