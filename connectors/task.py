"""
Tasks as an operator sees them (seed 000): a descriptor, a status, an error; and the limit on how many run at a time.

    pending ──▶ active ──▶ terminated
                  │  └───▶ failed      (the next listing tries again, unless it is done)
                  └──────▶ stopped     (goes on where it stood after a restart)
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from connectors.source import Cursor, Task
from schemas import identity
from schemas.checkpoint import Counts


class TaskStatus(StrEnum):
    """The words of seed 000's task list."""

    PENDING = "pending"
    ACTIVE = "active"
    TERMINATED = "terminated"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TaskView:
    """One element of `GET /connectors/{name}/tasks`, under our names."""

    provider: str
    descriptor: str
    created_at: datetime
    status: TaskStatus
    error: str
    # the source's own cursor
    state: dict[str, Any]

    @property
    def id(self) -> str:
        """Seed 000's task id."""
        return identity.task_id(self.descriptor)


@dataclass(slots=True)
class Work:
    """One task in the hands of the runner: what is acknowledged of it, and how it fares."""

    task: Task
    order: int
    revision_at: datetime
    discovered: bool = False
    done: bool = False
    cursor: Cursor | None = None
    part: tuple[bytes, ...] = ()  # digests of the events after the cursor that are published nevertheless
    counts: Counts = field(default_factory=Counts)
    status: TaskStatus = TaskStatus.PENDING
    error: str = ""
    trouble: str = ""  # why its last attempt failed, while it waits for the next
    first_rejection: str = ""
    note: str = ""  # what an operator should know of it
    used: bool = False  # something of it was published or filtered, in this run or in one before
    in_doubt: bool = False  # something was sent and not acknowledged: it may be in the log, or not

    @property
    def is_unusable(self) -> bool:
        """Whether it has records, and none of them could be used."""
        return not self.used and 0 < self.counts.read == self.counts.rejected

    def view(self, provider: str) -> TaskView:
        """As an operator sees it."""
        return TaskView(
            provider, self.task.descriptor, self.revision_at, self.status, self.error, dict(self.cursor or {})
        )


class Queue:
    """
    Seed 000's `AllowTasks`: at most `limit` tasks run, the others are pending, the oldest starts first.

    A task that waits for its next attempt lets another one run, and comes before all pending ones when it returns.
    At most `limit * waiting_factor` are begun at a time, so that an outage does not begin everything.
    """

    def __init__(self, limit: int, *, waiting_factor: int = 4) -> None:
        self._limit = limit
        self._begun_limit = limit * (1 + waiting_factor)
        self._running = 0
        self._begun = 0
        self._pending: deque[Work] = deque()
        self._returning: list[tuple[int, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Work]:
        return iter(self._pending)

    def add(self, work: Work) -> None:
        """Append a task to the pending ones."""
        self._pending.append(work)

    def begin(self) -> Work | None:
        """The next task to run, if there is one and room for it."""
        if not self._pending or self._running >= self._limit or self._begun >= self._begun_limit or self._returning:
            return None
        self._running += 1
        self._begun += 1
        return self._pending.popleft()

    def end(self) -> None:
        """A running task is through."""
        self._begun -= 1
        self.give_way()

    def give_way(self) -> None:
        """A running task waits; `come_back` before it goes on."""
        self._running -= 1
        while self._returning and self._running < self._limit:
            _, turn = heapq.heappop(self._returning)
            if not turn.done():
                self._running += 1
                turn.set_result(None)

    async def come_back(self, order: int) -> None:
        """Wait for room, the oldest first. A cancelled wait takes no room."""
        if self._running < self._limit and not self._returning:
            self._running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._returning, (order, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_way()
            raise

    def squeeze_in(self) -> None:
        """Come back though there is no room, to end at once."""
        self._running += 1

    def clear(self) -> list[Work]:
        """Take back everything that has not begun."""
        left = list(self._pending)
        self._pending.clear()
        return left
