"""What a folder holds: names that lead elsewhere, listings without end, files at rest, known, asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from uuid import UUID

import asyncssh
import pytest

from connectors.remote import session
from connectors.runner import State
from connectors.source import Request, Task
from connectors.testing import ManualClock, eventually, running
from tests.integration.sftp.world import HEADER, LONG_AGO, POLL_S, World, drop, row, sign, told

# --- listings (F16, F19) ---


async def test_a_folder_that_is_not_there_is_told_and_read_once_it_is(world: World) -> None:
    async with running(world.start(remote_path="/later")):
        await eventually(lambda: world.runner.state is State.DEGRADED)
        assert "listing /later: no such file" in world.problems
        (world.folder / "later").mkdir()
        drop(world.folder / "later", "a.csv", HEADER + row("a"))
        await eventually(lambda: world.references == ["a"], clock=world.clock)


HOSTILE_NAMES = [
    b"../outside.csv",
    b"/etc/passwd.csv",
    b"sub/inside.csv",
    b"nul\0.csv",
    b"x" * 300 + b".csv",
    b"",
]


async def test_names_that_lead_elsewhere_are_never_asked_for(world: World) -> None:
    secret = drop(world.folder.parent, "outside.csv", HEADER + row("secret"))
    size = secret.stat().st_size

    async def names(*_: object) -> AsyncIterator[asyncssh.SFTPName]:
        async def each() -> AsyncIterator[asyncssh.SFTPName]:
            for name in HOSTILE_NAMES:
                yield told(name, size=size)
            yield told(b"link.csv", mode=0o120777)
            yield told(b"folder.csv", mode=0o040755)
            yield told(b"pipe.csv", mode=0o010644)
            yield told(b"good.csv", size=good.stat().st_size)

        return each()

    good = drop(world.folder, "good.csv", HEADER + row("good"))
    world.server.hooks["scandir"] = names

    async with running(world.start(pattern="*", format="csv")):
        await world.polled()
        skipped = world.runner.status.skipped

    assert world.references == ["good"]
    assert {name for operation, name in world.server.requests if operation == "open"} == {"good.csv"}
    assert skipped == {"unusable_name": len(HOSTILE_NAMES), "symlink": 1, "directory": 1, "fifo": 1}


async def test_links_and_folders_of_a_real_server_are_left_alone(world: World) -> None:
    secret = drop(world.folder.parent, "secret.csv", HEADER + row("secret"))
    (world.folder / "link.csv").symlink_to(secret)
    (world.folder / "sub.csv").mkdir()
    os.mkfifo(world.folder / "fifo.csv")
    drop(world.folder, "good.csv", HEADER + row("good"))

    await world.read()

    assert world.references == ["good"]


ODD_NAMES = [
    b"new\nline.csv",
    b"\x1b[31mred.csv",
    b"undecodable \xff\xfe.csv",
    b"back\\slash.csv",
    "größe.csv".encode(),
]


async def test_odd_names_are_read_and_shown_escaped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(ODD_NAMES):
        Path(os.fsdecode(os.fsencode(world.folder) + b"/" + name)).write_text(HEADER + row(f"r{number}"))

    await world.read()
    await world.read()

    assert sorted(world.references) == [f"r{number}" for number in range(len(ODD_NAMES))]
    shown = [event.lineage.path for event in world.memory.events if event.lineage]
    assert len(set(shown)) == len(ODD_NAMES)
    assert all(path.isprintable() for path in shown)
    assert all("\n" not in line.getMessage() and "\x1b" not in line.getMessage() for line in caplog.records)
    assert len(world.memory.runs) == 1


async def test_a_listing_without_end_pauses_and_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_ENTRIES", 1_000)
    given = 0

    async def names(*_: object) -> AsyncIterator[asyncssh.SFTPName]:
        async def each() -> AsyncIterator[asyncssh.SFTPName]:
            nonlocal given
            while True:
                given += 1
                yield told(f"{given}.csv".encode())

        return each()

    world.server.hooks["scandir"] = names

    assert await world.read() is State.PAUSED

    assert "more than 1000 names" in world.problems
    assert given < 5_000


async def test_twenty_thousand_known_files_cost_one_listing(world: World) -> None:
    files = 20_000

    async def names(*_: object) -> AsyncIterator[asyncssh.SFTPName]:
        async def each() -> AsyncIterator[asyncssh.SFTPName]:
            for number in range(files):
                yield told(f"{number:06d}.csv".encode())

        return each()

    world.server.hooks["scandir"] = names
    source = world.source()
    known = {
        hashlib.sha256(str(number).encode()).hexdigest(): {
            "file": f"{number:06d}.csv",
            "stamp": f"1:{int(LONG_AGO)}.000000000",
        }
        for number in range(files)
    }

    found = [item async for page in source.tasks(known) for item in page]

    assert len(found) == files
    assert all(isinstance(item, Task) for item in found)
    assert [operation for operation, _ in world.server.requests] == ["scandir"]
    await source.close()


# --- at rest, known, asked for (F4, F6, F7) ---


async def test_a_file_that_grows_is_read_only_when_it_rests(world: World) -> None:
    """
    Each look at it is a listing's own, or the second one of a listing that waits for the rest to pass.
    """
    path = drop(world.folder, "a.csv", HEADER + row("a"))

    async def grow(reference: str, age: float) -> None:
        with path.open("a") as file:
            file.write(row(reference))
        os.utime(path, (LONG_AGO + age, LONG_AGO + age))

    async with running(world.start(rest_s=17)):
        await eventually(lambda: world.clock.sleeps(17))
        for age, reference in enumerate("bcd", 1):
            await grow(reference, age)
            world.clock.advance(17)
            await world.polled()
            assert world.runner.status.skipped == {"not_at_rest": 1}
            world.clock.advance(POLL_S)
            await eventually(lambda: world.clock.sleeps(17 - POLL_S))
        assert world.memory.log == []
        world.clock.advance(17 - POLL_S)
        await eventually(lambda: world.references == ["a", "b", "c", "d"])


async def test_known_files_are_not_downloaded_again_also_after_a_restart(world: World) -> None:
    for name in ("a", "b"):
        drop(world.folder, f"{name}.csv", HEADER + row(name))
    async with running(world.start()):
        await world.polled()
        await world.poll()
    await world.read()

    assert sorted(world.references) == ["a", "b"]
    assert world.server.downloads("a.csv") == world.server.downloads("b.csv") == 1
    assert len(world.memory.runs) == 1


async def test_the_same_content_under_another_name_is_skipped_and_counted(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()):
        await world.polled()
        drop(world.folder, "b.csv", HEADER + row("a"))
        drop(world.folder, "c.csv", HEADER + row("c"))
        await world.poll()
        await eventually(lambda: not world.staged)

    assert world.references == ["a", "c"]
    assert [run.counts.skipped for run in world.memory.runs.values()] == [0, 1]


async def test_new_content_under_a_known_name_is_a_new_revision(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a", "x"))
    async with running(world.start()):
        await world.polled()
        drop(world.folder, "a.csv", HEADER + row("a", "y"), age=1)
        await world.poll()

    first, second = world.memory.events
    assert first.id != second.id
    assert first.lineage
    assert second.lineage
    assert first.lineage.revision_at < second.lineage.revision_at
    assert first.lineage.path == f"sftp://127.0.0.1:{world.server.port}/a.csv"


async def test_a_new_checksum_makes_an_unchanged_looking_file_be_looked_at(world: World) -> None:
    """
    SFTP tells whole seconds: a file that is replaced within one, by one of its size, looks the same.
    """
    path = drop(world.folder, "a.csv", HEADER + row("a", "x"))
    sign(path)
    async with running(world.start(checksum_ext=".sha256")):
        await world.polled()
        sign(drop(world.folder, "a.csv", HEADER + row("a", "y")), age=1)
        await world.poll()

    assert len(world.memory.events) == 2


async def test_with_force_known_files_are_downloaded_and_read_again_with_the_same_ids(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()):
        await world.polled()
        world.runner.request(Request(str(UUID(int=7)), force=True))
        await eventually(lambda: len(world.memory.log) == 2)
        await world.polled()
        await eventually(lambda: not world.staged)

    assert world.server.downloads("a.csv") == 2
    assert len(world.memory.event_ids) == 1


async def test_days_are_those_that_were_asked_for_or_looked_back_to(world: World) -> None:
    for day in (8, 9, 10, 11):
        drop(world.folder, f"AXIS_RECON_202601{day:02d}.csv", HEADER + row(f"r{day}"), age=-day)
    options = {"pattern": "AXIS_RECON_YYYYMMDD*.csv", "timezone": "Asia/Kolkata"}
    asked = Request("backfill", since=date(2026, 1, 9), until=date(2026, 1, 10))
    world.clock = ManualClock(world.clock.now().replace(day=9, hour=19))  # 0:30 of the 10th in Kolkata

    async def days(request: Request | None = None, **more: object) -> list[str]:
        found = await world.listed(request, **options, **more)
        return sorted(item.descriptor[-6:-4] for item in found if isinstance(item, Task))

    assert await days() == ["08", "09", "10", "11"]
    assert await days(look_back_days=1) == ["09", "10"]
    assert await days(asked, look_back_days=0) == ["09", "10"]
    assert await days(Request("now"), look_back_days=0) == ["10"]
