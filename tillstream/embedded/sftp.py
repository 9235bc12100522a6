"""
An SFTP server on loopback for the demonstration: one user, one folder, a host key of its own.

    python -m tillstream.embedded.sftp serve      serve the home's folder, with seed 004's sample in it
    python -m tillstream.embedded.sftp seed       put that sample there: the file of 2025-01-10, and its checksum
    python -m tillstream.embedded.sftp daily      put today's file there
    python -m tillstream.embedded.sftp connector  the description of a connector that reads them, for `till connector`

SFTP_HOST, SFTP_PORT, SFTP_USER and SFTP_PASS name another address or account, such as the container's of
`compose/sftp.yaml`; a password that is given so has a file of its own. Nothing here knows the source that reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import asyncssh

from tillstream.embedded import bank
from tillstream.embedded.home import default_home
from tillstream.embedded.port import LOOPBACK, PortBook

USER = "bank"  # seed 004's
UPLOAD = "upload"
SAMPLE_DAY = date(2025, 1, 10)
PASSWORD_FILE = "sftp/password"  # noqa: S105  its place below the folder of secrets
_PASSWORD_BYTES = 18
_PRIVATE = 0o600
_ODD = re.compile(r"[^A-Za-z0-9_.-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    """Where a server is, and who comes in. Port 0: the one that was noted, or a free one."""

    host: str = LOOPBACK
    port: int = 0
    username: str = USER
    password: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Account:
        """The account that seed 004's variables name."""
        return cls(
            environment.get("SFTP_HOST") or LOOPBACK,
            int(environment.get("SFTP_PORT") or 0),
            environment.get("SFTP_USER") or USER,
            environment.get("SFTP_PASS", ""),
        )


class SftpServer:
    """
    The server of one home. It serves `folder`, in which `upload` is where files are put.

    Host key, port and password are made once and kept. The password lies in the home's folder of secrets, where a
    connector names it.
    """

    def __init__(self, home: Path, account: Account | None = None) -> None:
        self.account = account or Account()
        self.folder = home / "sftp" / "files"
        self.upload = self.folder / UPLOAD
        self._key_file = home / "sftp" / "host_key"
        self._secrets = home / "secrets"
        self._ports = PortBook(home / "sftp" / "port.json")
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self) -> Self:
        """
        Listen on loopback.

        Raises:
            StackError: there is no free port. OSError: the account's is taken.
        """
        self.upload.mkdir(parents=True, exist_ok=True)
        port = self.account.port or self._ports.reserve(["sftp"])["sftp"]
        username, password = self.account.username, self.place_password()
        self._acceptor = await asyncssh.listen(
            LOOPBACK,
            port,
            server_factory=lambda: _Gate(username, password),
            server_host_keys=[self._host_key()],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(self.folder)),
            reuse_address=True,
        )
        return self

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
            self._acceptor = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """Where it listens, or listened last; 0 before its first start."""
        return self._acceptor.get_port() if self._acceptor else self.account.port or self._ports.noted().get("sftp", 0)

    @property
    def secret(self) -> str:
        """
        Where the password is, below the folder of secrets. One that was given lies apart: it may be another server's.
        """
        if not self.account.password:
            return PASSWORD_FILE
        whose = f"{self.account.username}-{self.account.host}-{self.port}"
        return f"sftp/given/{_ODD.sub('_', whose)}"

    @property
    def password_file(self) -> Path:
        """The same, as a path."""
        return self._secrets / self.secret

    @property
    def host_key(self) -> str:
        """The fingerprint to pin."""
        return self._host_key().get_fingerprint("sha256")

    def configuration(self, **options: Any) -> dict[str, Any]:
        """The configuration of a connector that reads the bank's files from here."""
        return configuration(self.account, port=self.port, host_key=self.host_key, secret=self.secret, **options)

    def place_password(self) -> str:
        """The account's password, or one that is made; it is where a connector's reference finds it."""
        if self.account.password or not self.password_file.exists():
            _write_private(self.password_file, self.account.password or secrets.token_urlsafe(_PASSWORD_BYTES))
        return self.password_file.read_text(encoding="utf-8")

    def _host_key(self) -> asyncssh.SSHKey:
        if not self._key_file.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            _write_private(self._key_file, key.export_private_key().decode())
        return asyncssh.read_private_key(self._key_file)


class _Gate(asyncssh.SSHServer):
    """Lets one user in, by password."""

    def __init__(self, username: str, password: str) -> None:
        self._wanted = f"{username}\0{password}".encode()

    def password_auth_supported(self) -> bool:
        """It is the only way in."""
        return True

    def validate_password(self, username: str, password: str) -> bool:
        """Whether it is the user, and the user's."""
        return compare_digest(f"{username}\0{password}".encode(), self._wanted)


def configuration(account: Account, *, port: int, host_key: str, secret: str, **options: Any) -> dict[str, Any]:
    """The configuration of a connector of the kind `sftp` that reads the bank's files of this account."""
    return {
        "host": account.host,
        "port": port,
        "username": account.username,
        "password": f"${{file:{secret}}}",
        "host_key": host_key,
        "allow_networks": ["127.0.0.0/8", "::1/128"],
        "remote_path": f"/{UPLOAD}",
        "pattern": bank.PATTERN,
        "checksum_ext": ".sha256",
        **bank.MAPPING,
        **options,
    }


async def description(server: SftpServer) -> dict[str, Any]:
    """A connector as `till connector apply` takes it, for the server that answers at the account's address now."""
    account = server.account
    # Whoever answers is believed: it is for a machine of one's own. The check of a connector believes nobody.
    key = await asyncssh.get_server_host_key(account.host, server.port, config=None)
    server.place_password()
    host_key = key.get_fingerprint("sha256") if key else ""
    options = configuration(account, port=server.port, host_key=host_key, secret=server.secret)
    return {"name": "axis", "kind": "sftp", "provider": "axis", "configuration": options}


def today() -> date:
    """The day at the bank."""
    return datetime.now(ZoneInfo(bank.ZONE)).date()


async def serve(server: SftpServer) -> None:
    """Serve until a signal comes, and say what a client needs."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, ended.set)
    async with server:
        described = server.folder.parent / "connector.json"
        described.write_text(json.dumps(await description(server), indent=1) + "\n", encoding="utf-8")
        _say(f"sftp://{server.account.username}@{LOOPBACK}:{server.port}/{UPLOAD} serves {server.upload}")
        _say(f"host key {server.host_key}, password in {server.password_file}")
        _say(f"a connector that reads it: till connector apply -f {described}")
        await ended.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands of this module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tillstream.embedded.sftp", description=__doc__.split("\n")[1])
    parser.add_argument("command", choices=("serve", "seed", "daily", "connector"))
    parser.add_argument("--home", type=Path, default=default_home(os.environ), help="the stack's home")
    parser.add_argument("--folder", type=Path, help="where files are put; by default the home's")
    given = parser.parse_args(arguments)
    server = SftpServer(given.home, Account.of(os.environ))
    folder = given.folder or server.upload
    match given.command:
        case "serve":
            bank.drop(server.upload, SAMPLE_DAY)
            asyncio.run(serve(server))
        case "seed":
            _say(str(bank.drop(folder, SAMPLE_DAY)))
        case "daily":
            _say(str(bank.drop(folder, today())))
        case "connector":
            _say(json.dumps(asyncio.run(description(server)), indent=1))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(_PRIVATE)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    main()
