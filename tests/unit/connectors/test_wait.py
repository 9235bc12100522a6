from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator

import pytest

from connectors.files.thread import Threads
from connectors.testing import ManualClock, eventually
from connectors.wait import END, Backoff, Guard, Stopped, close_iterator, pause
from schemas.errors import SourceThrottled, SourceUnavailable

AWAY = SourceUnavailable("away")


async def numbers(*, then: asyncio.Event | None = None) -> AsyncIterator[int]:
    yield 1
    if then is not None:
        await then.wait()
    yield 2


async def test_items_come_through_and_the_end_is_told() -> None:
    items = numbers()
    async with Guard(seconds=1, clock=ManualClock(), stop=asyncio.Event()) as guard:
        assert [await guard.next(items, "x") for _ in range(3)] == [1, 2, END]


async def test_silence_is_given_up_and_named() -> None:
    clock, items = ManualClock(), numbers(then=asyncio.Event())
    async with Guard(seconds=30, clock=clock, stop=asyncio.Event()) as guard:
        await guard.next(items, "x")
        waiting = asyncio.create_task(guard.next(items, "reading a.csv"))
        await eventually(lambda: clock.sleeps(30))
        clock.advance(20)
        await asyncio.sleep(0)
        assert not waiting.done()
        await eventually(waiting.done, clock=clock)

    with pytest.raises(SourceUnavailable, match=r"timeout in reading a\.csv: silent for 30 s"):
        await waiting


async def test_an_await_that_heeds_no_cancellation_is_left_behind() -> None:
    """
    As when a library closes its connection over a network that is gone.
    """
    entered, forever = asyncio.Event(), asyncio.Event()

    async def stubborn() -> AsyncIterator[int]:
        while not forever.is_set():
            try:
                entered.set()
                await forever.wait()
            except asyncio.CancelledError:
                continue
        yield 1

    clock = ManualClock()
    async with Guard(seconds=5, clock=clock, stop=asyncio.Event()) as guard:
        waiting = asyncio.create_task(guard.next(stubborn(), "x"))
        await entered.wait()
        await eventually(waiting.done, clock=clock)
    forever.set()

    with pytest.raises(SourceUnavailable):
        await waiting


async def test_a_stop_ends_the_wait() -> None:
    stop, items = asyncio.Event(), numbers(then=asyncio.Event())
    async with Guard(seconds=30, clock=ManualClock(), stop=stop) as guard:
        await guard.next(items, "x")
        waiting = asyncio.create_task(guard.next(items, "x"))
        await asyncio.sleep(0)
        stop.set()
        with pytest.raises(Stopped):
            await waiting


async def test_a_pause_ends_with_its_time_or_with_a_stop() -> None:
    clock, stop = ManualClock(), asyncio.Event()
    pausing = asyncio.create_task(pause(10, clock=clock, stop=stop))
    await eventually(lambda: clock.sleeps(10))
    clock.advance(10)
    assert await pausing is False

    pausing = asyncio.create_task(pause(10, clock=clock, stop=stop))
    await eventually(lambda: clock.sleeps(10))
    stop.set()
    assert await pausing is True
    assert await pause(10, clock=clock, stop=stop) is True


async def test_closing_an_iterator_that_hangs_is_bounded() -> None:
    forever = asyncio.Event()

    async def hangs() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await forever.wait()

    iterator = hangs()
    await anext(iterator)
    began = time.monotonic()

    await close_iterator(iterator)
    await close_iterator(iter([]))  # type: ignore[arg-type]  # one that cannot be closed

    assert time.monotonic() - began < 10
    forever.set()


def test_pauses_double_up_to_their_limit_and_are_jittered() -> None:
    backoff = Backoff(1, 8, random.Random(1))

    ceilings = [max(backoff.pause_s(failures, AWAY) for _ in range(400)) for failures in range(1, 7)]

    assert [round(ceiling) for ceiling in ceilings] == [1, 2, 4, 8, 8, 8]
    assert min(backoff.pause_s(6, AWAY) for _ in range(400)) < 0.5
    assert backoff.pause_s(10_000, AWAY) <= 8


@pytest.mark.parametrize(("jitter", "least"), [(0, 4.0), (0.25, 3.0), (1, 0.0)])
def test_a_part_of_a_pause_is_left_to_chance(jitter: float, least: float) -> None:
    backoff = Backoff(1, 8, random.Random(1), jitter=jitter)

    pauses = [backoff.pause_s(3, AWAY) for _ in range(400)]

    assert least <= min(pauses) <= max(pauses) <= 4
    assert min(pauses) < least + 0.2
    assert len(set(pauses)) == (1 if jitter == 0 else 400)


def test_what_the_source_asks_for_is_the_least() -> None:
    pauses = [Backoff(1, 8, random.Random(n)).pause_s(1, SourceThrottled("x", retry_after_s=60)) for n in range(50)]

    assert 60 <= min(pauses) < max(pauses) <= 61


async def test_a_blocking_call_leaves_the_loop_free_and_gives_what_it_returns_or_raises() -> None:
    threads = Threads(limit=2)

    assert await threads.run(lambda x: x + 1, 1) == 2
    with pytest.raises(FileNotFoundError):
        await threads.run(open, "/nowhere/at/all")
    threads.close()


async def test_threads_are_used_again() -> None:
    threads = Threads(limit=4)

    names = [await threads.run(threading.get_ident) for _ in range(20)]

    assert len(set(names)) == 1
    threads.close()


async def test_calls_that_do_not_come_back_starve_nobody_and_cannot_pile_up() -> None:
    """
    A thread in the kernel cannot be cancelled; only its wait can.
    """
    threads, forever = Threads(limit=3), threading.Event()
    hanging = [asyncio.create_task(threads.run(forever.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    for task in hanging:
        task.cancel()
    assert await threads.run(lambda: "free") == "free"
    hanging.append(asyncio.create_task(threads.run(forever.wait)))
    await asyncio.sleep(0)
    with pytest.raises(SourceUnavailable, match="do not come back"):
        await threads.run(lambda: "no room")

    forever.set()
    await asyncio.wait(hanging)
    await eventually(lambda: threads._busy == 0)
    assert await threads.run(lambda: "free again") == "free again"
    threads.close()
