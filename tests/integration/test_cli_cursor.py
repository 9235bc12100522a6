"""Cursors as commands, over the API; the worker that sees to an edit is played by the service that it calls."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from connectors.clock import SystemClock
from connectors.testing import START, Memory
from schemas.checkpoint import Checkpoint
from sinks.mirror import CheckpointMirror
from sinks.pool import Pool, close_pool, open_pool
from tests.cli_kit import Till, commands, served
from tests.integration.api_kit import until
from tests.integration.test_fleet import MemoryState
from tillstream.api.v1 import cursor as shapes
from tillstream.cli.cursor import CURSOR_FIELDS, EDIT_FIELDS
from tillstream.cli.exit import ExitStatus
from tillstream.control.takeover import take_over

PLACE = {"file": "a.jsonl", "stamp": "9-9", "format": "jsonl", "offset": 40, "row": 2, "line": 3, "encoding": "utf-8"}


@pytest.fixture
def url(tmp_path: Path, database: str) -> Iterator[str]:
    with served(tmp_path / "home", database) as found:
        yield found


@pytest.fixture
def till(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str
) -> Iterator[Till]:
    with commands(monkeypatch, capsys, tmp_path, TILL_API_URL=url) as found:
        yield found


class Bank:
    """A paused connector whose tasks stand somewhere."""

    def __init__(self, url: str, database: str, folder: Path) -> None:
        body = {"name": "bank", "kind": "directory", "configuration": {"directory": str(folder)}, "status": "PAUSED"}
        self.url, self.database = url, database
        self.id = UUID(self.post("", body)["id"])
        self.state = MemoryState(Memory())

    # an object of the API
    def post(self, path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url}/api/v1/connectors{path}", json.dumps(body).encode(), headers)
        with urlopen(request) as answer:
            return json.load(answer)

    def stands(self, task: str, descriptor: str = "a.jsonl") -> None:
        """A worker's word."""
        checkpoint = Checkpoint(
            connector_id=self.id,
            task=task,
            descriptor=descriptor,
            run_id=uuid4(),
            epoch=1,
            seq=1,
            cursor=PLACE,
            revision_at=START,
            updated_at=START,
        )
        self.state.memory.state[task] = checkpoint
        asyncio.run(self._with_pool(lambda pool: CheckpointMirror(pool).mirror([checkpoint])))

    def work(self) -> None:
        """Be its worker, once somebody has asked for an edit."""

        async def once_asked(pool: Pool) -> None:
            await until(lambda: pool.fetchval("SELECT count(*) FROM cursor_edits WHERE status = 'pending'"))
            await take_over(pool, self.state, self.id, worker="one", clock=SystemClock())

        asyncio.run(self._with_pool(once_asked))

    # a coroutine function of a pool
    async def _with_pool(self, work: Any) -> None:
        pool = await open_pool(self.database, size=2, application="test", durable=False)
        try:
            await work(pool)
        finally:
            await close_pool(pool)


@pytest.fixture
def bank(url: str, database: str, tmp_path: Path) -> Bank:
    folder = tmp_path / "in"
    folder.mkdir()
    found = Bank(url, database, folder)
    found.stands("a" * 64)
    return found


@pytest.mark.parametrize(
    ("model", "fields"), [(shapes.CursorShape, CURSOR_FIELDS), (shapes.CursorEditShape, EDIT_FIELDS)]
)
def test_the_columns_of_csv_are_the_fields_of_the_apis_models(model: type[BaseModel], fields: tuple[str, ...]) -> None:
    assert tuple(model.model_fields) == fields


def test_cursors_are_listed_and_one_is_found_by_each_of_its_names(till: Till, bank: Bank) -> None:
    bank.stands("a/b c", "b.jsonl")

    listed = till.json("connector", "cursors", "bank")["data"]

    assert [each["task"] for each in listed] == ["a/b c", "a" * 64]
    for name in (listed[0]["ref"], "a/b c", "b.jsonl"):
        assert till.json("connector", "cursor", "show", "bank", name) == listed[0]
    assert till("connector", "cursor", "show", "bank", "c.jsonl").returncode == ExitStatus.NOT_FOUND
    bank.stands("c", "b.jsonl")
    several = till("connector", "cursor", "show", "bank", "b.jsonl")
    assert (several.returncode, listed[0]["ref"] in several.stderr) == (ExitStatus.CONFLICT, True)
    shown = till("connector", "cursor", "show", "bank", "a.jsonl")
    assert ["offset", "40"] in [line.split() for line in shown.stdout.splitlines()]


def test_an_edit_is_tried_asked_for_and_waited_for(till: Till, bank: Bank) -> None:
    edit = ("connector", "cursor", "edit", "bank", "a.jsonl", "-O", "offset=20", "-O", "row=1", "-O", "line=2")

    tried = till(*edit, "--dry-run")
    assert (tried.returncode, tried.stdout.splitlines()[0]) == (0, "  ~ cursor.offset: 40 -> 20")
    assert "read again" in tried.stderr
    assert till.json("connector", "cursor", "show", "bank", "a.jsonl")["pending"] is None

    worker = threading.Thread(target=bank.work, daemon=True)
    worker.start()
    done = till(*edit, "--note", "sent wrong", "--wait")

    worker.join(60)
    assert done.returncode == 0, done.stderr
    assert "is applied" in done.stderr
    assert bank.state.memory.state["a" * 64].cursor == {**PLACE, "offset": 20, "row": 1, "line": 2}


def test_a_reset_that_no_worker_sees_to_waits_and_says_so(till: Till, bank: Bank) -> None:
    late = till("connector", "cursor", "reset", "bank", "a.jsonl", "--wait", "--timeout", "1")

    assert late.returncode == ExitStatus.TIMED_OUT
    assert till.json("connector", "cursor", "show", "bank", "a.jsonl")["pending"] is not None
    again = till("connector", "cursor", "reset", "bank", "a.jsonl")
    assert (again.returncode, "waits for a worker" in again.stderr) == (ExitStatus.CONFLICT, True)
    bank.state.memory.state.clear()
    bank.work()
    assert till.json("connector", "cursor", "show", "bank", "a.jsonl")["pending"] is None


def test_a_whole_cursor_is_read_from_a_file_and_what_is_wrong_is_told_by_field(till: Till, bank: Bank) -> None:
    file = Path("cursor.json")
    file.write_text(json.dumps({**PLACE, "offset": -1}))

    wrong = till("connector", "cursor", "edit", "bank", "a.jsonl", "--file", str(file))
    same = till("connector", "cursor", "edit", "bank", "a.jsonl", "--file", str(file), "-O", "offset=40")
    nothing = till("connector", "cursor", "edit", "bank", "a.jsonl")

    assert (wrong.returncode, "cursor.offset" in wrong.stderr) == (ExitStatus.CONFIG, True)
    assert (same.returncode, "is so already" in same.stderr) == (0, True)
    assert nothing.returncode == ExitStatus.USAGE
    bank.post("/bank/resume", {})
    running = till("connector", "cursor", "reset", "bank", "a.jsonl")
    assert (running.returncode, "is not paused" in running.stderr) == (ExitStatus.CONFLICT, True)
