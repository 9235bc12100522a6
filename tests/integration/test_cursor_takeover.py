"""
Edits of cursors, as the owner of a connector's state sees to them: a real PostgreSQL, the state in memory, so that it
can lose what a crash loses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from connectors import directory
from connectors.clock import SystemClock
from connectors.known import Known, last_runs
from connectors.testing import START, Memory
from schemas.checkpoint import Checkpoint, Counts
from schemas.errors import Fenced
from sinks.mirror import CheckpointMirror
from sinks.pool import Pool, close_pool, connection, open_pool
from tests.database import migrated
from tests.integration.test_fleet import MemoryState, a_connector
from tillstream.control import connector as connectors
from tillstream.control import cursor_edit, edit
from tillstream.control import request as requests
from tillstream.control import run as runs
from tillstream.control.claim import claim
from tillstream.control.connector import ConnectorView
from tillstream.control.cursor_edit import CursorEditView, Edit
from tillstream.control.run import RunStatus
from tillstream.control.takeover import EDITED, Takeover, release, take_over

OLD = {"file": "a.csv", "stamp": "9-1"}
SHA = "a" * 64


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


@pytest.fixture
def state() -> MemoryState:
    return MemoryState(Memory())


@pytest.fixture
async def view(pool: Pool, tmp_path: Path) -> ConnectorView:
    """A connector that rests."""
    view = await a_connector(pool, tmp_path / "in")
    return await edit.pause(pool, view.id)


async def stands(pool: Pool, state: MemoryState, view: ConnectorView, **more: Any) -> Checkpoint:
    """Where its task stands: at its end, with rows of a batch that are out already."""
    known = {"epoch": 1, "seq": 5, "cursor": OLD, "done": True, "run_id": uuid4(), "part": ("00" * 16,)}
    times = {"revision_at": START, "updated_at": START}
    counts = Counts(read=3, published=3)
    told = {"connector_id": view.id, "task": SHA, "descriptor": "a.csv", "counts": counts, **known, **times, **more}
    checkpoint = Checkpoint.model_validate(told)
    state.memory.state[SHA] = checkpoint
    await CheckpointMirror(pool).mirror([checkpoint])
    return checkpoint


async def ask(pool: Pool, view: ConnectorView, cursor: dict[str, Any] | None, task: str = SHA) -> CursorEditView:
    return await cursor_edit.ask(pool, view, directory.SPEC, Edit(task, cursor, note="why"), silent_s=60)


async def taken_over(pool: Pool, state: MemoryState, view: ConnectorView, worker: str = "one") -> Takeover:
    took = await take_over(pool, state, view.id, worker=worker, clock=SystemClock())
    await release(pool, took.claim)
    return took


async def found(pool: Pool, asked: CursorEditView) -> CursorEditView:
    return await cursor_edit.find(pool, asked.connector_id, asked.id)


async def test_an_edit_empties_what_was_out_of_a_batch_and_keeps_what_the_object_is(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    before = await stands(pool, state, view)
    asked = await ask(pool, view, None)

    took = await taken_over(pool, state, view)

    after = state.memory.state[SHA]
    assert took.edits == {asked.id}
    assert (after.epoch, after.cursor, after.part, after.done) == (took.claim.epoch, None, (), False)
    assert (after.revision_at, after.run_id, after.counts) == (before.revision_at, before.run_id, before.counts)
    told = await found(pool, asked)
    assert (told.status, told.worker, told.ended_at is not None) == (cursor_edit.APPLIED, "one", True)


async def test_an_edit_is_seen_to_once_however_often_the_connector_is_taken_over(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    await stands(pool, state, view)
    await ask(pool, view, None)
    await taken_over(pool, state, view)
    saved = len(state.memory.saved)

    again = await taken_over(pool, state, view, "two")

    assert (again.edits, len(state.memory.saved)) == (frozenset(), saved)
    told = "SELECT count(*) FROM activity WHERE kind = 'cursor.edited'"
    assert await pool.fetchval(told) == 1


async def test_an_edit_that_was_written_by_one_who_died_is_told_and_not_written_again(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    await stands(pool, state, view)
    asked = await ask(pool, view, None)
    await taken_over(pool, state, view)
    row = "UPDATE cursor_edits SET status = 'pending', ended_at = NULL, checkpoint = NULL, applied_epoch = NULL"
    await pool.execute(f"{row}, applied_seq = NULL")
    saved = len(state.memory.saved)

    await taken_over(pool, state, view, "two")

    assert len(state.memory.saved) == saved
    told = await found(pool, asked)
    assert (told.status, told.worker) == (cursor_edit.APPLIED, "two")


async def test_an_edit_that_the_state_lost_with_its_last_writes_is_written_again(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    before = await stands(pool, state, view)
    await ask(pool, view, None)
    await taken_over(pool, state, view)
    state.memory.state[SHA] = before  # as the table's log had it

    took = await taken_over(pool, state, view, "two")

    after = state.memory.state[SHA]
    assert (after.cursor, after.done, after.epoch) == (None, False, took.claim.epoch)
    saved = len(state.memory.saved)
    await taken_over(pool, state, view, "three")
    assert len(state.memory.saved) == saved


async def test_what_was_read_since_an_edit_is_not_set_back(pool: Pool, state: MemoryState, view: ConnectorView) -> None:
    await stands(pool, state, view)
    await ask(pool, view, None)
    took = await taken_over(pool, state, view)
    read = await stands(pool, state, view, epoch=took.claim.epoch + 1, seq=9)

    await taken_over(pool, state, view, "two")

    assert state.memory.state[SHA] == read


async def test_a_task_that_moved_on_since_the_operator_looked_is_not_edited(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    await stands(pool, state, view)
    asked = await ask(pool, view, None)
    moved = await stands(pool, state, view, epoch=1, seq=6)

    await taken_over(pool, state, view)

    told = await found(pool, asked)
    assert (told.status, state.memory.state[SHA]) == (cursor_edit.REFUSED, moved)
    assert "moved on" in told.reason


async def test_an_edit_of_a_task_that_the_state_does_not_know_is_refused(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    await stands(pool, state, view)
    asked = await ask(pool, view, None)
    state.memory.state.clear()

    await taken_over(pool, state, view)

    assert (await found(pool, asked)).reason == "its worker knows no such task"


async def test_an_edit_by_who_is_succeeded_meanwhile_is_left_to_the_successor(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    """
    Whoever has claimed the connector since has announced it: what the older claim writes then is refused by the state.
    """
    await stands(pool, state, view)
    asked = await ask(pool, view, None)
    announce = state.announce

    async def and_then_another(connector_id: UUID, epoch: int) -> None:
        await announce(connector_id, epoch)
        newer = await claim(pool, connector_id, worker="two", table_epoch=epoch)
        of_two = {"epoch": newer.epoch, "task": "other"}
        state.memory.state["other"] = state.memory.state[SHA].model_copy(update=of_two)

    state.announce = and_then_another  # type: ignore[method-assign]

    with pytest.raises(Fenced):
        await take_over(pool, state, view.id, worker="one", clock=SystemClock())

    assert (await found(pool, asked)).status == cursor_edit.PENDING


async def test_a_run_that_would_go_on_with_the_task_ends_and_says_why(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    await edit.resume(pool, view.id)
    run_id = await requests.ask(pool, await connectors.find(pool, view.name), directory.SPEC)
    held = await claim(pool, view.id, worker="one", table_epoch=0)
    async with connection(pool) as reading:
        (asked_for,) = await requests.open_requests(reading, [view.id])
    assert await requests.take(pool, asked_for, held)
    await release(pool, held)
    await edit.pause(pool, view.id)
    await stands(pool, state, view, run_id=run_id, done=False)

    asked = await ask(pool, view, None)
    await taken_over(pool, state, view)

    assert any(str(run_id) in each for each in asked.follows)
    ended = await runs.find_run(pool, str(run_id))
    assert (ended.status, ended.reason) == (RunStatus.FAILED, EDITED)
    async with connection(pool) as reading:
        assert await requests.open_requests(reading, [view.id]) == []


async def test_a_crashed_life_ends_its_runs_though_a_cursor_of_it_was_edited(
    pool: Pool, state: MemoryState, view: ConnectorView
) -> None:
    first = await stands(pool, state, view, done=False)
    other = first.model_copy(update={"task": "b" * 64, "run_id": uuid4(), "seq": 4})
    state.memory.state[other.task] = other
    await ask(pool, view, None)
    await taken_over(pool, state, view)

    assert set(last_runs(state.memory.state.values())) == {first.run_id, other.run_id}
    known = Known()
    known.restore(state.memory.state.values())
    assert [known.take_edited(SHA), known.take_edited(SHA), known.take_edited(other.task)] == [True, False, False]
