"""
One SFTP session, every question of it bounded in time, every failure sorted: is it the server, or this one file.

A server that keeps silent, breaks off or breaks the protocol ends the session (`alive` is False then), and a new one is
for the caller to make. An answer such as "no such file" is about the file, and the session goes on. Paths are bytes, as
the server gave them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable
from typing import NoReturn, TypeVar

import asyncssh

from connectors.files.name import printable
from connectors.remote.entry import Entry, join, shown
from connectors.remote.pattern import MAX_NAME_BYTES
from schemas.errors import SourceMisconfigured, SourceUnavailable

T = TypeVar("T")

MAX_ENTRIES = 200_000  # of a folder: more is no drop box but an archive, or a listing without end
LISTING_S = 900.0  # for all of them
SAFE_READ_BYTES = 32 * 1_024  # what every server can answer: draft-ietf-secsh-filexfer-02, section 3
_MAX_WORDS = 200  # of a server's own words that a message may quote
_GRACE_S = 1.0  # for a connection that was aborted to let go
_REGULAR, _UNKNOWN = 1, 5  # file types: draft-ietf-secsh-filexfer-13, section 7.2
_KINDS = {2: "directory", 3: "symlink", 7: "device", 8: "device", 6: "socket", 9: "fifo"}
_BROKEN = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPBadMessage,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    EOFError,
    OSError,
)
_ABSENT = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class Session:
    """An SFTP session and the connection it runs on."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, client: asyncssh.SFTPClient, *, answer_s: float
    ) -> None:
        self._connection = connection
        self._client = client
        self.answer_s = answer_s
        self._aborted = False

    @property
    def alive(self) -> bool:
        """Whether it can still be asked, as far as we know."""
        return not self._aborted and not self._connection.is_closed()

    @property
    def most_read_bytes(self) -> int:
        """What one request may ask for."""
        return max(self._client.limits.max_read_len, SAFE_READ_BYTES)

    async def entries(self, folder: bytes) -> list[Entry]:
        """
        Everything in the folder but itself and its parent, in the server's order.

        Raises:
            SourceUnavailable: retry; it cannot be listed. SourceMisconfigured: pause; it holds too much.
        """
        what = f"listing {shown(folder)}"
        found: dict[bytes, Entry] = {}
        listing = asyncio.ensure_future(self._list(folder, found))
        ends_at = asyncio.get_running_loop().time() + LISTING_S
        try:
            before = -1
            while not listing.done() and len(found) > before and asyncio.get_running_loop().time() < ends_at:
                before = len(found)
                await asyncio.wait({listing}, timeout=self.answer_s)
            if not listing.done():
                self.abort()
                await asyncio.wait({listing}, timeout=_GRACE_S)
                self._silent(what)
            await self.ask(listing, what)
        finally:
            await _ended(listing)
        return list(found.values())

    async def _list(self, folder: bytes, found: dict[bytes, Entry]) -> None:
        async for each in self._client.scandir(folder):
            name = each.filename if isinstance(each.filename, bytes) else os.fsencode(each.filename)
            if name not in (b".", b".."):
                found[name] = _entry(name, each.attrs)
            if len(found) > MAX_ENTRIES:
                self.abort()  # or the listing would be read to its end before it is closed
                raise SourceMisconfigured(
                    f"{shown(folder)} holds more than {MAX_ENTRIES} names",
                    hint="let files be moved away once they are read (after_read), or name another folder",
                )

    async def entry(self, folder: bytes, name: bytes) -> Entry | None:
        """One name of the folder as it is now, without following a link; None if it is not there."""
        path = join(folder, name)
        try:
            return _entry(name, await self.answered(self._client.lstat(path), f"looking at {shown(path)}"))
        except _ABSENT:
            return None
        except asyncssh.SFTPError as exc:
            raise refused(exc, f"looking at {shown(path)}") from exc

    async def open(self, path: bytes) -> OpenFile:
        """
        The file, open for reading.

        Raises:
            SourceUnavailable: retry.
        """
        opening = self._client.open(path, "rb", encoding=None, block_size=0)  # 0: each read is one request
        return OpenFile(self, await self.ask(opening, f"opening {shown(path)}"), shown(path))

    async def head(self, path: bytes, most_bytes: int) -> bytes:
        """
        The first bytes of a file.

        Raises:
            SourceUnavailable: retry.
        """
        file = await self.open(path)
        try:
            head = b""
            while len(head) < most_bytes and (part := await file.part(len(head), most_bytes - len(head))):
                head += part
            return head
        finally:
            await file.close()

    async def rename(self, old: bytes, new: bytes) -> None:
        """
        Rename without replacing anything.

        Raises:
            SourceUnavailable: retry; such as that there is a file of the new name.
        """
        await self.ask(self._client.rename(old, new), f"moving {shown(old)} to {shown(new)}")

    async def remove(self, path: bytes) -> None:
        """
        Delete a file.

        Raises:
            SourceUnavailable: retry.
        """
        await self.ask(self._client.remove(path), f"deleting {shown(path)}")

    async def make_folder(self, path: bytes) -> None:
        """Make a folder, if it is not there."""
        with contextlib.suppress(asyncssh.SFTPError):  # it is there; or moving a file into it will tell
            await self.answered(self._client.mkdir(path), f"making {shown(path)}")

    async def ask(self, asked: Awaitable[T], what: str) -> T:
        """
        The answer, within `answer_s`.

        Raises:
            SourceUnavailable: retry; there was none, or it was an error.
        """
        try:
            return await self.answered(asked, what)
        except asyncssh.SFTPError as exc:
            raise refused(exc, what) from exc

    async def answered(self, asked: Awaitable[T], what: str) -> T:
        """As `ask`, but the server's errors about one file come as they are: asyncssh's."""
        try:
            async with asyncio.timeout(self.answer_s):
                return await asked
        except TimeoutError:
            self._silent(what)
        except _BROKEN as exc:
            self.abort()
            raise SourceUnavailable(f"connection lost in {what}: {words(exc)}") from exc

    def _silent(self, what: str) -> NoReturn:
        self.abort()
        raise SourceUnavailable(f"timeout in {what}: the server kept silent for {self.answer_s:g} s")

    def abort(self) -> None:
        """Let go of the connection at once; whoever waits for an answer gets an error."""
        self._aborted = True
        self._connection.abort()

    async def close(self) -> None:
        """Say good-bye, within bounds. Raises nothing."""
        self._aborted = True
        self._connection.close()
        closing = asyncio.ensure_future(self._connection.wait_closed())
        await asyncio.wait({closing}, timeout=_GRACE_S)
        if not closing.done():
            self._connection.abort()
        await _ended(closing)


