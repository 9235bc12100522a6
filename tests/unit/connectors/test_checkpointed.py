"""What a source is told of checkpoints."""

from __future__ import annotations

from connectors.source import Cursor, Task
from connectors.testing import Faults, ManualClock, Memory, run_through
from schemas.errors import BrokerUnavailable
from tests.unit.connectors.scripted import Script, ScriptedSource, make_runner


class Listening(ScriptedSource):
    """Notes what it was told, and whether a checkpoint with it was durable then."""

    def __init__(self, script: Script, memory: Memory) -> None:
        super().__init__(script)
        self._memory = memory
        self.told: list[tuple[str, Cursor]] = []
        self.durable = True

    def checkpointed(self, task: Task, cursor: Cursor) -> None:
        self.told.append((task.key, cursor))
        self.durable = self.durable and self._memory.state[task.key].cursor == dict(cursor)


async def test_a_source_is_told_of_a_cursor_only_once_its_checkpoint_is_durable() -> None:
    script, memory, clock, faults = Script(objects={"a": [["p1"], ["p2"]]}), Memory(), ManualClock(), Faults()
    source = Listening(script, memory)
    faults.fail("save", BrokerUnavailable("away"), times=3)

    await run_through(make_runner(script, memory, clock=clock, faults=faults, source=lambda _: source), clock=clock)

    assert source.durable
    assert source.told[-1] == ("a", memory.state["a"].cursor)
    assert None not in [cursor for _, cursor in source.told]


async def test_a_source_is_told_nothing_by_an_owner_that_was_succeeded() -> None:
    script, memory, clock, faults = Script(objects={"a": [["p1"]]}), Memory(), ManualClock(), Faults()
    source = Listening(script, memory)
    await run_through(make_runner(script, memory, clock=clock, epoch=2), clock=clock)
    script.objects["b"] = [["p2"]]

    await run_through(make_runner(script, memory, clock=clock, faults=faults, source=lambda _: source), clock=clock)

    assert source.told == []
