"""Files that a connector's mapping does not fit: told before they are read, when they are, and read again after."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors import directory
from connectors.context import SourceContext
from connectors.source import CheckStep
from connectors.testing import CONNECTOR, ManualClock, running
from tests.integration.test_directory import HEADER, World, drop, row


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "in"
    folder.mkdir()
    return World(folder)


async def checked(folder: Path, **options: object) -> CheckStep:
    """The last step of a check."""
    source = directory.SPEC.factory(
        directory.DirectoryConfig.model_validate({"directory": str(folder), **options}),
        SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()),
    )
    try:
        return (await source.check())[-1]
    finally:
        await source.close()


async def test_a_check_tries_the_mapping_on_the_newest_file(world: World) -> None:
    assert (await checked(world.folder)).detail == "no file yet"
    drop(world.folder, "old.csv", "hello world\n", mtime=1.0)
    size = drop(world.folder, "new.csv", HEADER + row("a") + row("b"), mtime=2.0).stat().st_size
    drop(world.folder, "newest.txt", "no file of ours", mtime=3.0)

    step = await checked(world.folder)

    assert (step.name, step.ok, step.detail) == (
        "read a file", True, f"new.csv: 2 records in its first {size} bytes",
    )  # fmt: skip


@pytest.mark.parametrize("column", [{"amount": "Betragg"}, {"scheme": "Netz"}])
async def test_a_check_fails_on_a_file_that_lacks_a_column_which_is_named(world: World, column: dict[str, str]) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    step = await checked(world.folder, columns=column)

    ((ours, theirs),) = column.items()
    assert not step.ok
    assert f'a.csv: the header has no column "{theirs}" for {ours}; it has "reference", "type"' in step.detail
    assert "columns" in step.hint


async def test_a_corrected_mapping_is_applied_to_the_files_that_were_of_no_use(world: World) -> None:
    drop(world.folder, "a.csv", HEADER.replace("amount", "Betrag") + row("a"))
    await world.read(columns={"amount": "Betragg"})
    (letter,) = world.memory.letters
    assert 'no column "Betragg" for amount' in letter.message

    await world.read(columns={"amount": "Betrag"}, version=2)

    assert world.references == ["a"]


async def test_a_column_that_is_named_and_not_there_is_told_and_costs_no_record(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    async with running(world.start(columns={"scheme": "Netz"})):
        await world.polled()
        assert world.references == ["a"]
        (problem,) = world.runner.status.problems
        assert problem.startswith('a.csv: the header has no column "Netz" for scheme')
        assert "columns" in world.runner.status.hint
        assert world.memory.last_run.note == problem
        drop(world.folder, "b.csv", HEADER.replace("\n", ",Netz\n") + row("b").replace("\n", ",visa\n"))
        await world.poll()
        assert world.runner.status.problems == ()
