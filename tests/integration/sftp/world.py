"""A server that can be told to misbehave, what outlives processes, and a process that reads from the server."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh

from connectors import sftp
from connectors.context import SourceContext
from connectors.runner import Runner, State
from connectors.secret import GivenSecrets
from connectors.source import CheckStep, Request, Skipped, Task
from connectors.testing import CONNECTOR, Faults, ManualClock, Memory, eventually, run_ids, run_through
from tests.sftp_server import Server

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


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


def told(name: bytes, *, size: int = 1, mode: int = 0o100644) -> asyncssh.SFTPName:
    attributes = asyncssh.SFTPAttrs(size=size, permissions=mode, atime=int(LONG_AGO), mtime=int(LONG_AGO))
    attributes.type = {0o100000: 1, 0o120000: 3, 0o040000: 2}.get(mode & 0o170000, 4)
    return asyncssh.SFTPName(name, b"", attributes)


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


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
