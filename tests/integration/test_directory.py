"""Every fault of a watched folder, on a real file system: what goes wrong, and what must come of it."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors import directory
from connectors.context import SourceContext
from connectors.files import content, listing, reading
from connectors.files.config import Format
from connectors.files.name import printable
from connectors.record import RawPolicy
from connectors.runner import Runner, State
from connectors.source import Skipped, Task
from connectors.testing import CONNECTOR, Faults, ManualClock, Memory, eventually, run_ids, run_through, running
from schemas import identity
from schemas.errors import SourceChanged, SourceUnavailable

HEADER = "reference,type,status,asset,amount,note\n"
POLL_S = 10.0
LONG_AGO = 1_700_000_000.0


def row(reference: str, note: str = "") -> str:
    return f"{reference},payin,succeeded,EUR,100,{note}\n"


def drop(folder: Path, name: str, text: str | bytes, *, mtime: float | None = LONG_AGO) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


class World:
    """A folder, what outlives processes, and a process that watches the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory = Memory()
        self.clock = ManualClock()
        self.faults = Faults()
        self.epoch = 0
        self.runner: Runner

    def start(self, version: int = 1, **options: object) -> Runner:
        self.epoch += 1
        self.faults = Faults()
        config = directory.DirectoryConfig.model_validate(
            {"directory": str(self.folder), "rest_s": 0, "poll_s": POLL_S, "checkpoint_s": 0, "stop_s": 1, **options}
        )
        ports = self.memory.ports(self.clock, self.faults)
        new_run_id = run_ids(self.epoch)
        connector = replace(CONNECTOR, version=version)
        self.runner = Runner(connector, directory.SPEC, config, ports, epoch=self.epoch, new_run_id=new_run_id)
        return self.runner

    async def read(self, version: int = 1, **options: object) -> None:
        await run_through(self.start(version, **options), clock=self.clock)

    async def polled(self) -> None:
        """Wait until the last listing has been worked off."""
        await eventually(lambda: self.clock.sleeps(POLL_S) and not self.runner.status.open_runs)

    async def poll(self) -> None:
        """Let the time of the next listing come, and pass."""
        before = self.runner.status.listed_at
        await self.polled()
        self.clock.advance(POLL_S)
        await eventually(lambda: self.runner.status.listed_at != before)
        await self.polled()

    @property
    def references(self) -> list[str]:
        return [event.payment.reference for event in self.memory.events if event.payment]

    @property
    def reasons(self) -> list[str]:
        return [letter.reason for letter in self.memory.letters]


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "in"
    folder.mkdir()
    return World(folder)


# --- F4: half-written, growing, renamed in ---


async def test_a_file_that_grows_is_read_only_when_it_rests(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"), mtime=None)

    async with running(world.start(rest_s=15)):
        await world.polled()
        for reference in ("b", "c", "d"):
            with path.open("a") as file:
                file.write(row(reference))
            await world.poll()
            assert world.memory.log == []
            assert world.runner.status.skipped == {"not_at_rest": 1}
        await world.poll()
        await world.poll()

    assert world.references == ["a", "b", "c", "d"]
    assert len(world.memory.runs) == 1


async def test_a_file_that_has_rested_for_long_is_read_at_once(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))

    await world.read(rest_s=3600)

    assert world.references == ["a"]


async def test_a_file_renamed_in_is_read_at_once(world: World) -> None:
    part = drop(world.folder, "a.csv.part", HEADER + row("a"), mtime=None)

    async with running(world.start(rest_s=3600)):
        await world.polled()
        assert world.runner.status.skipped == {"temporary": 1}
        part.rename(world.folder / "a.csv")
        await world.poll()

    assert world.references == ["a"]


async def test_a_hard_link_to_a_growing_file_is_no_rename(world: World) -> None:
    part = drop(world.folder, "a.part", HEADER + row("a"), mtime=None)

    async with running(world.start(rest_s=3600)):
        await world.polled()
        os.link(part, world.folder / "a.csv")
        await world.poll()

    assert world.memory.log == []


