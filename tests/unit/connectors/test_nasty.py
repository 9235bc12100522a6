"""Sources as strangers write them: they block, refuse to go, cancel themselves, raise anything. Each harms itself."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.runner import Runner, State
from connectors.source import Batch, CheckStep, Cursor, Skipped, Task
from connectors.testing import ManualClock, Memory, eventually, running
from connectors.thread import Threads, ThreadsByOwner, own_threads
from tests.unit.connectors.scripted import Script, ScriptedSource, make_runner


class Nasty(ScriptedSource):
    """Does in `read` what the key says, once; after that it behaves."""

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        trick = None if task.key in self._script.names else task.key
        self._script.names[task.key] = [task.key]
        if trick == "raises":
            raise KeyError("a bug")
        if trick == "cancels itself":
            raise asyncio.CancelledError
        if trick == "exits":
            sys.exit(3)
        if trick == "gives nonsense":
            yield "no batch"  # type: ignore[misc]
        if trick == "gives a cursor that is no JSON":
            yield Batch((), (), {"at": object()})
        async for batch in super().read(task, since):
            yield batch


@pytest.mark.parametrize(
    "trick", ["raises", "cancels itself", "exits", "gives nonsense", "gives a cursor that is no JSON"]
)
async def test_a_bug_in_a_source_is_told_and_tried_again(trick: str, caplog: pytest.LogCaptureFixture) -> None:
    memory, clock = Memory(), ManualClock()
    runner = make_runner(Script({trick: [["1"]]}), memory, clock=clock, source=Nasty)

    async with running(runner) as task:
        await eventually(lambda: runner.state is State.DEGRADED)
        assert "internal error in" in runner.status.problems[0]
        assert "bug in the source" in runner.status.hint
        await eventually(lambda: len(memory.log) == 1, clock=clock)
        await eventually(lambda: runner.state is State.RUNNING)
        assert not task.done()

    if trick != "cancels itself":
        assert any(record.exc_info for record in caplog.records)


class Strange(ScriptedSource):
    """Its listing is not what the contract says, once."""

    page: Any

    def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        self._script.listings += 1
        if self._script.listings == 1:
            raise ZeroDivisionError
        return self._strange() if self._script.listings == 2 else super().tasks(known)

    async def _strange(self) -> AsyncIterator[Sequence[Task | Skipped]]:
        yield self.page


@pytest.mark.parametrize(
    "page", [["a name"], None, [Task(Path("a"), "a", "a")], [Task("a", "", "a")], [Skipped("a", None)]]
)
async def test_a_bug_in_a_listing_is_told_and_the_next_one_comes(page: Any) -> None:
    memory, clock = Memory(), ManualClock()
    Strange.page = page
    runner = make_runner(Script({"a": [["1"]]}), memory, clock=clock, source=Strange)

    async with running(runner):
        await eventually(lambda: runner.status.problems == ("internal error in listing: ZeroDivisionError",))
        await eventually(lambda: "the listing gave" in str(runner.status.problems) or memory.log, clock=clock)
        await eventually(lambda: len(memory.log) == 1, clock=clock)


class Stubborn(ScriptedSource):
    """Swallows every cancellation while it reads, and never returns from `close`."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.released = asyncio.Event()

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        yield Batch((), (), {})
        await self._wait()

    async def close(self) -> None:
        self._script.closed += 1
        await self._wait()

    async def _wait(self) -> None:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue


def source_of(runner: Runner) -> Stubborn:
    assert isinstance(runner._source, Stubborn)
    return runner._source


async def test_a_source_that_heeds_no_cancellation_is_left_behind_and_counted() -> None:
    memory = Memory()
    runner = make_runner(Script({"a": [["1"]]}), memory, source=Stubborn, stop_s=0.1)

    async with running(runner) as task:
        await eventually(lambda: memory.saved and runner.status.active)
        runner.stop()
        assert await asyncio.wait_for(task, 15) is State.STOPPED
        assert runner.status.left_behind == 2

        source_of(runner).released.set()
        await eventually(lambda: runner.status.left_behind == 0)


class Blocking(ScriptedSource):
    """Blocks in a thread, as a client library does that has no timeout."""

    gate = threading.Event()

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        yield Batch((), (), {})
        await asyncio.to_thread(self.gate.wait, 60)

    async def check(self) -> Sequence[CheckStep]:
        return []


@pytest.fixture
async def threads_by_owner() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadsByOwner(max_workers=2))


async def test_threads_that_a_source_blocks_for_ever_are_its_own_and_are_counted(threads_by_owner: None) -> None:
    Blocking.gate = threading.Event()
    script = Script({f"file {n}": [[str(n)]] for n in range(8)})
    runner = make_runner(script, Memory(), source=Blocking, parallel=8, stop_s=0.1)

    try:
        async with running(runner) as task:
            await eventually(lambda: runner.status.left_behind == 8)
            assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 10) == 7  # ours are free
            runner.stop()
            assert await asyncio.wait_for(task, 15) is State.STOPPED
            assert runner.status.left_behind == 8
    finally:
        Blocking.gate.set()
    await eventually(lambda: runner.status.left_behind == 0)


async def test_a_call_outside_belongs_to_nobody(threads_by_owner: None) -> None:
    mine = Threads("mine")

    with own_threads(mine):
        inside = await asyncio.to_thread(lambda: threading.current_thread().name)
    outside = await asyncio.to_thread(lambda: threading.current_thread().name)

    assert inside.startswith("mine")
    assert not outside.startswith("mine")


class Trickling(ScriptedSource):
    """A stream that never ends: it fails once, comes back, and goes on as long as it is told to."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.more = asyncio.Event()

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        async for batch in super().read(task, since):
            yield batch
        await asyncio.Event().wait()


async def test_an_endless_task_is_well_again_once_it_progresses() -> None:
    script = Script({"changes": [["1"], ["2"]]}, recurring=True)
    script.reading_errors["changes"] = [ConnectionResetError()]
    memory, clock = Memory(), ManualClock()
    runner = make_runner(script, memory, clock=clock, source=Trickling, deadline_s=10_000)

    async with running(runner):
        await eventually(lambda: runner.state is State.DEGRADED)
        assert runner.status.open_runs == 0  # nothing was read yet: no run
        await eventually(lambda: len(memory.log) == 2, clock=clock)
        await eventually(lambda: runner.state is State.RUNNING)
        assert (runner.status.open_runs, runner.status.active) == (1, 1)
        assert memory.last_run.status == "READING"
