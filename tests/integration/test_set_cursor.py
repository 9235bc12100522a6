"""A cursor in a file that an operator set: it is held against the file before anything is read after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from connectors import directory
from connectors.context import SourceContext
from connectors.files import content, reading
from connectors.source import Batch, Task
from connectors.testing import CONNECTOR, ManualClock, eventually, running
from schemas.checkpoint import CursorEdit
from schemas.errors import SourceMisconfigured
from tests.integration.test_directory import HEADER, World, drop, row, world

__all__ = ["world"]

PAYIN = '{"reference": "%s", "type": "payin", "status": "succeeded", "asset": "EUR", "amount": 100}'
REFERENCES = [f"R-{number}é" for number in range(30)]
TEXTS: dict[str, str] = {
    "rows.csv": HEADER + "".join(row(each, '"of two\nlines, with ""quotes"""') for each in REFERENCES),
    "blank.csv": HEADER + "\n".join(row(each) for each in REFERENCES),
    "windows.csv": (HEADER + "".join(map(row, REFERENCES))).replace("\n", "\r\n"),
    "wrong.csv": HEADER + "".join(row(each) if "3" not in each else f"{each},payin\n" for each in REFERENCES),
    "lines.jsonl": "".join(f"{PAYIN % each}\n" for each in REFERENCES),
    "array.json": "[" + " ,\n ".join(PAYIN % each for each in REFERENCES) + "]",
    "values.json": "\n".join(PAYIN % each for each in REFERENCES),
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 200)
    monkeypatch.setattr(content.Content.block, "__defaults__", (200,))


def source_of(folder: Path) -> directory.DirectorySource:
    config = directory.DirectoryConfig(directory=str(folder), rest_s=0)
    return directory.DirectorySource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()))


async def task_of(source: directory.DirectorySource) -> Task:
    (task,) = [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]
    return task


# a source's own
async def read(source: directory.DirectorySource, task: Task, since: Any) -> list[Batch]:
    return [batch async for batch in source.read(task, since) if batch.read]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", list(TEXTS))
async def test_every_place_that_reading_came_to_can_be_set(tmp_path: Path, name: str, encoding: str) -> None:
    drop(tmp_path, name, TEXTS[name].encode(encoding))
    source = source_of(tmp_path)
    task = await task_of(source)
    whole = await read(source, task, None)
    assert len(whole) > 3

    for number, batch in enumerate(whole[:-1], start=1):
        left = await read(source, replace(task, is_set=True), batch.cursor)
        assert [each.position for one in left for each in one.records] == [
            each.position for one in whole[number:] for each in one.records
        ]

    await source.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"row": 4}, "not 4"),
        ({"row": 0}, "not 0"),
        ({"offset": 0}, "at byte 0 it is row 0"),
        ({"offset": 1}, "and none at"),
        ({"offset": -20}, "and none at"),
        ({"offset": 10_000_000}, "the file ends at byte"),
    ],
)
@pytest.mark.parametrize("name", ["rows.csv", "lines.jsonl", "array.json"])
async def test_a_place_that_is_none_is_refused_before_anything_is_read(
    tmp_path: Path, name: str, change: dict[str, int], why: str
) -> None:
    """`offset` is moved by so much, but for the beginning."""
    drop(tmp_path, name, TEXTS[name])
    source = source_of(tmp_path)
    task = await task_of(source)
    cursor = dict((await read(source, task, None))[2].cursor)
    if (moved := change.get("offset")) is not None:
        change = {"offset": cursor["offset"] + moved if moved else 0}

    with pytest.raises(SourceMisconfigured, match=why):
        await read(source, replace(task, is_set=True), {**cursor, **change})

    await source.close()


async def test_a_connector_with_such_a_cursor_publishes_nothing_however_often_it_tries(world: World) -> None:
    drop(world.folder, "a.csv", TEXTS["rows.csv"])
    await world.read()
    ((key, checkpoint),) = world.memory.state.items()
    cursor = dict((await _places(world.folder))[2])
    edit = CursorEdit(id=UUID(int=7), epoch=checkpoint.epoch)
    wrong = json.loads(json.dumps({**cursor, "row": cursor["row"] - 2}))
    world.memory.state[key] = checkpoint.model_copy(update={"cursor": wrong, "done": False, "edit": edit})
    published = len(world.memory.log)

    for _ in range(2):
        runner = world.start()
        async with running(runner) as ending:
            await eventually(ending.done, clock=world.clock)
        assert "which an operator set" in runner.status.problems[0]
        assert len(world.memory.log) == published
        kept = world.memory.state[key].edit
        assert kept is not None
        assert kept.id == edit.id


async def _places(folder: Path) -> list[Any]:
    source = source_of(folder)
    found = [batch.cursor for batch in await read(source, await task_of(source), None)]
    await source.close()
    return found
