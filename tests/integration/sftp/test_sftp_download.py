"""Checksums, and downloads that are cut, lied about and replaced; and where they lie."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import asyncssh
import pytest

from connectors.remote import download, staging
from connectors.runner import State
from connectors.source import Skipped, Task
from connectors.testing import CONNECTOR, eventually, running
from schemas.errors import SourceUnavailable
from tests.integration.sftp.world import HEADER, LARGE, LONG_AGO, Cutter, World, drop, hang, large, row, sign, told

# --- checksums (F18) ---


async def test_a_file_whose_checksum_does_not_match_is_never_read_until_either_changes(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))
    sign(path, b"something else")
    other = drop(world.folder, "b.csv", HEADER + row("b"), age=1)
    sign(other)

    async with running(world.start(checksum_ext=".sha256")):
        await world.polled()
        assert "a.csv: its SHA-256 is" in world.problems
        assert world.references == ["b"]
        await world.poll()
        assert world.server.downloads("a.csv") == 1
        sign(path, age=1)
        await world.poll()
        assert world.runner.status.problems == ()

    assert world.references == ["b", "a"]
    run = next(iter(world.memory.runs.values()))
    assert "a.csv" in run.problems[0]


async def test_a_checksum_is_awaited_until_grace_is_over_and_then_it_is_a_problem(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"), age=world.clock.now().timestamp() - LONG_AGO)

    async with running(world.start(checksum_ext=".sha256", grace_s=25)):
        await world.polled()
        await world.poll()
        assert world.runner.status.skipped == {"awaiting_checksum": 1}
        assert world.runner.state is State.RUNNING
        world.clock.advance(15)
        await world.poll()
        assert world.problems == "a.csv: there is no a.csv.sha256"
        assert world.server.downloads("a.csv") == 0
        drop(world.folder, "a.csv.sha256", "")
        await world.poll()
        assert world.problems == "a.csv: a.csv.sha256: it is empty"
        sign(path, age=1)
        await world.poll()

    assert world.references == ["a"]


async def test_restarts_do_not_begin_to_wait_for_a_checksum_anew(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"), age=world.clock.now().timestamp() - LONG_AGO)
    told = []

    for _ in range(3):
        async with running(world.start(checksum_ext=".sha256", grace_s=25)):
            await world.polled()
            await world.poll()
            told.append(world.problems)

    assert told == ["", "", "a.csv: there is no a.csv.sha256"]


async def test_a_file_that_keeps_an_old_time_has_until_the_next_look(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))

    async with running(world.start(checksum_ext=".sha256", grace_s=25)):
        await world.polled()
        assert world.runner.status.skipped == {"awaiting_checksum": 1}
        assert world.problems == ""
        sign(path)
        await world.poll()

    assert world.references == ["a"]


async def test_a_required_checksum_is_a_problem_from_the_start_and_an_unwanted_one_is_not_looked_at(
    world: World,
) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))

    found = await world.listed(checksum="required", checksum_ext=".sha256")
    sign(path, b"something else")
    (task,) = await world.listed(checksum="off", checksum_ext=".sha256", pattern="*", format="csv")

    assert found == [Skipped("a.csv", "no_checksum", "there is no a.csv.sha256")]
    assert isinstance(task, Task)


# --- downloads that are cut, lied about, and replaced (F2, F8) ---


async def test_a_cut_download_goes_on_where_it_was(world: World) -> None:
    text = large()
    drop(world.folder, "a.csv", text)
    world.server.hooks["read"] = cutter = Cutter(world.server, "a.csv", every_bytes=LARGE // 2, times=1)

    (task,) = await world.listed()

    assert isinstance(task, Task)
    assert task.key == hashlib.sha256(text.encode()).hexdigest()
    assert (world.server.downloads("a.csv"), cutter.left) == (2, 0)
    assert cutter.asked < len(text) + LARGE // 2


async def test_a_download_that_is_cut_again_and_again_gets_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "AHEAD_BYTES", 256 * 1_024)
    text = large()
    drop(world.folder, "a.csv", text)
    world.server.hooks["read"] = cutter = Cutter(world.server, "a.csv", every_bytes=700 * 1_024)

    await world.read()

    assert cutter.left < 1_000_000 - 3
    assert world.references == [f"r{n:06d}" for n in range(len(world.references))]
    assert len(world.references) == LARGE // 4_040
    assert list(world.memory.state) == [hashlib.sha256(text.encode()).hexdigest()]


async def test_a_file_that_always_breaks_the_connection_is_told_and_the_others_are_read(world: World) -> None:
    names = [f"{name}.csv" for name in "abcdef"]
    for age, name in enumerate(names):
        drop(world.folder, name, HEADER + row(name), age=age)
    world.server.hooks["read"] = Cutter(world.server, "b.csv", every_bytes=0)

    async with running(world.start(parallel=3)):
        await world.polled()

    assert sorted(world.references) == [name for name in names if name != "b.csv"]
    assert "b.csv: connection lost in downloading /b.csv" in world.problems
    assert world.memory.last_run.status == "READ"


async def test_a_file_that_hangs_is_told_and_the_others_are_read(world: World) -> None:
    for age, name in enumerate("abcd"):
        drop(world.folder, f"{name}.csv", HEADER + row(name), age=age)

    async def hang_in_b(name: str, *_: object) -> None:
        if name == "b.csv":
            await hang()

    world.server.hooks["read"] = hang_in_b

    async with running(world.start(parallel=2, answer_s=0.3)):
        await world.polled()

    assert sorted(world.references) == ["a", "c", "d"]
    assert "b.csv: timeout in downloading /b.csv" in world.problems


async def test_a_server_that_breaks_every_connection_is_told_as_itself(world: World) -> None:
    for age in range(30):
        drop(world.folder, f"{age}.csv", HEADER + row(str(age)), age=age)

    async def cut(*_: object) -> None:
        world.server.cut()

    world.server.hooks["read"] = cut

    with pytest.raises(SourceUnavailable, match="connection lost"):
        await world.listed(parallel=2)

    assert len(world.server.logins) < 30


@pytest.mark.parametrize("size", [1_000, 1_048_577])
async def test_a_server_that_answers_less_than_was_asked_for_is_read_right(world: World, size: int) -> None:
    text = large(1_048_576) + row("last")
    path = drop(world.folder, "a.csv", text)

    async def short(_: str, offset: int, wanted: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(min(wanted, size - offset % size))

    world.server.hooks["read"] = short

    (task,) = await world.listed()

    assert isinstance(task, Task)
    assert task.key == hashlib.sha256(text.encode()).hexdigest()


async def test_a_server_that_answers_more_than_was_asked_for_is_not_believed(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def more(_: str, offset: int, wanted: int) -> bytes:
        return b"x" * (wanted + 1)

    world.server.hooks["read"] = more

    (found,) = await world.listed()

    assert isinstance(found, Skipped)
    assert "more bytes than were asked for" in found.problem


@pytest.mark.parametrize(("size", "words"), [(10, "more bytes than the 10"), (10_000, "of its 10000 bytes")])
async def test_a_file_whose_size_is_a_lie_is_refused_once(world: World, size: int, words: str) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("b"), age=1)

    async def lie(name: str) -> asyncssh.SFTPAttrs | None:
        return told(b"a.csv", size=size).attrs if name == "a.csv" else None

    async def names(*_: object) -> AsyncIterator[asyncssh.SFTPName]:
        async def each() -> AsyncIterator[asyncssh.SFTPName]:
            yield told(b"a.csv", size=size)
            status = (world.folder / "b.csv").stat()
            yield asyncssh.SFTPName(b"b.csv", b"", asyncssh.SFTPAttrs.from_local(status))

        return each()

    world.server.hooks |= {"scandir": names, "fstat": lie, "lstat": lie}

    async with running(world.start()):
        await world.polled()
        await world.poll()
        assert words in world.problems

    assert world.references == ["b"]
    assert world.server.downloads("a.csv") == 1


async def test_a_file_larger_than_the_disk_is_told_and_smaller_ones_are_read(world: World) -> None:
    drop(world.folder, "small.csv", HEADER + row("small"))
    with (world.folder / "huge.csv").open("wb") as file:
        file.truncate(2**43)

    async with running(world.start()):
        await world.polled()
        assert "huge.csv: 8,388,608 MiB are needed in" in world.problems

    assert world.references == ["small"]
    assert world.server.downloads("huge.csv") == 0


async def test_a_disk_without_room_takes_no_downloads_until_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    with monkeypatch.context() as patch:
        patch.setattr(staging, "KEEP_FREE_BYTES", 2**62)

        (found,) = await world.listed()

    assert isinstance(found, Skipped)
    assert found.reason == "no_room"
    await world.read()
    assert world.references == ["a"]


async def test_a_file_replaced_while_it_is_downloaded_is_read_as_it_is_then(world: World) -> None:
    drop(world.folder, "a.csv", large())

    async def replace_it(name: str, offset: int, _: int) -> None:
        if offset > LARGE // 2 and world.server.hooks.pop("read", None):
            drop(world.folder, "new", HEADER + row("new"), age=9).replace(world.folder / "a.csv")
            world.server.cut()

    world.server.hooks["read"] = replace_it
    async with running(world.start()):
        await world.polled()
        assert world.memory.log == []
        await world.poll()

    assert world.references == ["new"]


async def test_a_download_does_not_go_on_in_another_file_that_looks_the_same(world: World) -> None:
    """
    Half of one file and half of another would be neither, and no one would know.
    """
    text = large()
    drop(world.folder, "a.csv", text)
    new = text.replace("succeeded", "cancelled")

    async def replace_it(name: str, offset: int, _: int) -> None:
        if offset > LARGE // 2 and world.server.hooks.pop("read", None):
            drop(world.folder, "a.csv", new)
            world.server.cut()

    world.server.hooks["read"] = replace_it

    (task,) = await world.listed()

    assert isinstance(task, Task)
    assert task.key == hashlib.sha256(new.encode()).hexdigest()


async def test_a_file_that_grows_while_it_is_downloaded_is_not_at_rest(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))

    async def grow(*_: object) -> None:
        del world.server.hooks["read"]
        with path.open("a") as file:
            file.write(row("b"))

    world.server.hooks["read"] = grow

    assert await world.listed() == [Skipped("a.csv", "not_at_rest")]
    await world.read()
    assert world.references == ["a", "b"]


async def test_a_file_that_may_not_be_read_is_told_and_the_others_are_read(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("b"))

    async def deny(name: str) -> None:
        if name == "a.csv":
            raise asyncssh.SFTPPermissionDenied("no\nway\x1b[31m")

    world.server.hooks["open"] = deny
    async with running(world.start()):
        await world.polled()
        assert world.problems == "a.csv: opening /a.csv: no\\u000away\\u001b[31m"

    assert world.references == ["b"]
    assert len(world.server.logins) == 1


async def test_an_empty_file_is_read_once(world: World) -> None:
    drop(world.folder, "a.csv", "")
    drop(world.folder, "b.csv", HEADER, age=1)

    await world.read()
    await world.read()

    (run,) = world.memory.runs.values()
    assert (run.status, run.counts.read) == ("READ", 0)
    assert [checkpoint.done for checkpoint in world.memory.state.values()] == [True, True]


# --- staging ---


async def test_staged_copies_are_gone_once_their_tasks_are_done(world: World) -> None:
    for name in "abc":
        drop(world.folder, f"{name}.csv", HEADER + row(name))
    gate = None
    runner = world.start()
    gate = world.faults.hold("publish")
    async with running(runner):
        await eventually(lambda: len(world.staged) == 3)
        gate.set()
        await world.polled()
        await eventually(lambda: world.staged == [])

    assert {path.name for path in world.staging.rglob("*")} == {str(CONNECTOR.id), ".lock"}


async def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    dead = world.staging / str(CONNECTOR.id) / "dead"
    dead.mkdir(parents=True)
    (dead / "x.part").write_text("half of it")
    living = world.source()
    (task,) = [item async for page in living.tasks({}) for item in page]
    assert not dead.exists()

    await world.read()

    batches = [batch async for batch in living.read(task, None)]
    assert sum(batch.read for batch in batches) == 1
    await living.close()


async def test_a_staged_copy_that_vanishes_is_brought_again(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    runner = world.start(max_retries=0)
    gate = world.faults.hold("save")
    async with running(runner):
        await eventually(lambda: any(len(name) == 64 for name in world.staged))
        for path in world.staging.rglob("*"):
            if path.is_file():
                path.unlink()
        gate.set()
        await eventually(lambda: world.memory.runs and world.memory.last_run.status == "FAILED")
        await eventually(lambda: world.references == ["a"], clock=world.clock)


async def test_downloads_wait_while_what_is_staged_is_not_read(world: World) -> None:
    for age, name in enumerate("abc"):
        drop(world.folder, f"{name}.csv", large(900_000).replace("r0", name), age=age)
    runner = world.start(staging_mib=1)
    gate = world.faults.hold("publish")
    async with running(runner):
        await eventually(lambda: len(world.staged) == 1 and world.memory.runs)
        await asyncio.sleep(0.2)  # in which the others would come
        assert len(world.staged) == 1
        assert world.server.downloads("b.csv") == 0
        gate.set()
        await world.polled()

    assert {reference[0] for reference in world.references} == {"a", "b", "c"}


async def test_downloads_show_in_the_status(world: World) -> None:
    drop(world.folder, "a.csv", large())
    gate = asyncio.Event()

    async def wait(_: str, offset: int, __: int) -> None:
        if offset > LARGE // 2:
            await gate.wait()

    world.server.hooks["read"] = wait
    async with running(world.start()):
        await eventually(lambda: world.runner.status.progress)
        (progress,) = world.runner.status.progress
        assert (progress.descriptor, progress.size_bytes) == ("a.csv", (world.folder / "a.csv").stat().st_size)
        gate.set()
        await world.polled()
        assert world.runner.status.progress == ()


async def test_a_connection_that_was_lost_between_two_listings_is_replaced(world: World) -> None:
    async with running(world.start()):
        await world.polled()
        world.server.cut()
        drop(world.folder, "a.csv", HEADER + row("a"))
        await world.poll()
        await world.poll()

    assert world.references == ["a"]