class OpenFile:
    """A remote file, open for reading."""

    def __init__(self, session: Session, file: asyncssh.SFTPClientFile, name: str) -> None:
        self._session = session
        self._file = file
        self.name = name

    async def is_still(self, entry: Entry) -> bool:
        """
        Whether the open file is the one that was listed, as far as the server tells.

        Raises:
            SourceUnavailable: retry.
        """
        try:
            attributes = await self._session.answered(self._file.stat(), f"looking at {self.name}")
        except asyncssh.SFTPOpUnsupported:
            return True
        except asyncssh.SFTPError as exc:
            raise refused(exc, f"looking at {self.name}") from exc
        size_is_told, moment_is_told = attributes.size is not None, attributes.mtime is not None
        size, _, moment = _stamp(attributes).partition(":")
        listed_size, _, listed_moment = entry.stamp.partition(":")
        return (not size_is_told or size == listed_size) and (
            not moment_is_told or not listed_moment or moment == listed_moment
        )

    async def part(self, offset: int, most_bytes: int) -> bytes:
        """
        What one request brings: some bytes from `offset`, none at the end.

        Raises:
            SourceUnavailable: retry.
        """
        return await self._session.ask(self._read(offset, most_bytes), f"reading {self.name}")

    async def whole(self, offset: int, size_bytes: int) -> bytes:
        """
        As many bytes from `offset`, fewer only at the end. Not bounded in time, for there may be many at a time.

        Raises:
            asyncssh.Error, OSError: as asyncssh has it; for `Session.ask` to sort.
        """
        parts: list[bytes] = []
        got = 0
        while got < size_bytes:
            part = await self._read(offset + got, size_bytes - got)
            if not part:
                break
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Close it, if there is still somebody to tell. Raises nothing."""
        if self._session.alive:
            with contextlib.suppress(SourceUnavailable):
                await self._session.ask(self._file.close(), f"closing {self.name}")

    async def _read(self, offset: int, most_bytes: int) -> bytes:
        part: bytes = await self._file.read(most_bytes, offset)
        if len(part) > most_bytes:
            self._session.abort()
            raise asyncssh.SFTPBadMessage("more bytes than were asked for")
        return part


def refused(exc: asyncssh.SFTPError, what: str) -> SourceUnavailable:
    """What the server answered, as an error of ours."""
    denied = isinstance(exc, asyncssh.SFTPPermissionDenied)
    hint = "ask the server's operator for the right to do it" if denied else None
    if isinstance(exc, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath):
        hint = "the server answers, but has no such name: correct remote_path, or make the folder; reading resumes then"
    return SourceUnavailable(f"{what}: {words(exc)}", hint=hint)


def words(exc: BaseException) -> str:
    """What an exception says, on one line, in few words: they may be a stranger's."""
    told = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    text = printable(str(told))
    return (text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "…").lower()


def _entry(name: bytes, attributes: asyncssh.SFTPAttrs) -> Entry:
    if b"/" in name or b"\0" in name or len(name) > MAX_NAME_BYTES or not name:
        return Entry(name[:MAX_NAME_BYTES], reason="unusable_name")
    reason = "" if attributes.type == _REGULAR else _KINDS.get(attributes.type, "unknown_type")
    if not reason and attributes.size is None:
        reason = "unknown_size"
    return Entry(name, _stamp(attributes), attributes.size or 0, float(attributes.mtime or 0), reason)


def _stamp(attributes: asyncssh.SFTPAttrs) -> str:
    moment = "" if attributes.mtime is None else f"{attributes.mtime}.{attributes.mtime_ns or 0:09d}"
    return f"{attributes.size}:{moment}"


async def _ended(task: asyncio.Future[None]) -> None:
    """Leave nothing behind."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_GRACE_S)
    if task.done() and not task.cancelled():
        task.exception()