async def test_a_file_that_grows_while_it_is_read_is_no_success_and_its_whole_is_read_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 200)
    monkeypatch.setattr(content.Content.block, "__defaults__", (200,))
    first = [f"r{n}" for n in range(30)]
    path = drop(world.folder, "a.csv", HEADER + "".join(map(row, first)))

    runner = world.start(max_retries=1)
    gate = world.faults.hold("publish:done")
    async with running(runner):
        await eventually(lambda: world.memory.log)
        with path.open("a") as file:
            file.write(row("late"))
        gate.set()
        await eventually(lambda: len(world.memory.runs) == 2 and not runner.status.open_runs, clock=world.clock)

    failed, read = world.memory.runs.values()
    assert failed.status == "FAILED"
    assert "a.csv" in failed.reason
    assert (read.status, read.counts.published) == ("READ", 31)
    assert set(world.references) == {*first, "late"}


# --- F5 ---


async def test_a_cut_file_gives_what_is_whole_and_one_letter(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a") + "b,payin,succ")
    drop(world.folder, "b.json", '[{"reference":"c","type":"payin","status":"failed","asset":"EUR","amount":1},{"ref')
    drop(world.folder, "c.csv", HEADER + row("last")[:-1])

    await world.read(parallel=1)

    assert world.references == ["a", "c", "last"]
    assert [(letter.reason, letter.value_bytes()) for letter in world.memory.letters] == [
        ("truncated", b"b,payin,succ"),
        ("truncated", b'{"ref'),
    ]


# --- F6, F7: names and contents ---


async def test_new_content_under_a_known_name_is_a_new_revision_though_size_and_mtime_are_the_same(
    world: World,
) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a", "x"))
    async with running(world.start()):
        await world.polled()
        drop(world.folder, "a.csv", HEADER + row("a", "y"))
        assert path.stat().st_mtime == LONG_AGO
        await world.poll()

    first, second = world.memory.events
    assert first.id != second.id
    assert first.lineage
    assert second.lineage
    assert first.lineage.path == second.lineage.path
    assert first.lineage.revision_at < second.lineage.revision_at
    assert len(world.memory.runs) == 2


async def test_the_same_content_is_read_once_under_whatever_name(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("a"))
    (world.folder / "c.csv").hardlink_to(world.folder / "a.csv")
    async with running(world.start()):
        await world.polled()
        drop(world.folder, "d.csv", HEADER + row("a"))
        await world.poll()
        drop(world.folder, "e.csv", HEADER + row("b"))
        await world.poll()

    assert world.references == ["a", "b"]
    assert [run.counts.skipped for run in world.memory.runs.values()] == [2, 1]


async def test_a_renamed_or_touched_file_is_not_read_again(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()):
        await world.polled()
        os.utime(path)
        await world.poll()
        path.rename(world.folder / "b.csv")
        await world.poll()
    await world.read()

    assert (world.references, len(world.memory.runs)) == (["a"], 1)


async def test_unchanged_files_are_hashed_once_also_across_restarts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    hash_all = listing._hash_all
    monkeypatch.setattr(listing, "_hash_all", lambda f, e: (hashed.extend(x.name for x in e), hash_all(f, e))[1])
    for name in ("a", "b"):
        drop(world.folder, f"{name}.csv", HEADER + row(name))
    async with running(world.start()):
        await world.polled()
        await world.poll()
    await world.read()
    assert sorted(hashed) == ["a.csv", "b.csv"]

    drop(world.folder, "a.csv", HEADER + row("c"))
    await world.read()

    assert sorted(hashed) == ["a.csv", "a.csv", "b.csv"]


# --- F8: shrinks, vanishes, is replaced while it is read ---


@pytest.mark.parametrize("how", ["truncate", "unlink", "replace", "rewrite"])
async def test_a_file_that_does_not_keep_still_while_it_is_read_is_no_success(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 200)
    monkeypatch.setattr(content.Content.block, "__defaults__", (200,))
    path = drop(world.folder, "a.csv", HEADER + "".join(row(f"r{n}") for n in range(30)))
    runner = world.start(max_retries=0)
    gate = world.faults.hold("publish:done")

    async with running(runner):
        await eventually(lambda: world.memory.log)
        {
            "truncate": lambda: os.truncate(path, 100),
            "unlink": path.unlink,
            "replace": lambda: drop(world.folder, "b", "").replace(path),
            "rewrite": lambda: drop(world.folder, "a.csv", HEADER + "".join(row(f"s{n}") for n in range(30))),
        }[how]()
        gate.set()
        await eventually(lambda: world.memory.runs and world.memory.last_run.status == "FAILED")

    run = next(iter(world.memory.runs.values()))
    assert "a.csv changed while it was read" in run.reason
    assert run.counts.balanced
    assert not world.memory.state[next(iter(world.memory.state))].done


async def test_bytes_that_are_not_those_that_were_hashed_are_not_published(world: World) -> None:
    """
    As after a write through a memory map, which may change a file long before its times.
    """
    drop(world.folder, "a.csv", HEADER + row("a"))
    source = directory.DirectorySource(
        directory.DirectoryConfig(directory=str(world.folder), rest_s=0),
        SourceContext(CONNECTOR.id, CONNECTOR.name, world.clock),
    )
    (task,) = [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]
    hashed = replace(task, key="0" * 64, source_object="0" * 64)

    reading = source.read(hashed, None)
    with pytest.raises(SourceChanged, match="had other content when it was read"):
        await anext(reading)

    await source.close()


async def test_a_file_that_vanishes_between_listing_and_reading_fails_and_others_go_on(world: World) -> None:
    path = drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("b"), mtime=LONG_AGO + 1)
    runner = world.start(max_retries=0, parallel=1)
    gate = world.faults.hold("save")

    async with running(runner):
        await eventually(lambda: runner.status.pending == 1)
        path.unlink()
        gate.set()
        await world.polled()

    assert world.references == ["b"]
    assert (world.memory.last_run.status, "no such file" in world.memory.last_run.reason) == ("FAILED", True)


