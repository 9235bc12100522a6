"""
Cursors edited by an operator, on a real broker and a real database: read again, skipped, and applied once wherever the
owner dies.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from connectors import directory
from connectors.files.rows import BATCH_ROWS
from schemas.checkpoint import Checkpoint
from schemas.errors import Conflict
from sinks.ledger import verify, verify_letters
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, until
from tillstream.control import connector, cursor_edit, run
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.cursor import CursorView, cursors_of
from tillstream.control.cursor_edit import CursorEditView, Edit
from tillstream.control.run import RunStatus, RunView

ROWS = 2_500  # two batches
MIDDLE = 1_800
SILENT_S = 2.0


def drop(folder: Path, *, rows: int = ROWS) -> list[str]:
    """A file as a partner leaves it; its lines."""
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"type": "payin", "reference": f"a{row}", "status": "succeeded", "asset": "USD", "amount": row})
        for row in range(1, rows + 1)
    ]
    written = folder / ".a.tmp"
    written.write_text("\n".join(lines) + "\n")
    written.rename(folder / "a.jsonl")
    return lines


def place(file: CursorView, lines: list[str], row: int) -> dict[str, Any]:
    """The cursor after so many rows of a file whose end `file` stands at."""
    assert file.cursor is not None
    offset = sum(len(line) + 1 for line in lines[:row])
    where = {"format": "jsonl", "offset": offset, "row": row, "line": row + 1, "encoding": "utf-8"}
    return {**where, "file": file.cursor["file"], "stamp": file.cursor["stamp"]}


async def a_connector(stage: Stage, name: str, folder: Path, **options: object) -> ConnectorView:
    configuration = {"directory": str(folder), "poll_s": 0.1, "rest_s": 0, "checkpoint_s": 0, **options}
    await connector.create(stage.pool, name=name, spec=directory.SPEC, configuration=configuration)
    return await connector.find(stage.pool, name)


async def stands(stage: Stage, view: ConnectorView) -> CursorView | None:
    """The cursor of its only task."""
    found = await cursors_of(stage.pool, view.id, limit=2)
    assert len(found) < 2
    return found[0] if found else None


async def cursor(stage: Stage, view: ConnectorView) -> CursorView:
    found = await stands(stage, view)
    assert found is not None
    return found


async def is_done(stage: Stage, view: ConnectorView) -> bool:
    found = await stands(stage, view)
    return found is not None and found.done


async def has_cursor(stage: Stage, view: ConnectorView) -> bool:
    found = await stands(stage, view)
    return found is not None and found.cursor is not None


async def pause(stage: Stage, view: ConnectorView) -> None:
    await connector.set_status(stage.pool, view.id, ConnectorStatus.PAUSED)


async def resume(stage: Stage, view: ConnectorView) -> None:
    await connector.set_status(stage.pool, view.id, ConnectorStatus.ACTIVE)


async def ask(stage: Stage, view: ConnectorView, wanted: dict[str, Any] | None) -> CursorEditView:
    """Edit its cursor as soon as its worker has let go of it."""
    taken: list[CursorEditView] = []

    async def is_taken() -> bool:
        now = await cursor(stage, view)
        edit = Edit(now.task, wanted, frozenset({now.etag}), "a test", "asha")
        try:
            taken.append(await cursor_edit.ask(stage.pool, view, directory.SPEC, edit, silent_s=SILENT_S))
        except Conflict as exc:
            if "in hand still" in str(exc):
                return False
            raise
        return True

    await until(is_taken, what="nobody has the connector in hand")
    return taken[0]


async def ended(stage: Stage, edit: CursorEditView) -> CursorEditView:
    found: list[CursorEditView] = []

    async def has_ended() -> bool:
        found.append(await cursor_edit.find(stage.pool, edit.connector_id, edit.id))
        return found[-1].status != cursor_edit.PENDING

    await until(has_ended, what="the edit has ended")
    return found[-1]


async def runs_of(stage: Stage, view: ConnectorView, *, count: int) -> list[RunView]:
    """Its runs, oldest first, once there are so many and all have ended: what they published is stored."""

    async def all_ended() -> bool:
        found = await run.list_runs(stage.pool, connector_id=view.id)
        return len(found) >= count and all(each.status is not RunStatus.RUNNING for each in found)

    await until(all_ended, what=f"{count} runs of {view.name} have ended")
    found = list(reversed(await run.list_runs(stage.pool, connector_id=view.id)))
    assert len(found) == count
    return found


async def balances(stage: Stage) -> bool:
    return not [*await verify(stage.pool), *await verify_letters(stage.pool)]


async def edits_told(stage: Stage, view: ConnectorView) -> list[asyncpg.Record]:
    query = "SELECT kind, facts, actor FROM activity WHERE connector_id = $1 AND kind LIKE 'cursor.%' ORDER BY id"
    return list(await stage.pool.fetch(query, view.id))


async def published(stage: Stage) -> Counter[str]:
    """How often each reference is in the log of events."""
    records = await oracle.records_of(stage.bootstrap, stage.events)
    return Counter(json.loads(record.value)["payment"]["reference"] for record in records)


def start(stage: Stage, *roles: str) -> list[Worker]:
    return [stage.worker(role, role=role, **CONNECTORS_SOON) for role in roles]


async def test_what_is_set_back_is_read_again_and_what_is_passed_over_is_in_no_count(
    stage: Stage, tmp_path: Path
) -> None:
    workers = start(stage, "connector", "sink", "monitor", "letters")
    lines = drop(tmp_path / "in")
    back = await a_connector(stage, "back", tmp_path / "in")
    await until(lambda: is_done(stage, back), what="the file is read")
    ahead = await a_connector(stage, "ahead", tmp_path / "in", consume_lag_s=604_800)  # nothing of it may go out yet
    await until(lambda: stands(stage, ahead), what="the file is met")
    file = await cursor(stage, back)
    middle = place(file, lines, MIDDLE)
    for view in (back, ahead):
        await pause(stage, view)
        asked = await ask(stage, view, middle)
        applied = await ended(stage, asked)
        assert (applied.status, applied.after) == (cursor_edit.APPLIED, middle)
        now = await cursor(stage, view)
        assert (now.cursor, now.done, now.pending) == (middle, False, None)
    options = {**ahead.configuration, "consume_lag_s": 0}
    await connector.configure(stage.pool, ahead, spec=directory.SPEC, configuration=options)

    for view in (back, ahead):
        await resume(stage, view)
        await until(lambda view=view: is_done(stage, view), what="the rest is read")  # type: ignore[misc]

    first, again = await runs_of(stage, back, count=2)
    _, rest = await runs_of(stage, ahead, count=2)
    await until(lambda: balances(stage), what="the ledger balances")
    assert (first.read, again.read, rest.read) == (ROWS, ROWS - MIDDLE, ROWS - MIDDLE)
    assert again.status is rest.status is RunStatus.SUCCESS
    assert "cursor that an operator set" in again.note
    assert "cursor that an operator set" in rest.note
    payments = await stage.pool.fetch("SELECT provider, count(*) FROM payments GROUP BY 1")
    assert dict(payments) == {"back": ROWS, "ahead": ROWS - MIDDLE}
    log = await published(stage)
    assert log["a1"] == log[f"a{MIDDLE}"] == 1
    assert log[f"a{MIDDLE + 1}"] == log[f"a{ROWS}"] == 3
    told = await edits_told(stage, back)
    assert [each["kind"] for each in told] == ["cursor.asked", "cursor.edited"]
    facts = json.loads(told[1]["facts"])
    assert (facts["before"], facts["after"], facts["note"]) == (file.cursor, middle, "a test")
    for worker in workers:
        assert await worker.stop() == 0


async def test_an_edit_is_applied_once_wherever_its_owner_dies(stage: Stage, tmp_path: Path) -> None:
    """
    Before it is written, written and not seen, seen and not told; and then the state is restored by another worker.
    """
    others = start(stage, "sink", "monitor", "letters")
    lines = drop(tmp_path / "in")
    view = await a_connector(stage, "bank", tmp_path / "in")
    (first,) = start(stage, "connector")
    await until(lambda: is_done(stage, view), what="the file is read")
    await runs_of(stage, view, count=1)
    await pause(stage, view)
    await first.says("Connector uninstalled")
    assert await first.stop() == 0
    middle = place(await cursor(stage, view), lines, MIDDLE)

    asked = await ask(stage, view, middle)
    for point in ("before_cursor_edit", "after_cursor_edit", "state_before_mirror"):
        victim = stage.worker(f"victim-{point}", role="connector", failpoints=f"{point}=kill", **CONNECTORS_SOON)
        assert await victim.ended() == -signal.SIGKILL, point
        assert (await cursor_edit.find(stage.pool, view.id, asked.id)).status == cursor_edit.PENDING
    survivor = stage.worker("survivor", role="connector", **CONNECTORS_SOON)
    assert (await ended(stage, asked)).status == cursor_edit.APPLIED
    assert (await cursor(stage, view)).cursor == middle
    assert await survivor.stop() == 0

    heir = stage.worker("heir", role="connector", **CONNECTORS_SOON)
    await resume(stage, view)
    await until(lambda: is_done(stage, view), what="the rest is read")

    _, again = await runs_of(stage, view, count=2)
    assert (again.read, again.status) == (ROWS - MIDDLE, RunStatus.SUCCESS)
    await until(lambda: balances(stage), what="the ledger balances")
    assert await stage.pool.fetchval("SELECT count(*) FROM payments") == ROWS
    log = await published(stage)
    assert {log[f"a{row}"] for row in range(1, MIDDLE + 1)} == {1}
    assert {log[f"a{row}"] for row in range(MIDDLE + 1, ROWS + 1)} == {2}
    written = await oracle.records_of(stage.bootstrap, stage.topics.connector_state.name)
    told = [Checkpoint.model_validate_json(record.value) for record in written if b'"edit":{' in (record.value or b"")]
    # who reads on says it, too, under an epoch of its own, as long as it has not moved
    assert sum(each.edit is not None and each.edit.epoch == 1 for each in told) == 1, "it was written once"
    assert [each["kind"] for each in await edits_told(stage, view)] == ["cursor.asked", "cursor.edited"]
    for worker in (heir, *others):
        assert await worker.stop() == 0


async def test_an_owner_that_was_frozen_does_not_undo_an_edit(stage: Stage, tmp_path: Path) -> None:
    """
    It freezes between a publish and its checkpoint, with a cursor behind the one that an operator sets.
    """
    lines = drop(tmp_path / "in", rows=2 * ROWS)  # three batches: at the second publish it is not through
    view = await a_connector(stage, "bank", tmp_path / "in")
    zombie = stage.worker("zombie", role="connector", failpoints="after_publish=stop@2", **CONNECTORS_SOON)
    await until(lambda: psutil.Process(zombie.process.pid).status() == psutil.STATUS_STOPPED, what="it freezes")
    await pause(stage, view)
    heir = stage.worker("heir", role="connector", **CONNECTORS_SOON)
    await until(lambda: has_cursor(stage, view), what="the first batch shows, by whoever reads of it")
    wanted = place(await cursor(stage, view), lines, 9)

    asked = await ask(stage, view, wanted)
    assert (await ended(stage, asked)).status == cursor_edit.APPLIED
    zombie.send(signal.SIGCONT)
    await until(lambda: refused(heir) or refused(zombie), what="its checkpoint is refused, by whoever reads it")
    await zombie.ready()

    assert (await cursor(stage, view)).cursor == wanted
    start(stage, "sink", "monitor", "letters")
    await resume(stage, view)
    await until(lambda: is_done(stage, view), what="the rest is read")
    await until(lambda: holds(stage, 2 * ROWS), what="every payment is there")
    await until(lambda: balances(stage), what="the ledger balances")
    log = await published(stage)
    assert {log[f"a{row}"] for row in range(1, 10)} == {1}, "only what the zombie published"
    assert min(log[f"a{row}"] for row in range(10, 2 * ROWS + 1)) >= 1
    assert min(log[f"a{row}"] for row in range(10, BATCH_ROWS + 1)) == 2, "the zombie's and the edit's"


async def holds(stage: Stage, payments: int) -> bool:
    return bool(await stage.pool.fetchval("SELECT count(*) FROM payments") == payments)


def refused(worker: Worker) -> bool:
    return "checkpoint of an outdated epoch refused" in worker.log


async def test_an_edit_while_it_runs_is_refused(stage: Stage, tmp_path: Path) -> None:
    drop(tmp_path / "in")
    view = await a_connector(stage, "bank", tmp_path / "in")
    start(stage, "connector")
    await until(lambda: is_done(stage, view), what="the file is read")
    now = await cursor(stage, view)

    with pytest.raises(Conflict, match="is not paused"):
        await cursor_edit.ask(stage.pool, view, directory.SPEC, Edit(now.task, None), silent_s=SILENT_S)

    assert (await cursor(stage, view)).pending is None
