"""What a source is told once an object is done with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from connectors.runner import State
from connectors.source import Progress, Task
from connectors.testing import Faults, ManualClock, Memory, run_through
from schemas.errors import BrokerUnavailable
from tests.unit.connectors.scripted import Script, ScriptedSource, make_runner


class Finishing(ScriptedSource):
    """Notes which checkpoints were durable when it was told."""

    def __init__(self, script: Script, memory: Memory) -> None:
        super().__init__(script)
        self._memory = memory
        self.finished: list[tuple[str, bool]] = []
        self.hangs = False

    async def finish(self, task: Task) -> None:
        self.finished.append((task.key, self._memory.state[task.key].done))
        if self.hangs:
            await asyncio.Event().wait()

    @property
    def progress(self) -> Sequence[Progress]:
        return [Progress("a", 1, 2)]


async def test_a_source_is_told_of_a_done_task_only_after_its_last_checkpoint() -> None:
    script, memory, clock, faults = Script(objects={"a": [["p1"]], "b": [["p2"]]}), Memory(), ManualClock(), Faults()
    source = Finishing(script, memory)
    faults.fail("save", BrokerUnavailable("away"), times=3)

    await run_through(make_runner(script, memory, clock=clock, faults=faults, source=lambda _: source), clock=clock)

    assert sorted(source.finished) == [("a", True), ("b", True)]


async def test_a_source_is_not_told_of_a_task_that_failed() -> None:
    script, memory, clock = Script(objects={"a": [["p1"]]}), Memory(), ManualClock()
    script.reading_errors["a"] = [BrokerUnavailable("away")] * 9
    source = Finishing(script, memory)

    await run_through(make_runner(script, memory, clock=clock, source=lambda _: source, max_retries=1), clock=clock)

    assert source.finished == []


async def test_a_source_that_hangs_when_told_holds_up_nothing() -> None:
    script, memory, clock = Script(objects={"a": [["p1"]], "b": [["p2"]]}), Memory(), ManualClock()
    source = Finishing(script, memory)
    source.hangs = True
    runner = make_runner(script, memory, clock=clock, source=lambda _: source, parallel=1)

    state = await run_through(runner, clock=clock)

    assert state is State.STOPPED
    assert memory.last_run.status == "READ"
    assert [key for key, _ in source.finished] == ["a", "b"]


async def test_a_status_shows_what_takes_long() -> None:
    script, memory = Script(), Memory()

    runner = make_runner(script, memory, source=lambda script: Finishing(script, memory))

    assert runner.status.progress == (Progress("a", 1, 2),)