# --- F10 ---


@pytest.mark.parametrize("data", [b"", HEADER.encode(), b"\n\n  \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
async def test_an_empty_file_is_done_and_not_tried_for_ever(world: World, data: bytes, name: str) -> None:
    if data == HEADER.encode() and name != "a.csv":
        data = b" \n"
    drop(world.folder, name, data)

    async with running(world.start()):
        await world.polled()
        await world.poll()
    await world.read()

    assert [(run.status, run.counts.read) for run in world.memory.runs.values()] == [("READ", 0)]
    assert world.memory.letters == []


# --- F11, F12, F15: through the whole path ---


async def test_raw_bytes_of_a_bad_row_are_those_of_the_file(world: World) -> None:
    bad = b"b,payin,succeeded,EUR,100,\xff\xfe\r\n"
    drop(world.folder, "a.csv", b"\xef\xbb\xbf" + HEADER.encode() + row("a").encode() + bad + row("c").encode())

    await world.read()

    (letter,) = world.memory.letters
    assert letter.value_bytes() == bad
    assert (letter.line, letter.position, letter.reason) == (3, "row 2", "invalid_encoding")
    assert letter.path == f"{world.folder}/a.csv"
    assert world.references == ["a", "c"]


async def test_a_utf_16_file_is_read_like_any_other(world: World) -> None:
    drop(world.folder, "a.csv", (HEADER + row("größe")).encode("utf-16"))

    await world.read()

    assert world.references == ["größe"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.csv", "reference,reference,type\n1,2,3\n", "duplicate_column"),
        ("a.csv", "reference;type\n1;2\n", "missing_column"),
        ("a.csv", "hello world\n", "missing_column"),
        ("a.json", b"\xff\xfe\x00\x00", "unsupported_encoding"),
    ],
)
async def test_a_file_that_cannot_be_read_at_all_is_one_rejected_record_with_all_its_bytes(
    world: World, name: str, data: str | bytes, reason: str
) -> None:
    path = drop(world.folder, name, data)

    await world.read()

    (letter,) = world.memory.letters
    assert (letter.reason, letter.position, letter.value_bytes()) == (reason, "object", path.read_bytes())
    counts = world.memory.last_run.counts
    assert (counts.read, counts.rejected, counts.balanced) == (1, 1, True)
    assert [view.status for view in world.runner.tasks()][1:] == ["failed"]


async def test_a_file_too_large_for_a_letter_is_marked_with_its_size_and_hash(world: World) -> None:
    path = drop(world.folder, "a.csv", "no header\n" * 600_000)

    await world.read()

    (letter,) = world.memory.letters
    assert letter.truncated
    assert letter.size_bytes == path.stat().st_size
    assert letter.sha256 == next(iter(world.memory.state))
    assert letter.value_bytes() == path.read_bytes()[: 2 * 1_048_576]


async def test_malformed_json_fails_its_task_and_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    drop(world.folder, "a.json", "{oops}")
    drop(
        world.folder,
        "b.json",
        json.dumps({"reference": "b", "type": "payin", "status": "failed", "asset": "EUR", "amount": 1}),
    )

    await world.read()

    by_name = {view.descriptor: view for view in world.runner.tasks()}
    assert by_name["a.json"].status == "failed"
    assert "at character 1" in by_name["a.json"].error
    assert by_name["b.json"].status == "terminated"


# --- F13 ---


async def test_what_a_spreadsheet_would_run_is_published_as_it_is(world: World) -> None:
    values = ["=cmd()", "+1", "-1", "@x", "'quoted"]
    drop(world.folder, "a.csv", HEADER + "".join(map(row, values)))

    await world.read(raw=RawPolicy.RECORD)

    assert world.references == values
    assert [event.payment.raw for event in world.memory.events if event.payment] == [row(v)[:-1] for v in values]


# --- F16: what is no file of ours ---


async def test_only_regular_files_of_the_folder_are_read(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = drop(outside, "secret.csv", HEADER + row("secret"))
    (world.folder / "link.csv").symlink_to(secret)
    (world.folder / "relative.csv").symlink_to("../outside/secret.csv")
    (world.folder / "zero.csv").symlink_to("/dev/zero")
    (world.folder / "folder.csv").symlink_to(outside)
    (world.folder / "dangling.csv").symlink_to("nowhere")
    (world.folder / "sub.csv").mkdir()
    os.mkfifo(world.folder / "fifo.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(world.folder / "s.csv"))
        drop(world.folder, "good.csv", HEADER + row("good"))

        await world.read()

    assert world.references == ["good"]
    assert world.runner.status.skipped == {"symlink": 5, "directory": 1, "fifo": 1, "socket": 1}
    assert world.runner.status.problems == ()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "gone"])
async def test_what_takes_a_files_place_after_the_listing_is_not_opened(
    world: World, tmp_path: Path, kind: str
) -> None:
    """
    A FIFO must not block, and a link must not be followed, though the listing saw a regular file.
    """
    path = world.folder / "a.csv"
    secret = drop(tmp_path, "secret.csv", HEADER + row("secret"))
    {
        "symlink": lambda: path.symlink_to(secret),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "gone": lambda: None,
    }[kind]()
    began = time.monotonic()

    with pytest.raises(OSError):  # noqa: PT011 - each kind has its own
        content.open_regular(str(world.folder), "a.csv")

    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", ["../outside.csv", "/etc/passwd", "a/../../x"])
async def test_a_name_that_leaves_the_folder_is_never_listed(world: World, name: str) -> None:
    drop(world.folder.parent, "outside.csv", HEADER + row("secret"))

    await world.read(pattern=f"*{name}*")

    assert world.memory.log == []


ODD_NAMES = [
    b"new\nline.csv",
    b"tab\tand\rreturn.csv",
    "\N{RIGHT-TO-LEFT OVERRIDE}vsc.exe.csv".encode(),
    "\N{GRINNING FACE}.csv".encode(),
    b"undecodable \xff\xfe.csv",
    b"quote\"'.csv",
    b"back\\slash.csv",
    b"back\\x5cslash.csv",
    b"%s {} $HOME.csv",
    b"x" * 251 + b".csv",
    "\N{GRINNING FACE}".encode() * 62 + b".csv",
    b" leading and trailing .csv",
    b"-rf.csv",
    b"\x1b[31mred.csv",
]


async def test_odd_names_are_read_and_shown_escaped(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for number, name in enumerate(ODD_NAMES):
        path = os.fsencode(world.folder) + b"/" + name
        Path(os.fsdecode(path)).write_text(HEADER + row(f"r{number}"))

    await world.read()
    await world.read()

    assert sorted(world.references) == sorted(f"r{number}" for number in range(len(ODD_NAMES)))
    assert len(world.memory.runs) == 1
    shown = [view.descriptor for view in world.runner.tasks()] + [
        event.lineage.path for event in world.memory.events if event.lineage
    ]
    assert all(name.isprintable() for name in shown)
    assert len({event.lineage.path for event in world.memory.events if event.lineage}) == len(ODD_NAMES)
    assert all("\n" not in record.getMessage() and "\x1b" not in record.getMessage() for record in caplog.records)
    for checkpoint in world.memory.state.values():
        assert checkpoint.model_dump_json().encode()


def test_escaped_names_stay_different() -> None:
    names = [os.fsdecode(name) for name in ODD_NAMES]

    assert len({printable(name) for name in names}) == len(names)
    assert printable("001.json") == "001.json"
    assert printable("größe \N{GRINNING FACE}.csv") == "größe \N{GRINNING FACE}.csv"


# --- F19: what may not be read, what is not there ---


async def test_a_file_that_may_not_be_read_is_told_and_the_others_are_read(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = drop(world.folder, "denied.csv", HEADER + row("denied"))
    drop(world.folder, "good.csv", HEADER + row("good"))
    with unprivileged(world.folder):
        denied.chmod(0)
        async with running(world.start()):
            await world.polled()
            await world.poll()

            problem = f"denied.csv: open {world.folder}/denied.csv: permission denied"
            assert world.runner.status.problems == (problem,)
            assert world.runner.state is State.DEGRADED
            assert world.memory.last_run.problems == (problem,)
            denied.chmod(0o600)
            await world.poll()
            assert world.runner.state is State.RUNNING

    assert world.references == ["good", "denied"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [f"Error scheduling task 'denied.csv': open {world.folder}/denied.csv: permission denied"]


async def test_a_file_whose_bytes_cannot_be_read_is_told_and_holds_nothing_up() -> None:
    """
    Linux answers EIO to whoever reads a process' memory at an address that is not mapped: a regular file that fails.
    """
    folder = Path(f"/proc/{os.getpid()}")
    assert stat.S_ISREG((folder / "mem").stat().st_mode)
    config = directory.DirectoryConfig(directory=str(folder), pattern="mem", format=Format.CSV, rest_s=0)
    source = directory.DirectorySource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()))

    found = [item async for page in source.tasks({}) for item in page]

    assert found == [Skipped("mem", "unreadable", f"open {folder}/mem: input/output error")]
    await source.close()


async def test_a_missing_folder_is_logged_in_the_tutorials_words_and_recovered_from(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.folder.rmdir()

    async with running(world.start()):
        await eventually(lambda: world.runner.state is State.DEGRADED)
        assert "no such file or directory" in world.runner.status.problems[0]
        world.folder.mkdir()
        await eventually(lambda: world.runner.state is State.RUNNING, clock=world.clock)
        sample = {"type": "payin", "reference": "001", "status": "succeeded", "asset": "USD", "initialAmount": 100}
        drop(world.folder, "001.json", json.dumps(sample))
        await world.poll()

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    path = world.folder
    assert lines == [
        ("INFO", "Starting task..."),
        ("INFO", f"Opening directory '{path}'..."),
        ("ERROR", f"Error opening directory '{path}': open {path}: no such file or directory"),
        ("INFO", f"Opening directory '{path}'..."),
        ("INFO", "Found 0 files"),
        ("INFO", f"Opening directory '{path}'..."),
        ("INFO", "Found 1 files"),
        ("INFO", "Starting task..."),
        ("INFO", "Task terminated with success"),
    ]
    facts: list[dict[str, Any]] = [getattr(record, "facts") for record in caplog.records]  # noqa: B009
    assert {fact["component"] for fact in facts} == {"scheduler"}
    assert {fact["provider"] for fact in facts} == {"example"}
    assert [fact.get("task-id") for fact in facts] == ["ImRpcmVjdG9yeSI="] * 7 + ["IjAwMS5qc29uIg=="] * 2
    (event,) = world.memory.events
    assert event.payment
    assert identity.payment_id("example", event.payment.reference, event.payment.type) == (
        "eyJwcm92aWRlciI6ImV4YW1wbGUiLCJyZWZlcmVuY2UiOiIwMDEiLCJ0eXBlIjoicGF5aW4ifQ=="
    )


async def test_a_folder_that_vanishes_while_it_is_read_is_recovered_from(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()):
        await world.polled()
        world.folder.rename(world.folder.with_name("gone"))
        world.clock.advance(POLL_S)
        await eventually(lambda: world.runner.state is State.DEGRADED)
        world.folder.with_name("gone").rename(world.folder)
        drop(world.folder, "b.csv", HEADER + row("b"))
        await eventually(lambda: world.runner.state is State.RUNNING, clock=world.clock)
        await eventually(lambda: world.references == ["a", "b"])


async def test_a_folder_that_is_a_file_is_told(world: World) -> None:
    config = directory.DirectoryConfig(directory=str(drop(world.folder, "a.csv", "")))
    source = directory.DirectorySource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()))

    with pytest.raises(SourceUnavailable, match="not a directory"):
        _ = [page async for page in source.tasks({})]


async def test_a_hundred_thousand_files_are_hashed_once_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes through all files does so in another thread, and what the loop is given comes in pages."""
    files = 100_000
    for number in range(files):
        (tmp_path / f"{number:06d}.csv").write_text(f"{number}\n")
    hashed = 0
    threads: set[int] = set()
    hash_all, sort_out, read = listing._hash_all, listing.Folder._sort_out, listing._Listing.page

    def hashing(folder: str, entries: Sequence[listing.Entry]) -> dict[str, str | OSError]:
        nonlocal hashed
        hashed += len(entries)
        threads.add(threading.get_ident())
        return hash_all(folder, entries)

    def sorting(*args: Any) -> tuple[list[listing.Entry], list[listing.Entry]]:
        threads.add(threading.get_ident())
        return sort_out(*args)

    def reading(found: listing._Listing) -> list[listing.Entry]:
        threads.add(threading.get_ident())
        return read(found)

    monkeypatch.setattr(listing, "_hash_all", hashing)
    monkeypatch.setattr(listing.Folder, "_sort_out", sorting)
    monkeypatch.setattr(listing._Listing, "page", reading)
    config = directory.DirectoryConfig(directory=str(tmp_path), rest_s=0)
    source = directory.DirectorySource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, ManualClock()))

    async def list_once() -> int:
        found = 0
        async for page in source.tasks({}):
            assert len(page) <= 2_000
            found += sum(isinstance(item, Task) for item in page)
        return found

    first, again = await list_once(), await list_once()

    assert (first, again, hashed) == (files, files, files)
    assert threads
    assert threading.get_ident() not in threads
    await source.close()


# --- configuration ---


@pytest.mark.parametrize("config", [{}, {"directory": ""}])
def test_a_config_without_a_directory_says_so_in_the_tutorials_words(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="missing directory to watch"):
        directory.DirectoryConfig.model_validate(config)


@pytest.mark.parametrize(
    "config",
    [
        {"directory": "a\x00b"},
        {"directory": "/in", "unknown": 1},
        {"directory": "/in", "columns": {"referenz": "x"}},
        {"directory": "/in", "timezone": "Mars/Olympus"},
        {"directory": "/in", "delimiter": "::"},
        {"directory": "/in", "poll_s": 0},
        {"directory": "/in", "parallel": 0},
    ],
)
def test_a_wrong_config_is_refused_before_any_io(config: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's, with the field's name
        directory.DirectoryConfig.model_validate(config)


async def test_files_of_other_patterns_suffixes_and_drafts_are_left_alone(world: World) -> None:
    for name in ("a.csv", "a.txt", "a.csv.part", ".a.csv", "b.csv~", "a.csv.sha256", "B.CSV"):
        drop(world.folder, name, HEADER + row(name))

    await world.read()

    assert sorted(world.references) == ["B.CSV", "a.csv"]
    assert world.runner.status.skipped == {"unknown_format": 2, "temporary": 3}


async def test_a_pattern_and_a_format_choose_files(world: World) -> None:
    for name in ("recon_1.txt", "recon_2.txt", "other.txt", "recon_3.csv.bak"):
        drop(world.folder, name, HEADER + row(name))

    await world.read(pattern="recon_*.txt", format="csv")

    assert sorted(world.references) == ["recon_1.txt", "recon_2.txt"]
    assert world.runner.status.skipped == {}


class unprivileged:  # noqa: N801 - reads as a statement
    """Act as nobody, to whom permissions mean something, where the tests run as root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            for parent in (self._folder, *self._folder.parents):
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o755)
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, 65534, 65534)
            os.seteuid(65534)

    def __exit__(self, *exc: object) -> None:
        os.seteuid(self._user)
