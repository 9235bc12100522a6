"""
SFTP servers for tests: asyncssh's, which can be told to misbehave at any step, and OpenSSH's `sftp-server` behind it.

The servers are real ones in this process; only what a test asks for goes wrong. OpenSSH's program is the system's, else
it is unpacked from Debian's package into the cache, which needs no root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh

from bench import openssh
from tillstream.embedded.port import LOOPBACK

USER = "bank"
PASSWORD = "bank-pass-8c1f"

Hook = Callable[..., Awaitable[Any]]


@dataclass
class Server:
    """
    A running server. `hooks` maps an operation (`open`, `read`, `lstat`, `fstat`, `scandir`, `rename`, `remove`,
    `login`, `session`) to what happens before it: a coroutine function that gets the operation's arguments, and may
    wait, raise, cut the connection (`cut`), or return something else than None as the answer.
    """

    root: Path
    port: int = 0
    keys: list[asyncssh.SSHKey] = field(default_factory=list)
    hooks: dict[str, Hook] = field(default_factory=dict)
    logins: list[str] = field(default_factory=list)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    client_keys: list[asyncssh.SSHKey] = field(default_factory=list)
    acceptor: asyncssh.SSHAcceptor | None = None
    opened: list[Any] = field(default_factory=list)

    @property
    def host_key(self) -> str:
        """The fingerprint to pin."""
        return self.keys[0].get_fingerprint("sha256")

    @property
    def config(self) -> dict[str, Any]:
        """What a connector needs to come in."""
        return {
            "host": LOOPBACK,
            "port": self.port,
            "username": USER,
            "password": "${env:SFTP_PASS}",
            "host_key": self.host_key,
            "allow_networks": ["127.0.0.0/8"],
            "rest_s": 0,
            "answer_s": 30,
            "remote_path": "/",
        }

    @property
    def secrets(self) -> dict[str, str]:
        """What the references of `config` stand for."""
        return {"${env:SFTP_PASS}": PASSWORD}

    def cut(self) -> None:
        """Break every connection off."""
        for each in self.connections:
            each.abort()
        self.connections.clear()

    def downloads(self, name: str) -> int:
        """How often a file was opened."""
        return self.requests.count(("open", name))


@contextlib.asynccontextmanager
async def sftp_server(
    root: Path,
    *,
    keys: list[asyncssh.SSHKey] | None = None,
    port: int = 0,
    through_openssh: bool = False,
    without_sftp: bool = False,
) -> AsyncIterator[Server]:
    """A server of the folder. With `through_openssh` OpenSSH's program answers, and hooks mean nothing to it."""
    server = Server(root, keys=keys or [_key("ssh-ed25519")])
    server.acceptor = await asyncssh.listen(
        LOOPBACK,
        port,
        server_factory=lambda: _Gate(server, through_openssh=through_openssh),
        server_host_keys=server.keys,
        sftp_factory=None if through_openssh or without_sftp else lambda channel: _Folder(channel, server),
        reuse_address=True,
    )
    server.port = server.acceptor.get_port()
    try:
        yield server
    finally:
        server.cut()
        server.acceptor.close()
        await server.acceptor.wait_closed()
        for file in server.opened:  # what a broken connection leaves open, asyncssh leaves to the garbage collector
            file.close()


@cache
def _key(algorithm: str) -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(algorithm)


def new_key(algorithm: str = "ssh-ed25519") -> asyncssh.SSHKey:
    """A key that no other test has."""
    return asyncssh.generate_private_key(algorithm)


class _Gate(asyncssh.SSHServer):
    def __init__(self, server: Server, *, through_openssh: bool) -> None:
        self._server = server
        self._through_openssh = through_openssh

    def session_requested(self) -> Any:
        if not self._through_openssh:
            return False
        channel = self._connection.create_server_channel(encoding=None)
        return channel, _OpensshSession(self._server.root)

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.connections.append(conn)

    async def begin_auth(self, username: str) -> bool:
        self._server.logins.append(username)
        if "login" in self._server.hooks:
            await self._server.hooks["login"](username)
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)

    def public_key_auth_supported(self) -> bool:
        return bool(self._server.client_keys)

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == USER and key in self._server.client_keys


class _Folder(asyncssh.SFTPServer):
    """asyncssh's server, with a hook before each operation."""

    def __init__(self, channel: asyncssh.SSHServerChannel, server: Server) -> None:
        super().__init__(channel, chroot=os.fsencode(server.root))
        self._server = server
        self._names: dict[int, str] = {}

    async def _before(self, operation: str, *args: Any) -> Any:
        hook = self._server.hooks.get(operation)
        return None if hook is None else await hook(*args)

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        name = os.fsdecode(path).lstrip("/")
        self._server.requests.append(("open", name))
        answer = await self._before("open", name)
        if answer is None:
            answer = super().open(path, pflags, attrs)
        self._names[id(answer)] = name
        self._server.opened.append(answer)
        return answer

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        name = self._names.get(id(file_obj), "")
        self._server.requests.append(("read", name))
        answer = await self._before("read", name, offset, size)
        return super().read(file_obj, offset, size) if answer is None else answer

    async def fstat(self, file_obj: object) -> Any:
        answer = await self._before("fstat", self._names.get(id(file_obj), ""))
        return super().fstat(file_obj) if answer is None else answer

    async def lstat(self, path: bytes) -> Any:
        answer = await self._before("lstat", os.fsdecode(path).lstrip("/"))
        return super().lstat(path) if answer is None else answer

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        self._server.requests.append(("rename", os.fsdecode(oldpath).lstrip("/")))
        await self._before("rename", os.fsdecode(oldpath), os.fsdecode(newpath))
        super().rename(oldpath, newpath)

    async def remove(self, path: bytes) -> None:
        self._server.requests.append(("remove", os.fsdecode(path).lstrip("/")))
        await self._before("remove", os.fsdecode(path))
        super().remove(path)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        self._server.requests.append(("scandir", os.fsdecode(path)))
        names = await self._before("scandir", os.fsdecode(path))
        if names is None:
            async for each in super().scandir(path):
                yield each
        else:
            async for each in names:
                yield each


class _OpensshSession(asyncssh.SSHServerSession[bytes]):
    """Hands what comes on the channel to OpenSSH's program, and its answers back."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        self._serving = asyncio.create_task(self._serve())

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._requests.put_nowait(data)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._serving.cancel()

    async def _serve(self) -> None:
        child = await asyncio.create_subprocess_exec(
            openssh.sftp_server(), "-d", str(self._root), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin
        assert child.stdout
        asking = asyncio.create_task(self._ask(child.stdin))
        try:
            while answer := await child.stdout.read(65_536):
                await self._may_write.wait()
                self._channel.write(answer)
        finally:
            asking.cancel()
            child.kill()
            await child.wait()

    async def _ask(self, stdin: asyncio.StreamWriter) -> None:
        while True:
            stdin.write(await self._requests.get())
            await stdin.drain()
