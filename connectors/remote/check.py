"""
A check of an SFTP connector, step by step: address, connection, host key, login, folder, a first file's records.

Nothing is changed on the server, and nobody is logged in to a server whose key is not pinned: then the key is told.
"""

from __future__ import annotations

from connectors.check import Told, step
from connectors.files.reading import FileReader
from connectors.files.sample import SAMPLE_BYTES, tried
from connectors.network import Guard
from connectors.remote.entry import join
from connectors.remote.folder import Chooser, RemoteFile
from connectors.remote.login import Login, fingerprint, shown_keys, unpinned
from connectors.remote.options import Account
from connectors.remote.pattern import Window
from connectors.remote.session import Session
from connectors.source import CheckStep

_MOST_NAMES = 100  # that a check lists
_SHOWN = 3


class Checkup:
    """One check."""

    def __init__(self, account: Account, guard: Guard, login: Login, *, folder: bytes, chooser: Chooser) -> None:
        self._account = account
        self._guard = guard
        self._folder = folder
        self._login = login
        self._chooser = chooser
        self._session: Session | None = None
        self._files: list[RemoteFile] = []

    async def run(self, reader: FileReader) -> list[CheckStep]:
        """Every step up to the first that fails. Raises nothing."""
        steps: list[CheckStep] = []
        try:
            for name, attempt in (
                ("find the address", self._find),
                ("connect", self._connect),
                ("prove the host key", self._prove),
                ("log in", self._log_in),
                ("list the folder", self._list),
                ("read a file", lambda: self._read(reader)),
            ):
                steps.append(await step(name, attempt()))
                if not steps[-1].ok:
                    break
        finally:
            if self._session is not None:
                await self._session.close()
        return steps

    async def _find(self) -> str:
        account = self._account
        found = await self._guard.resolve(account.host, account.port, timeout_s=account.connect_s)
        return ", ".join(map(str, found))

    async def _connect(self) -> str:
        (await self._login.connect()).close()
        return f"port {self._account.port}"

    async def _prove(self) -> str:
        keys = await self._login.host_keys()
        if not self._account.pins:
            raise unpinned(self._account.host, keys)
        pinned = [key for key in keys if fingerprint(key) in self._account.pins]
        if not pinned:
            raise self._login.mismatch(keys)
        return shown_keys(pinned)

    async def _log_in(self) -> str:
        self._session = await self._login.open()
        return f"as {self._account.username}"

    async def _list(self) -> Told:
        assert self._session is not None, "logged in before"  # noqa: S101
        entries = await self._session.entries(self._folder)
        chosen = self._chooser.choose(entries, Window())
        self._files = list(chosen.files)
        names = [file.shown for file in self._files]
        some = ", ".join(names[-_SHOWN:])
        detail = f"{len(names)} of {len(entries)} names are files to read{': ' if names else ''}{some}"
        return Told(detail + (", …" if len(names) > _SHOWN else ""), tuple(names[-_MOST_NAMES:]))

    async def _read(self, reader: FileReader) -> str:
        assert self._session is not None, "logged in before"  # noqa: S101
        if not self._files:
            return "no file yet"
        newest = self._files[-1]
        head = await self._session.head(join(self._folder, newest.entry.name), SAMPLE_BYTES)
        name, size_bytes = newest.entry.name.decode("utf-8", "surrogateescape"), newest.entry.size_bytes
        return tried(reader, name=name, shown=newest.shown, head=head, size_bytes=size_bytes)
