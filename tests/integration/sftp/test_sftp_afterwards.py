"""What becomes of a file once all of it is durable, and never before."""

from __future__ import annotations

import hashlib

import asyncssh
import pytest

from connectors.testing import eventually, running
from schemas.errors import BrokerUnavailable
from tests.integration.sftp.world import HEADER, World, drop, hang, names, row, sign

MOVE = {"after_read": "move", "move_to": "done"}


@pytest.mark.parametrize(
    ("options", "left"), [(MOVE, ["done/a.csv", "done/a.csv.sha256"]), ({"after_read": "delete"}, [])]
)
async def test_a_file_is_put_away_with_its_checksum_once_its_last_checkpoint_is_durable(
    world: World, options: dict[str, str], left: list[str]
) -> None:
    sign(drop(world.folder, "a.csv", HEADER + row("a")))
    runner = world.start(checksum_ext=".sha256", **options)
    gate = world.faults.hold("save")
    async with running(runner):
        await eventually(lambda: world.memory.runs)
        assert names(world.folder) == ["a.csv", "a.csv.sha256"]
        world.faults.fail("save:done", BrokerUnavailable("away"), times=3)
        gate.set()
        await eventually(lambda: names(world.folder) == left, clock=world.clock)

    assert next(iter(world.memory.state.values())).done
    assert world.references[0] == "a"


async def test_a_file_that_changed_meanwhile_is_not_touched(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    runner = world.start(after_read="delete", max_retries=0)
    gate = world.faults.hold("publish:done")
    async with running(runner):
        await eventually(lambda: world.memory.log)
        drop(world.folder, "a.csv", HEADER + row("b") + row("c"), age=9)
        gate.set()
        await eventually(lambda: world.memory.last_run.status == "READ")
        assert names(world.folder) == ["a.csv"]
        await eventually(lambda: world.references == ["a", "b", "c"], clock=world.clock)
        await eventually(lambda: names(world.folder) == [], clock=world.clock)


async def test_a_file_replaced_in_the_moment_of_its_deletion_is_put_back(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def replace_it(*_: object) -> None:
        del world.server.hooks["rename"]
        drop(world.folder, "a.csv", HEADER + row("new") + row("er"), age=9)

    world.server.hooks["rename"] = replace_it
    async with running(world.start(after_read="delete")):
        await eventually(lambda: world.references == ["a", "new", "er"], clock=world.clock)


async def test_what_a_crash_left_undone_is_made_up_for(world: World) -> None:
    """
    Between the last checkpoint and the move nobody but the next life knows that something is left to do.
    """
    drop(world.folder, "a.csv", HEADER + row("a"))
    await world.read()
    assert names(world.folder) == ["a.csv"]

    async with running(world.start(**MOVE)):
        await world.polled()
        await world.poll()
        await eventually(lambda: names(world.folder) == ["done/a.csv"], clock=world.clock)

    assert world.references == ["a"]
    assert world.server.downloads("a.csv") == 1


@pytest.mark.parametrize(
    ("options", "left"), [(MOVE, ["done/a.csv", "done/a.csv.sha256"]), ({"after_read": "delete"}, [])]
)
async def test_a_checksum_whose_file_a_killed_worker_put_away_follows_it(
    world: World, options: dict[str, str], left: list[str]
) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))
    sign(path)
    await world.read(checksum_ext=".sha256")
    (world.folder / "done").mkdir()
    path.rename(world.folder / "done" / "a.csv") if left else path.unlink()

    async with running(world.start(checksum_ext=".sha256", **options)):
        await world.polled()
        await world.poll()
        await eventually(lambda: names(world.folder) == left, clock=world.clock)

    assert world.references == ["a"]
    assert world.server.downloads("a.csv") == 1


async def test_a_checksum_whose_move_broke_off_after_its_files_is_made_up_for(world: World) -> None:
    sign(drop(world.folder, "a.csv", HEADER + row("a")))

    async def cut(old: str, _: str) -> None:
        if old.endswith(".sha256") and world.server.hooks.pop("rename", None):
            world.server.cut()
            await hang()

    world.server.hooks["rename"] = cut
    async with running(world.start(checksum_ext=".sha256", **MOVE)):
        await world.polled()
        await eventually(lambda: names(world.folder) == ["done/a.csv", "done/a.csv.sha256"], clock=world.clock)

    assert world.references == ["a"]


async def test_a_new_checksum_that_comes_before_its_file_stays_for_it(world: World) -> None:
    """
    A bank uses a name again: what was read under it says nothing about the file to come.
    """
    gone = drop(world.folder, "a.csv", HEADER + row("a"))
    sign(gone)
    text = HEADER + row("b")
    async with running(world.start(checksum_ext=".sha256", **MOVE)):
        await eventually(lambda: not names(world.folder)[0].startswith("a.csv"), clock=world.clock)
        sign(gone, text.encode(), age=9)
        for _ in range(3):
            await world.poll()
        assert "a.csv.sha256" in names(world.folder)
        drop(world.folder, "a.csv", text, age=9)
        await eventually(lambda: world.references == ["a", "b"], clock=world.clock)


async def test_a_deletion_cut_short_is_made_up_for(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def cut(*_: object) -> None:
        if world.server.hooks.pop("remove", None):
            world.server.cut()
            await hang()

    world.server.hooks["remove"] = cut
    async with running(world.start(after_read="delete")):
        await world.polled()
        await eventually(lambda: names(world.folder) == [], clock=world.clock)

    assert world.references == ["a"]


async def test_a_file_that_may_not_be_moved_is_told_stays_and_is_not_read_again(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def deny(*_: object) -> None:
        raise asyncssh.SFTPPermissionDenied("read-only")

    world.server.hooks["rename"] = deny
    async with running(world.start(**MOVE)):
        await world.polled()
        await world.poll()
        assert world.problems == "a.csv: moving /a.csv to /done/a.csv: read-only"
        del world.server.hooks["rename"]
        await world.poll()
        await world.poll()
        assert names(world.folder) == ["done/a.csv"]
        assert world.runner.status.problems == ()

    assert world.references == ["a"]


async def test_moving_replaces_nothing(world: World) -> None:
    (world.folder / "done").mkdir()
    drop(world.folder / "done", "a.csv", "precious")
    path = drop(world.folder, "a.csv", HEADER + row("a"))
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    async with running(world.start(**MOVE)):
        await eventually(lambda: names(world.folder) == ["done/a.csv", f"done/a.csv.{mark}"], clock=world.clock)

    assert (world.folder / "done" / "a.csv").read_text() == "precious"


async def test_the_same_content_under_another_name_is_put_away_too(world: World) -> None:
    for age, name in enumerate("ab"):
        drop(world.folder, f"{name}.csv", HEADER + row("a"), age=age)

    async with running(world.start(**MOVE)):
        await world.polled()
        await eventually(lambda: names(world.folder) == ["done/a.csv", "done/b.csv"], clock=world.clock)

    assert world.references == ["a"]
