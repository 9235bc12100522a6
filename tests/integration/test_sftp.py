"""Every fault of an SFTP server, on real servers: what goes wrong, and what must come of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncssh
import pytest

from connectors import sftp
from connectors.context import SourceContext
from connectors.remote import download, session, staging
from connectors.runner import Runner, State
from connectors.secret import GivenSecrets
from connectors.source import CheckStep, Request, Skipped, Task
from connectors.testing import CONNECTOR, Faults, ManualClock, Memory, eventually, run_ids, run_through, running
from schemas.errors import BrokerUnavailable, SourceUnavailable, TillError
from tests.sftp_server import PASSWORD, Server, new_key, sftp_server

HEADER = "reference,type,status,asset,amount,note\n"
POLL_S = 10.0
LONG_AGO = 1_700_000_000.0
LARGE = 3 * 1_048_576


def row(reference: str, note: str = "") -> str:
    return f"{reference},payin,succeeded,EUR,100,{note}\n"


def drop(folder: Path, name: str, text: str | bytes, *, age: float = 0) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (LONG_AGO + age, LONG_AGO + age))
    return path


def sign(path: Path, text: bytes | None = None, *, age: float = 0) -> Path:
    """Its checksum's file."""
    digest = hashlib.sha256(path.read_bytes() if text is None else text).hexdigest()
    return drop(path.parent, f"{path.name}.sha256", f"{digest}  {path.name}\n", age=age)


