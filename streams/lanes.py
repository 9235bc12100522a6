"""
Lanes: one per partition, each applying its slices in order, all of them at once.

    submit ─▶ queue ─▶ prepare (CPU: slice n+1) ─▶ apply (awaits PostgreSQL: slice n) ─▶ done(event)

`done` is called only after `apply` has returned, which means that the effect of every record of the slice is durable.
So whatever interrupts a lane (revocation, shutdown, kill -9) costs a redelivery and never a record.
An exception out of `prepare` or `apply` is a bug, or nothing to go on from: every lane stops, nothing more is done, and
`failed` tells the process to end. Expected errors are waited out inside `apply`.

Lanes know no Kafka and no Faust: they take anything that has a `Slice` for a value.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from streams.slice import Slice

log = logging.getLogger(__name__)

QUEUE_SLICES = 64  # far above what the transport lets a partition have in flight: a full queue is a bug
CANCEL_S = 1.0  # how long a cancelled `apply` may take to come back before it is left behind
_AHEAD = 2  # one slice being applied, one prepared

Prepared = TypeVar("Prepared")
Key = tuple[str, int]  # topic, partition


class Handed(Protocol):
    """The receipt of a slice: whether it is still ours to work on, and the word that the work is done."""

    @property
    def is_ours(self) -> bool:
        """False once the partition was revoked or rewound since the slice was handed out."""
        ...

    def finish(self) -> None:
        """Every effect of the slice is durable: an ack counts from now on, and not before."""
        ...


class SliceEvent(Protocol):
    """What a stream of slices yields: a Faust event, seen from here."""

    @property
    def value(self) -> Slice:
        """The slice."""
        ...

    @property
    def message(self) -> Any:
        """Its receipt, a `Handed`; Faust types it as its own message class."""
        ...


Done = Callable[[Any], Awaitable[object] | object]


class Lanes(Generic[Prepared]):
    """
    All the lanes of one process.

    `prepare` is CPU work on the event loop, with turns for others in between if it takes long; that of a slice runs
    while `apply` of the slice before it awaits.
    """

    def __init__(
        self, prepare: Callable[[Slice], Awaitable[Prepared]], apply: Callable[[Prepared], Awaitable[object]]
    ) -> None:
        self._prepare = prepare
        self._apply = apply
        self._lanes: dict[Key, _Lane[Prepared]] = {}
        self._leftover: dict[Key, asyncio.Task[None]] = {}
        self._closed = False
        self.failure: BaseException | None = None
        self._failed = asyncio.Event()

    @staticmethod
    def of(handle: Callable[[Slice], Awaitable[object]]) -> Lanes[Slice]:
        """Lanes with a single stage: `handle` returns once every effect of the slice is durable."""
        return Lanes(_as_it_is, handle)

    def submit(self, event: SliceEvent, *, done: Done) -> None:
        """
        Queue the slice behind those of its partition; `done(event)` is called when all its effects are durable.

        Slices of a partition that is no longer ours are dropped, and all of them once the lanes are closed.
        """
        handed: Handed = event.message
        if self._closed or self.failure is not None or not handed.is_ours:
            return
        key = (event.value.topic, event.value.partition)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self._prepare, self._apply, self._fail, after=self._leftover.pop(key, None))
        lane.put(_Work(event, done))

    async def revoke(self, partitions: Collection[Key], *, timeout_s: float) -> None:
        """
        Let the partitions go: drop what is queued, wait for the slices being applied, abandon them after `timeout_s`.

        An abandoned `apply` is cancelled. One that resists cancellation is left behind, and a new lane of the same
        partition begins only after it has ended.
        """
        lanes = {key: lane for key in partitions if (lane := self._lanes.pop(key, None))}
        ended = await asyncio.gather(*(lane.end(timeout_s) for lane in lanes.values()))
        for (key, lane), has_ended in zip(lanes.items(), ended, strict=True):
            if not has_ended:
                log.warning("a slice is left behind", extra={"facts": {"topic": key[0], "partition": key[1]}})
                self._leftover[key] = lane.applier

    async def close(self, *, timeout_s: float) -> None:
        """Take nothing more, and let every partition go."""
        self._closed = True
        await self.revoke(list(self._lanes), timeout_s=timeout_s)

    async def wait_failed(self) -> BaseException:
        """The exception that came out of `prepare` or `apply`, once there is one."""
        await self._failed.wait()
        assert self.failure is not None  # noqa: S101  set before the event
        return self.failure

    @property
    def busy(self) -> int:
        """Slices submitted and not done."""
        return sum(lane.pending for lane in self._lanes.values())

    def _fail(self, exc: BaseException) -> None:
        if self.failure is None:
            log.critical("a lane failed, the process ends", exc_info=exc)
            self.failure = exc
            self._failed.set()
        for lane in self._lanes.values():
            lane.cancel()


@dataclass(slots=True, eq=False)
class _Work:
    event: SliceEvent
    done: Done


class _Lane(Generic[Prepared]):
    """The two tasks of one partition."""

    def __init__(
        self,
        prepare: Callable[[Slice], Awaitable[Prepared]],
        apply: Callable[[Prepared], Awaitable[object]],
        fail: Callable[[BaseException], None],
        *,
        after: asyncio.Task[None] | None,
    ) -> None:
        self._prepare = prepare
        self._apply = apply
        self._fail = fail
        self._after = after
        self._submitted: asyncio.Queue[_Work] = asyncio.Queue(QUEUE_SLICES)
        self._prepared: asyncio.Queue[tuple[_Work, Prepared]] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(_AHEAD)
        self._ending = False
        self._abandoned = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.pending = 0
        self._preparer = self._task(self._prepare_all())
        self.applier = self._task(self._apply_all())

    def put(self, work: _Work) -> None:
        self.pending += 1
        self._submitted.put_nowait(work)

    def cancel(self) -> None:
        self._ending = self._abandoned = True
        self._preparer.cancel()
        self.applier.cancel()

    async def end(self, timeout_s: float) -> bool:
        """Finish the slice being applied, or abandon it after `timeout_s`. False if it resists even that."""
        self._ending = True
        self._preparer.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("a slice is abandoned: it will come again", extra={"facts": {"after_s": timeout_s}})
            self._abandoned = True
        self.applier.cancel()
        await asyncio.wait({self._preparer, self.applier}, timeout=CANCEL_S)
        return self.applier.done()

    async def _prepare_all(self) -> None:
        while True:
            await self._ahead.acquire()
            work = await self._submitted.get()
            self._prepared.put_nowait((work, await self._prepare(work.event.value)))

    async def _apply_all(self) -> None:
        if self._after is not None:
            await asyncio.wait({self._after})
        while not self._ending:
            work, prepared = await self._prepared.get()
            self._idle.clear()
            try:
                await self._apply(prepared)
                work.event.message.finish()
                acked = work.done(work.event)
                if inspect.isawaitable(acked):
                    await acked
            finally:
                self._idle.set()
            self.pending -= 1
            self._ahead.release()

    def _task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._ending:  # the handler cancelled itself: its slice is not done, and nobody would notice
                self._fail(asyncio.CancelledError("a handler was cancelled from within"))
        elif (exc := task.exception()) is not None:
            if self._abandoned:  # what a cancelled handler raises on its way out decides nothing
                log.warning("an abandoned slice ended with an error", exc_info=exc)
            else:
                self._fail(exc)


async def _as_it_is(whole: Slice) -> Slice:
    return whole
