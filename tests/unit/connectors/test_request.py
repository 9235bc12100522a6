"""Runs that an operator asks for: always a row, force, days, cancel, and going on where another life stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from connectors.runner import Runner, State
from connectors.source import Cursor, Request, Skipped, Task
from connectors.testing import Faults, ManualClock, Memory, RunRow, eventually, run_through, running
from schemas.errors import SourceMisconfigured, SourceUnavailable
from tests.unit.connectors.scripted import Script, ScriptedSource, make_runner

AWAY = SourceUnavailable("the source is away")
ASKED = UUID(int=7)


def asked(number: int = 7, **options: Any) -> Request:
    return Request(str(UUID(int=number)), **options)


async def served(runner: Runner, memory: Memory, request: Request, *, clock: ManualClock | None = None) -> RunRow:
    """The row of the run, once its source side is through."""
    runner.request(request, triggered_by="USER_123", run_type="MANUAL")
    run_id = UUID(request.id)
    async with running(runner):
        await eventually(lambda: run_id in memory.runs and memory.runs[run_id].status != "READING", clock=clock)
    return memory.runs[run_id]


async def test_a_run_that_was_asked_for_happens_at_once_under_its_own_id_and_names_who_asked() -> None:
    script, memory = Script(), Memory()
    runner = make_runner(script, memory)

    async with running(runner):
        await eventually(lambda: runner.status.listed_at is not None)
        script.objects["a"] = [["1"]]
        runner.request(asked(), triggered_by="USER_123", run_type="MANUAL")
        await eventually(lambda: memory.runs and memory.last_run.status == "READ")

    (row,) = memory.runs.values()
    assert list(memory.runs) == [ASKED]
    assert (row.triggered_by, row.run_type, row.counts.published, row.note) == ("USER_123", "MANUAL", 1, "")


async def test_a_run_that_finds_nothing_new_has_a_row_and_says_what_it_skipped() -> None:
    script, memory = Script({"a": [["1"]], "b": [["2"]]}, skipped=[Skipped("c", "not_at_rest")]), Memory()
    await run_through(make_runner(script, memory))

    row = await served(make_runner(script, memory, epoch=2), memory, asked())

    assert (row.status, row.counts.read, row.counts.skipped, row.problems) == ("READ", 0, 3, ())
    assert row.note == "skipped 1 not_at_rest (c), 2 done before (a, b)"
    assert len(memory.log) == 2


async def test_a_run_of_an_empty_source_says_that_there_was_nothing() -> None:
    row = await served(make_runner(Script(), memory := Memory()), memory, asked())

    assert (row.status, row.note) == ("READ", "there was nothing to read")


async def test_force_reads_what_is_done_once_more_with_the_same_events_and_revisions() -> None:
    script, memory = Script({"a": [["1"], ["2", "bad"]]}), Memory()
    await run_through(make_runner(script, memory))
    first = {event.id: event.lineage.revision_at for event in memory.events if event.lineage}

    row = await served(make_runner(script, memory, epoch=2), memory, asked(force=True))

    assert (row.status, row.counts.published, row.counts.rejected, row.note) == ("READ", 2, 1, "")
    assert len(memory.log) == 4
    assert {event.id: event.lineage.revision_at for event in memory.events if event.lineage} == first
    assert memory.state["a"].done


async def test_what_could_not_be_used_is_not_called_done_by_a_run_that_leaves_it() -> None:
    script, memory = Script({"a": [["bad 1"]], "b": [["2"]]}), Memory()
    await run_through(make_runner(script, memory))

    row = await served(make_runner(script, memory, epoch=2), memory, asked())

    assert row.note == (
        "skipped 1 failed before: no record could be used under this configuration (a), 1 done before (b)"
    )


async def test_what_is_in_the_hands_of_another_run_is_left_to_it_and_told() -> None:
    script, memory = Script({"a": [["1"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory)

    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)
        runner.request(asked(force=True))
        await eventually(lambda: ASKED in memory.runs and memory.runs[ASKED].status == "READ")

    assert memory.runs[ASKED].note == "skipped 1 in another run (a)"
    assert script.read_from == [("a", None)]


class Dated(ScriptedSource):
    """Heeds days: a task for each that was asked for."""

    requests: list[Request]

    def requested(self, known: Mapping[str, Cursor], request: Request) -> AsyncIterator[Sequence[Task | Skipped]]:
        self._script.__dict__.setdefault("requests", []).append(request)
        return self._days(request)

    async def _days(self, request: Request) -> AsyncIterator[Sequence[Task | Skipped]]:
        assert request.since
        key = f"day {request.since}"
        self._script.objects.setdefault(key, [["1"]])
        yield [Task(key, key, "days")]


async def test_a_source_that_heeds_days_is_asked_for_them_instead_of_its_listing() -> None:
    script, memory = Script(), Memory()
    request = asked(since=date(2025, 1, 8), until=date(2025, 1, 10))

    row = await served(make_runner(script, memory, source=Dated), memory, request)

    assert (row.status, row.counts.published) == ("READ", 1)
    assert script.__dict__["requests"] == [request]


async def test_a_listing_that_fails_is_tried_again_and_then_the_run_has_failed() -> None:
    script, memory, clock = Script(listing_errors=[AWAY] * 9), Memory(), ManualClock()

    row = await served(make_runner(script, memory, clock=clock, max_retries=2), memory, asked(), clock=clock)

    assert (row.status, row.reason) == ("FAILED", "the source is away")


async def test_a_run_outlasts_an_outage_of_its_source() -> None:
    script = Script({"a": [["1"]]}, skipped=[Skipped("c", "fifo")], listing_errors=[AWAY] * 2)
    memory, clock = Memory(), ManualClock()

    row = await served(make_runner(script, memory, clock=clock, max_retries=5), memory, asked(), clock=clock)

    assert (row.status, row.counts.published, row.counts.skipped) == ("READ", 1, 1)


async def test_a_source_that_needs_somebody_fails_the_run_and_pauses_the_connector() -> None:
    script, memory = Script(listing_errors=[SourceMisconfigured("no such bucket")]), Memory()
    runner = make_runner(script, memory)
    runner.request(asked())

    async with running(runner) as task:
        assert await asyncio.wait_for(task, 10) is State.PAUSED

    assert (memory.last_run.status, memory.last_run.reason) == ("FAILED", "no such bucket")


async def test_a_cancelled_run_ends_failed_and_the_connector_goes_on() -> None:
    script, memory = Script({"a": [["1"]], "b": [["2"]], "c": [["3"]]}, hang={"a", "b"}), Memory()
    runner = make_runner(script, memory, clock=(clock := ManualClock()), parallel=1)
    runner.request(asked())

    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)
        script.hang.clear()
        assert runner.cancel_request(ASKED)
        await eventually(lambda: memory.runs[ASKED].status == "FAILED")
        await eventually(lambda: [each.done for each in memory.state.values()] == [True] * 3, clock=clock)
        assert runner.state is State.RUNNING

    assert (memory.runs[ASKED].reason, memory.runs[ASKED].counts.published) == ("cancelled", 1)
    assert sorted(script.read_from[1:]) == [("a", {"batch": 1}), ("b", None), ("c", None)]


async def test_a_run_cancelled_before_it_began_never_lists() -> None:
    script, memory = Script(listing_hangs=True), Memory()
    runner = make_runner(script, memory, clock=(clock := ManualClock()), deadline_s=30)

    async with running(runner):
        await eventually(lambda: script.listings == 1)
        runner.request(asked())
        assert runner.cancel_request(ASKED) is False
        script.listing_hangs = False
        clock.advance(31)
        await eventually(lambda: script.listings == 2, clock=clock)

    assert memory.runs == {}


async def test_asking_again_for_a_run_under_way_changes_nothing() -> None:
    script, memory = Script({"a": [["1"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory)
    runner.request(asked())

    async with running(runner):
        await eventually(lambda: len(memory.log) == 1)
        listings = script.listings
        runner.request(asked())
        for _ in range(50):
            await asyncio.sleep(0)
        assert script.listings <= listings + 1  # the connector's own poll

    assert list(memory.runs) == [ASKED]


async def test_a_run_outlives_a_stop_and_the_next_runner_goes_on_with_its_counts() -> None:
    script, memory = Script({"a": [["1"], ["2", "bad"]], "b": [["3"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory, parallel=1)
    runner.request(asked())
    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 2)
        runner.stop()
        await asyncio.wait_for(task, 10)
    assert memory.runs[ASKED].status == "READING"

    script.hang.clear()
    row = await served(make_runner(script, memory, epoch=2, going_on=[ASKED]), memory, asked())

    assert (row.status, row.counts.published, row.counts.rejected) == ("READ", 3, 1)
    assert (row.problems, row.note) == ((), "")
    assert len(memory.log) == 3
    assert list(memory.runs) == [ASKED]


@pytest.mark.parametrize("force", [False, True])
async def test_a_run_survives_a_crash_at_any_step_under_its_id_and_its_counts_are_those_of_its_events(
    force: bool,
) -> None:
    """
    What the crashed life published and did not count is published again under the same run, where the sink counts
    each event once: so the counts must be those of the distinct events that carry the run's id.
    """
    script = Script({"a": [["1"], ["2", "bad"]], "b": [["3"]]})
    for step in range(1, 200):
        memory, faults = Memory(), Faults(crash_at=step)
        if force:
            await run_through(make_runner(script, memory))
            memory.log.clear()
            memory.letters.clear()
        crashed = make_runner(script, memory, epoch=2, faults=faults, stop_s=0.01)
        crashed.request(asked(force=force))
        async with running(crashed):
            await eventually(
                lambda faults=faults, memory=memory: (
                    faults.dead or (ASKED in memory.runs and memory.runs[ASKED].status != "READING")
                )
            )
        survived = not faults.dead

        row = await served(
            make_runner(script, memory, epoch=3, going_on=[ASKED]), memory, asked(force=force)
        ) if not survived else memory.runs[ASKED]  # fmt: skip

        of_the_run = {event.id for event in memory.events if event.lineage and event.lineage.run_id == ASKED}
        assert row.status == "READ", f"crash at step {step}: {row}"
        assert (row.counts.published, row.counts.rejected) == (3, 1), f"crash at step {step}"
        assert len(of_the_run) == 3, f"crash at step {step}"
        if survived:
            return
    raise AssertionError("it never came through")


async def test_a_task_that_the_source_lists_no_more_fails_the_run_that_had_begun_it() -> None:
    script, memory = Script({"a": [["1"], ["2"]]}, hang={"a"}), Memory()
    runner = make_runner(script, memory)
    runner.request(asked())
    async with running(runner) as task:
        await eventually(lambda: len(memory.log) == 2)
        runner.stop()
        await asyncio.wait_for(task, 10)

    row = await served(make_runner(Script(), memory, epoch=2, going_on=[ASKED]), memory, asked())

    assert (row.status, row.counts.published) == ("FAILED", 2)
    assert "not listed any more" in row.reason