def large(size_bytes: int = LARGE) -> str:
    return HEADER + "".join(row(f"r{n:06d}", "x" * 4_000) for n in range(size_bytes // 4_040))


class World:
    """A server, what outlives processes, and a process that reads from the server."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server = server
        self.folder = server.root
        self.staging = home / "staging"
        self.memory = Memory()
        self.clock = ManualClock()
        self.faults = Faults()
        self.secrets = dict(server.secrets)
        self.options: dict[str, Any] = {}
        self.epoch = 0
        self.runner: Runner

    def config(self, **options: object) -> sftp.SftpConfig:
        # the clock is made to run far ahead of what happens: the runner must not take that for silence
        common = {
            "deadline_s": 86_400,
            "poll_s": POLL_S,
            "checkpoint_s": 0,
            "stop_s": 1,
            "error_backoff_s": 0.1,
            "max_retries": 1,
        }
        return sftp.SftpConfig.model_validate({**self.server.config, **common, **self.options, **options})

    def start(self, **options: object) -> Runner:
        self.epoch += 1
        self.faults = Faults()
        ports = replace(
            self.memory.ports(self.clock, self.faults), secrets=GivenSecrets(self.secrets), staging=self.staging
        )
        new_run_id = run_ids(self.epoch)
        self.runner = Runner(
            CONNECTOR, sftp.SPEC, self.config(**options), ports, epoch=self.epoch, new_run_id=new_run_id
        )
        return self.runner

    def source(self, **options: object) -> Any:
        context = SourceContext(
            CONNECTOR.id,
            CONNECTOR.name,
            self.clock,
            secrets=GivenSecrets(self.secrets),
            staging=self.staging / str(CONNECTOR.id),  # as a runner has it
        )
        return sftp.SPEC.factory(self.config(**options), context)

    async def check(self, **options: object) -> list[CheckStep]:
        source = self.source(**options)
        steps = list(await source.check())
        await source.close()
        return steps

    async def listed(self, request: Request | None = None, **options: object) -> list[Task | Skipped]:
        source = self.source(**options)
        pages = source.tasks({}) if request is None else source.requested({}, request)
        try:
            return [item async for page in pages for item in page]
        finally:
            await source.close()

    async def read(self, **options: object) -> State:
        return await run_through(self.start(**options), clock=self.clock)

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
    def problems(self) -> str:
        return "; ".join(self.runner.status.problems)

    @property
    def staged(self) -> list[str]:
        return [path.name for path in self.staging.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    async with sftp_server(root) as running_server:
        yield running_server


@pytest.fixture
def world(server: Server, tmp_path: Path) -> World:
    return World(server, tmp_path)


# --- who may be talked to, and how one gets in (F3) ---


async def test_a_server_with_another_key_sees_no_login_and_both_fingerprints_are_told(world: World) -> None:
    pinned = new_key().get_fingerprint("sha256")
    drop(world.folder, "a.csv", HEADER + row("a"))

    state = await world.read(host_key=pinned)

    assert state is State.PAUSED
    assert world.server.logins == []
    assert pinned in world.problems
    assert world.server.host_key in world.problems
    assert world.memory.log == []


async def test_a_server_whose_key_changes_while_we_read_is_not_logged_in_to_again(world: World, tmp_path: Path) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()) as running_task:
        await world.polled()
        world.server.cut()
        assert world.server.acceptor
        port = world.server.port
        world.server.acceptor.close()
        await world.server.acceptor.wait_closed()
        async with sftp_server(world.folder, keys=[new_key()], port=port) as impostor:
            drop(world.folder, "b.csv", HEADER + row("b"))
            await eventually(running_task.done, clock=world.clock)

    assert world.runner.state is State.PAUSED
    assert impostor.logins == []
    assert world.references == ["a"]


async def test_without_a_pinned_key_nothing_is_read_and_the_check_tells_what_to_pin(world: World) -> None:
    state = await world.read(host_key="")
    steps = await world.check(host_key="")

    assert state is State.PAUSED
    assert "no host key" in world.problems
    assert [step.ok for step in steps] == [True, True, False]
    assert f"host_key: {world.server.host_key}" in steps[-1].hint
    assert world.server.logins == []


@pytest.mark.parametrize("pinned_as", ["fingerprint", "line"])
async def test_any_of_a_servers_keys_can_be_the_pinned_one(tmp_path: Path, pinned_as: str) -> None:
    """
    A bank tells the fingerprint of its RSA key, and its server shows an Ed25519 one first.
    """
    root = tmp_path / "served"
    root.mkdir()
    rsa = new_key("ssh-rsa")
    async with sftp_server(root, keys=[new_key(), rsa]) as server:
        world = World(server, tmp_path)
        drop(root, "a.csv", HEADER + row("a"))

        line = rsa.export_public_key().decode().strip()
        await world.read(host_key=line if pinned_as == "line" else rsa.get_fingerprint("sha256"))

    assert world.references == ["a"]


async def test_a_pinned_kind_of_key_that_the_server_has_not_is_a_mismatch(world: World) -> None:
    line = new_key("ssh-rsa").export_public_key().decode().strip()

    assert await world.read(host_key=line) is State.PAUSED

    assert world.server.host_key in world.problems
    assert world.server.logins == []


async def test_a_wrong_password_is_tried_once_and_pauses(world: World) -> None:
    """
    A bank locks the account of whoever tries a wrong password again and again.
    """
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"

    assert await world.read() is State.PAUSED

    assert world.server.logins == ["bank"]
    assert world.problems == "127.0.0.1 refuses the login of bank by password"


@pytest.mark.parametrize("format_name", ["openssh", "pkcs8-pem"])
async def test_a_private_key_lets_in_also_with_a_passphrase(world: World, format_name: str) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    key = new_key("ssh-rsa")
    world.server.client_keys = [key.convert_to_public()]
    encrypted = key.export_private_key(format_name, passphrase="the phrase", rounds=50)
    world.secrets |= {"${file:key}": encrypted.decode(), "${env:PHRASE}": "the phrase"}

    await world.read(password="", private_key="${file:key}", passphrase="${env:PHRASE}")

    assert world.references == ["a"]


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({"${env:PHRASE}": "another phrase"}, "cannot be decrypted"),
        ({"${env:PHRASE}": ""}, "needs a passphrase"),
        ({"${file:key}": "no key at all"}, "no OpenSSH or PEM"),
    ],
)
async def test_a_private_key_that_cannot_be_used_is_told_before_any_connection(
    world: World, secrets: dict[str, str], words: str
) -> None:
    encrypted = new_key().export_private_key("openssh", passphrase="the phrase", rounds=50).decode()
    world.secrets |= {"${file:key}": encrypted, "${env:PHRASE}": "the phrase", **secrets}

    assert await world.read(private_key="${file:key}", passphrase="${env:PHRASE}") is State.PAUSED

    assert words in world.problems
    assert world.server.connections == []


async def test_nothing_of_the_workers_user_is_used(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Neither a key nor a configuration of its home would let in, though the server would take the key.
    """
    key = new_key()
    world.server.client_keys = [key.convert_to_public()]
    home = tmp_path / "home" / ".ssh"
    home.mkdir(parents=True)
    key.write_private_key(home / "id_ed25519")
    (home / "config").write_text(f"Host *\n  IdentityFile {home}/id_ed25519\n  User bank\n")
    (home / "known_hosts").write_text("")
    monkeypatch.setenv("HOME", str(home.parent))
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"

    assert await world.read() is State.PAUSED

    assert "refuses the login" in world.problems


async def test_an_address_that_is_not_allowed_is_not_connected_to(world: World) -> None:
    assert await world.read(allow_networks=[]) is State.PAUSED

    assert "not a public address" in world.problems
    assert world.server.connections == []


async def test_a_server_without_sftp_is_told(tmp_path: Path) -> None:
    root = tmp_path / "served"
    root.mkdir()
    async with sftp_server(root, without_sftp=True) as server:
        world = World(server, tmp_path)

        assert await world.read() is State.PAUSED

    assert "starting SFTP" in world.problems


# --- servers that keep silent (F1) ---


@contextlib.asynccontextmanager
async def silent_server(first: bytes) -> AsyncIterator[int]:
    """Takes connections, says `first`, and nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_024):
                pass
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@pytest.mark.parametrize("first", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"* OK IMAP4 ready\r\n"])
async def test_a_server_that_does_not_shake_hands_is_given_up_in_time(world: World, first: bytes) -> None:
    async with silent_server(first) as port:
        began = time.monotonic()

        with pytest.raises(TillError, match=r"127\.0\.0\.1"):
            await world.listed(port=port, answer_s=0.3)

        assert time.monotonic() - began < 5


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("step", "words"),
    [("login", "logging in"), ("scandir", "listing /"), ("open", "opening"), ("fstat", "looking at"), ("read", "down")],
)
async def test_a_server_that_falls_silent_is_given_up_in_time_and_read_once_it_answers(
    world: World, step: str, words: str
) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    world.server.hooks[step] = hang

    async with running(world.start(answer_s=0.3)):
        await eventually(lambda: world.problems and "timeout in" in world.problems)
        assert words in world.problems
        assert world.runner.state is State.DEGRADED
        del world.server.hooks[step]
        await eventually(lambda: world.references == ["a"], clock=world.clock)
        await eventually(lambda: world.runner.state is State.RUNNING, clock=world.clock)


async def test_a_listing_that_takes_long_is_alive_and_one_that_hangs_is_not(world: World) -> None:
    """
    Pages tell the runner that we wait; that we wait for something, our own deadlines tell.
    """
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def slow(*_: object) -> None:
        await asyncio.sleep(0.2)

    world.server.hooks["read"] = slow
    source = world.source(deadline_s=0.2)

    began = time.monotonic()
    gaps = []
    async for _ in source.tasks({}):
        gaps.append(time.monotonic() - began)
        began = time.monotonic()

    assert len(gaps) > 3
    await source.close()


# --- listings (F16, F19) ---


async def test_a_folder_that_is_not_there_is_told_and_read_once_it_is(world: World) -> None:
    async with running(world.start(remote_path="/later")):
        await eventually(lambda: world.runner.state is State.DEGRADED)
        assert "listing /later: no such file" in world.problems
        (world.folder / "later").mkdir()
        drop(world.folder / "later", "a.csv", HEADER + row("a"))
        await eventually(lambda: world.references == ["a"], clock=world.clock)


def told(name: bytes, *, size: int = 1, mode: int = 0o100644) -> asyncssh.SFTPName:
    attributes = asyncssh.SFTPAttrs(size=size, permissions=mode, atime=int(LONG_AGO), mtime=int(LONG_AGO))
    attributes.type = {0o100000: 1, 0o120000: 3, 0o040000: 2}.get(mode & 0o170000, 4)
    return asyncssh.SFTPName(name, b"", attributes)


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
    path = drop(world.folder, "a.csv", HEADER + row("a"))

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


class Cutter:
    """Breaks the connection in reads of one file: each time after so many bytes of it, so many times."""

    def __init__(self, server: Server, name: str, *, every_bytes: int, times: int = 1_000_000) -> None:
        self._server = server
        self._name = name
        self._every_bytes = every_bytes
        self.left = times
        self.since = 0
        self.asked = 0

    async def __call__(self, name: str, offset: int, size: int) -> None:
        if name == self._name:
            self.asked += size
            self.since += size
            if self.since > self._every_bytes and self.left:
                self.left -= 1
                self.since = 0
                self._server.cut()


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


# --- afterwards ---

MOVE = {"after_read": "move", "move_to": "done"}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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


# --- the check, and configuration ---


async def test_a_check_names_files_and_reads_a_first_one(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("b") + "c,payin,succeeded,EUR,1.5,\n", age=1)

    steps = await world.check()

    assert [step.name for step in steps] == [
        "find the address",
        "connect",
        "prove the host key",
        "log in",
        "list the folder",
        "read a file",
    ]
    assert all(step.ok for step in steps)
    assert steps[4].found == ("a.csv", "b.csv")
    assert "b.csv: 2 records in its first" in steps[5].detail
    assert "1 would be rejected: row 2" in steps[5].detail
    assert world.server.requests.count(("scandir", "/")) == 1


async def test_a_check_tells_what_keeps_a_file_from_being_read(world: World) -> None:
    drop(world.folder, "a.csv", "TXNID,CREDIT_AMT\n1,2\n")

    *others, last = await world.check()

    assert all(step.ok for step in others)
    assert not last.ok
    assert "missing" in last.detail or "has no" in last.detail
    assert "columns" in last.hint


async def test_a_check_says_at_which_step_it_failed(world: World) -> None:
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = nobody.getsockname()[1]

    steps = {
        "log in": await world.check(),
        "prove the host key": await world.check(host_key=new_key().get_fingerprint("sha256")),
        "connect": await world.check(port=closed),
        "find the address": await world.check(allow_networks=[]),
    }

    for name, found in steps.items():
        assert [step.name for step in found if not step.ok] == [name]
        assert found[-1].detail
        assert found[-1].hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": ""}, "host"),
        ({"username": ""}, "username"),
        ({"password": ""}, "give a password or a private_key"),
        ({"password": PASSWORD}, "by reference"),
        ({"passphrase": "${env:X}"}, "a passphrase is for a private_key"),
        ({"host_key": "trust me"}, "SHA256:"),
        ({"pattern": "a/b"}, "no slash"),
        ({"checksum": "required"}, "checksum_ext"),
        ({"after_read": "move"}, "move_to"),
        ({"move_to": "done"}, "move_to"),
        ({"after_read": "move", "move_to": "."}, "another folder"),
        ({"port": 0}, "port"),
        ({"remote_path": "a\0b"}, "NUL"),
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_config_is_refused_before_any_io_and_shows_no_secret(change: dict[str, object], words: str) -> None:
    right = {"host": "bank.example", "username": "u", "password": "${env:P}"}
    sftp.SftpConfig.model_validate(right)

    with pytest.raises(ValueError, match=words) as caught:
        sftp.SftpConfig.model_validate({**right, **change})

    assert PASSWORD not in str(caught.value).replace(f"input_value='{PASSWORD}'", "")
