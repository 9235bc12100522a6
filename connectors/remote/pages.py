"""
Long work behind a source's listing: pages as they come, and an empty one each while, so that nobody thinks it dead.

Whoever waits for an empty page waits for work that bounds each of its own waits; else a hung server would look alive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from connectors.source import Skipped, Task

Page = Sequence[Task | Skipped]
Emit = Callable[[Page], None]
Item = TypeVar("Item")
Result = TypeVar("Result")

_GRACE_S = 2.0  # for work that was given up to let go


async def paged(work: Callable[[Emit], Awaitable[None]], *, every_s: float) -> AsyncIterator[Page]:
    """The pages that `work` emits, in order, and an empty one every so often. Raises what `work` raises."""
    ready: deque[Page] = deque()
    wake = asyncio.Event()

    def emit(page: Page) -> None:
        ready.append(page)
        wake.set()

    working = asyncio.ensure_future(work(emit))
    working.add_done_callback(lambda _: wake.set())
    try:
        while not working.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), every_s)
            wake.clear()
            if not ready and not working.done():
                yield ()
            while ready:
                yield ready.popleft()
        while ready:
            yield ready.popleft()
        working.result()
    finally:
        await _given_up([working])


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, parallel: int
) -> AsyncIterator[tuple[Item, Result]]:
    """Each item with what became of it, in the order of the items; `parallel` are worked on at a time."""
    places = asyncio.Semaphore(parallel)
    begun: deque[tuple[Item, asyncio.Task[Result]]] = deque()
    left = iter(items)

    async def one(item: Item) -> Result:
        async with places:
            return await work(item)

    try:
        while True:
            while len(begun) < 4 * parallel and (item := next(left, None)) is not None:
                begun.append((item, asyncio.create_task(one(item), name="remote file")))
            if not begun:
                return
            item, working = begun[0]
            result = await working
            begun.popleft()
            yield item, result
    finally:
        await _given_up([working for _, working in begun])


async def _given_up(works: Sequence[asyncio.Future[Result]]) -> None:
    """Cancel what is not done, and leave no exception unseen."""
    for each in works:
        each.cancel()
    if works:
        await asyncio.wait(works, timeout=_GRACE_S)
    for each in works:
        if each.done() and not each.cancelled():
            each.exception()
