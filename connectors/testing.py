"""
What tests of connectors run on: honest in-memory implementations of the ports, and time that a test drives.

The implementations can be told to fail, and to die: after `Faults.crash_at` nothing has an effect any more, as after
kill -9. What they hold (`Memory`) outlives that, as a broker and a database do.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from connectors.envelope import Connector
from connectors.ports import Message
from connectors.runner import Ports, Runner, State, Status
from schemas import codec
from schemas.checkpoint import Checkpoint, Counts
from schemas.errors import Fenced, RecordRejected
from schemas.event import ConnectorEvent
from schemas.letter import DeadLetter
from schemas.topic import EVENT_MAX_BYTES

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONNECTOR = Connector(UUID("0190a000-0000-7000-8000-000000000001"), "example", "example")
DEADLINE_S = 100.0
_LOOK_S = 0.001


async def eventually(condition: Callable[[], object], *, clock: ManualClock | None = None, tick_s: float = 1.0) -> None:
    """Wait until the condition holds, for `DEADLINE_S` at most. A clock is advanced by `tick_s` at each look."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {condition}")
        await asyncio.sleep(_LOOK_S)
        if clock is not None:
            clock.advance(tick_s)


class ManualClock:
    """Time that passes only when told to."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None], float]] = []
        self._count = itertools.count()
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The start plus what has passed."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        """What has passed."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Wait until told that so much has passed."""
        self.slept.append(seconds)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._count), turn, seconds))
        await turn

    def sleeps(self, seconds: float) -> bool:
        """Whether somebody waits for just so long: only then does `advance` reach them."""
        return any(asked == seconds and not turn.done() for _, _, turn, asked in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those whose time has come."""
        self._elapsed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            _, _, turn, _ = heapq.heappop(self._sleepers)
            if not turn.done():
                turn.set_result(None)


class Crashed(BaseException):
    """The process was killed here."""


class Faults:
    """
    Where the ports of one process fail. A call passes two points, `<name>` before its effect and `<name>:done` after.

    `publish` has a third between them, `publish:half`, after which half of the messages are in the log.
    """

    def __init__(self, *, crash_at: int | None = None) -> None:
        self.passed = 0
        self.dead = False
        self._crash_at = crash_at
        self._errors: dict[str, deque[BaseException]] = {}
        self._held: dict[str, asyncio.Event] = {}

    def fail(self, point: str, error: BaseException, *, times: int = 1) -> None:
        """Raise `error` at the next passages of `point`."""
        self._errors.setdefault(point, deque()).extend([error] * times)

    def hold(self, point: str) -> asyncio.Event:
        """Let nobody pass `point` until the event is set."""
        return self._held.setdefault(point, asyncio.Event())

    async def point(self, name: str) -> None:
        """Pass it, or not."""
        if self.dead:
            raise Crashed(name)
        self.passed += 1
        if self.passed == self._crash_at:
            self.dead = True
            raise Crashed(name)
        if name in self._held:
            await self._held[name].wait()
        if self._errors.get(name):
            raise self._errors[name].popleft()
        await asyncio.sleep(0)  # as a real port would, let others run


@dataclass(slots=True)
class RunRow:
    """A run as the run log knows it. `status` is READING, READ or FAILED."""

    connector_id: UUID
    triggered_by: str
    run_type: str
    status: str = "READING"
    counts: Counts = field(default_factory=Counts)
    problems: tuple[str, ...] = ()
    note: str = ""
    reason: str = ""


class MemoryPublisher:
    """The events topic: a list. Order within the list is the order of the log."""

    def __init__(self, memory: Memory, faults: Faults) -> None:
        self._memory = memory
        self._faults = faults

    async def publish(self, messages: Sequence[Message]) -> None:
        """As the real one: refuses an oversize batch whole, and may fail with some of it in the log."""
        if any(len(message.value) > EVENT_MAX_BYTES for message in messages):
            raise RecordRejected("too_large", "an event does not fit the topic")
        await self._faults.point("publish")
        half = len(messages) // 2
        self._memory.log.extend(messages[:half])
        await self._faults.point("publish:half")
        self._memory.log.extend(messages[half:])
        await self._faults.point("publish:done")
        self._memory.acknowledged += len(messages)


class MemoryDeadLetters:
    """The dead-letter topic."""

    def __init__(self, memory: Memory, faults: Faults) -> None:
        self._memory = memory
        self._faults = faults

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Append them."""
        await self._faults.point("dead_letter")
        self._memory.letters.extend(DeadLetter.model_validate_json(letter.model_dump_json()) for letter in letters)
        await self._faults.point("dead_letter:done")
        self._memory.acknowledged += len(letters)


class MemoryCheckpoints:
    """The state table. Checkpoints pass through JSON, and an older epoch is refused."""

    def __init__(self, memory: Memory, faults: Faults) -> None:
        self._memory = memory
        self._faults = faults

    async def load(self, connector_id: UUID) -> Mapping[str, Checkpoint]:
        """The newest of each task."""
        await self._faults.point("load")
        return {task: item for task, item in self._memory.state.items() if item.connector_id == connector_id}

    async def save(self, checkpoint: Checkpoint) -> None:
        """Keep it, if it is the newest of its task."""
        await self._faults.point("save")
        if any(known.epoch > checkpoint.epoch for known in self._memory.state.values()):
            raise Fenced(f"epoch {checkpoint.epoch} has been succeeded")
        stored = Checkpoint.model_validate_json(checkpoint.model_dump_json())
        self._memory.saved.append((stored, self._memory.acknowledged))
        if stored.newer_than(self._memory.state.get(stored.task)):
            self._memory.state[stored.task] = stored
        await self._faults.point("save:done")


class MemoryRunLog:
    """The run rows."""

    def __init__(self, memory: Memory, faults: Faults) -> None:
        self._memory = memory
        self._faults = faults

    async def open(self, run_id: UUID, connector_id: UUID, *, triggered_by: str, run_type: str) -> None:
        """Start it; again changes nothing."""
        await self._faults.point("run")
        self._memory.runs.setdefault(run_id, RunRow(connector_id, triggered_by, run_type))

    async def progress(self, run_id: UUID, counts: Counts) -> None:
        """Store the counts of a run that reads."""
        await self._faults.point("run")
        row = self._row(run_id)
        if row.status == "READING":
            row.counts = counts

    async def finish_reading(
        self, run_id: UUID, counts: Counts, *, problems: Sequence[str] = (), note: str = ""
    ) -> None:
        """Its source side is through."""
        await self._faults.point("run")
        row = self._row(run_id)
        if row.status == "READING":
            row.status, row.counts, row.problems, row.note = "READ", counts, tuple(problems), note

    async def fail(self, run_id: UUID, counts: Counts, *, reason: str) -> None:
        """It failed."""
        await self._faults.point("run")
        row = self._row(run_id)
        if row.status == "READING":
            row.status, row.counts, row.reason = "FAILED", counts, reason

    def _row(self, run_id: UUID) -> RunRow:
        return self._memory.runs.setdefault(run_id, RunRow(CONNECTOR.id, "", ""))


@dataclass(slots=True)
class Memory:
    """What outlives a process: the log, the letters, the state, the runs."""

    log: list[Message] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    state: dict[str, Checkpoint] = field(default_factory=dict)
    # every checkpoint, with how many events and letters were acknowledged before it
    saved: list[tuple[Checkpoint, int]] = field(default_factory=list)
    runs: dict[UUID, RunRow] = field(default_factory=dict)
    acknowledged: int = 0

    def ports(self, clock: Any, faults: Faults | None = None) -> Ports:  # Any: whichever implements Clock
        """The ports of one process."""
        faults = faults or Faults()
        return Ports(
            publisher=MemoryPublisher(self, faults),
            dead_letters=MemoryDeadLetters(self, faults),
            checkpoints=MemoryCheckpoints(self, faults),
            runs=MemoryRunLog(self, faults),
            clock=clock,
        )

    @property
    def events(self) -> list[ConnectorEvent]:
        """The log, decoded."""
        return [codec.decode_event(message.value) for message in self.log]

    @property
    def event_ids(self) -> set[str]:
        """The distinct events of the log."""
        return {event.id for event in self.events}

    @property
    def letter_ids(self) -> set[str]:
        """The distinct letters."""
        return {letter.id for letter in self.letters}

    @property
    def last_run(self) -> RunRow:
        """The newest run."""
        return list(self.runs.values())[-1]


def run_ids(seed: int = 0) -> Callable[[], UUID]:
    """Run ids that a test can repeat."""
    rng = random.Random(seed)
    return lambda: UUID(int=rng.getrandbits(128), version=4)


@asynccontextmanager
async def running(runner: Runner) -> AsyncIterator[asyncio.Task[State]]:
    """The runner at work; it is ended afterwards, whatever happened."""
    task = asyncio.create_task(runner.run(), name="runner")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=DEADLINE_S)


async def run_through(runner: Runner, *, clock: ManualClock | None = None) -> State:
    """Run until a listing has been worked off, and stop. A clock is advanced as needed, so that retries come."""
    async with running(runner) as task:
        await eventually(lambda: task.done() or is_through(runner.status), clock=clock)
        runner.stop()
        return await asyncio.wait_for(task, DEADLINE_S)


def is_through(status: Status) -> bool:
    """Whether a listing has been worked off."""
    return status.listed_at is not None and not (status.open_runs or status.active or status.pending)
