"""
One remote file on its way into staging: many requests under way, hashed as it comes, resumed where it was cut.

Nothing is believed: the file must be the one that was listed when it is opened, and still when it is through; it must
end where its size says; and when a download goes on, what was there last must be there again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from connectors.files.content import words
from connectors.files.thread import Threads
from connectors.remote.entry import Entry
from connectors.remote.session import OpenFile, Session
from connectors.remote.staging import Staging
from schemas.errors import SourceChanged, SourceUnavailable

T = TypeVar("T")

FIRST_BYTES = 32 * 1_024  # of a first request: a slow line brings that much within a deadline
MOST_BYTES = 256 * 1_024  # of a request: OpenSSH answers as much
FAST_S = 0.5  # what an answer may take for the next requests to be as large as can be
AHEAD_BYTES = 4 * 1_048_576  # asked for and not there yet: fills 300 Mbit/s over 100 ms
MOST_REQUESTS = 64
# Written at a time, in a thread: a busy machine takes long to hand work over, however much it is. A block is hashed
# where it comes, which takes less than that.
WRITE_BYTES = 4 * 1_048_576
OVERLAP_BYTES = 64 * 1_024  # read again where a download goes on


class Download:
    """
    A download, whole or in part. `run` may be called again after an error, and goes on where it was.

    `offset` is how much of it lies in `part`, hashed. `tell` hears of each piece that was written.
    """

    def __init__(self, entry: Entry, staging: Staging, threads: Threads, *, tell: Callable[[int], None]) -> None:
        self.entry = entry
        self.part = staging.part()
        self.offset = 0
        self._staging = staging
        self._threads = threads
        self._tell = tell
        self._digest = hashlib.sha256()
        self._local: _Local | None = None
        self._torn = False  # nobody knows what lies there: a write that is abandoned goes on in its thread

    async def run(self, session: Session, path: bytes) -> str:
        """
        Bring what is missing; the SHA-256 of the whole, in hex.

        Raises:
            SourceChanged: retry; it is not what was listed. The next call begins anew.
            SourceUnavailable: retry; the connection broke, or the server refuses the file, or the disk does.
        """
        if self._torn:
            await self._begin_anew()
        file = await session.open(path)
        try:
            await self._check_still(file)
            if self.offset:
                await self._check_overlap(file)
            await self._bring(_Reads(session, file, self.offset, self.entry.size_bytes))
            if await file.part(self.entry.size_bytes, 1):
                await self._changed(f"has more bytes than the {self.entry.size_bytes} that it is listed with")
            await self._check_still(file)
        finally:
            await file.close()
        self._local = None
        return self._digest.hexdigest()

    async def _check_still(self, file: OpenFile) -> None:
        if not await file.is_still(self.entry):
            await self._changed("changed since it was listed")

    async def _check_overlap(self, file: OpenFile) -> None:
        begin = max(0, self.offset - OVERLAP_BYTES)
        ours = await self._in_thread(_tail, self.part, begin)
        theirs = b""
        while len(theirs) < len(ours) and (part := await file.part(begin + len(theirs), len(ours) - len(theirs))):
            theirs += part
        if ours != theirs:
            await self._changed("is another file than before the connection broke")

    async def _bring(self, reads: _Reads) -> None:
        """Write while the next pieces come, a piece at a time. What has come is written, also if no more comes."""
        self._torn = True
        if self._local is None:
            self._local = await self._in_thread(_Local, self.part)
        local = self._local
        ready = bytearray()
        writing: asyncio.Task[None] | None = None
        try:
            while not reads.ended:
                data = await reads.next()
                self._digest.update(data)
                ready += data
                if len(ready) >= WRITE_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(local, ready), name="sftp write")
                    ready = bytearray()
        except SourceUnavailable:
            await self._flush(local, writing, ready)
            raise
        except BaseException:
            if writing is not None:
                writing.cancel()
            raise
        finally:
            await reads.close()
        await self._flush(local, writing, ready)
        if self.offset < self.entry.size_bytes:
            await self._changed(f"ends after {self.offset} of its {self.entry.size_bytes} bytes")

    async def _flush(self, local: _Local, writing: asyncio.Task[None] | None, ready: bytearray) -> None:
        if writing is not None:
            await writing
        await self._write(local, ready)
        self._torn = False

    async def _write(self, local: _Local, data: bytearray) -> None:
        await self._in_thread(local.write, data)
        self.offset += len(data)
        self._tell(len(data))

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        try:
            return await self._threads.run(call, *args)
        except OSError as exc:
            raise SourceUnavailable(
                f"staging {self.entry.shown}: {words(exc)}", hint="make room where downloads are staged"
            ) from exc

    async def _changed(self, how: str) -> NoReturn:
        await self._begin_anew()
        raise SourceChanged(f"{self.entry.shown} {how}")

    async def _begin_anew(self) -> None:
        old = self.part
        self.part, self.offset, self._digest = self._staging.part(), 0, hashlib.sha256()
        self._local, self._torn = None, False
        await self._staging.discard(old)


class _Reads:
    """
    Requests for a file's bytes, many at a time, answered in order.

    It begins with one small request, and asks for more and larger ones as answers come: a slow line must bring the
    oldest one within the session's deadline, a fast one must never be idle.
    """

    def __init__(self, session: Session, file: OpenFile, begin: int, end: int) -> None:
        self._session = session
        self._file = file
        self._asked = self._received = begin
        self._end = end
        self._pending: deque[tuple[asyncio.Task[bytes], int]] = deque()
        self._window = 1
        self._block = min(FIRST_BYTES, session.most_read_bytes)
        self.ended = begin >= end

    async def next(self) -> bytes:
        """
        The bytes that follow; fewer than were asked for, only at the file's end (`ended`).

        Raises:
            SourceUnavailable: retry.
        """
        self._ask()
        reading, count = self._pending.popleft()
        began = asyncio.get_running_loop().time()
        try:
            data = await self._session.ask(reading, f"downloading {self._file.name}")
        except BaseException:
            self._pending.appendleft((reading, count))  # for `close`
            raise
        self._received += len(data)
        self.ended = len(data) < count or self._received >= self._end
        self._window = min(self._window + 1, MOST_REQUESTS)
        if asyncio.get_running_loop().time() - began < FAST_S:
            self._block = min(MOST_BYTES, self._session.most_read_bytes)
        return data

    def _ask(self) -> None:
        while (
            self._asked < self._end and len(self._pending) < self._window and self._asked - self._received < AHEAD_BYTES
        ):
            count = min(self._block, self._end - self._asked)
            self._pending.append((asyncio.create_task(self._file.whole(self._asked, count), name="sftp read"), count))
            self._asked += count

    async def close(self) -> None:
        """Leave no request behind."""
        left = [reading for reading, _ in self._pending]
        for reading in left:
            reading.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Local:
    """
    The local file. It is closed when nobody holds it any more: closed earlier, a write that was abandoned might go on
    into whatever file has its descriptor by then.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def write(self, data: bytearray) -> None:
        """All of it. Raises OSError."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]


def _tail(part: Path, begin: int) -> bytes:
    with part.open("rb") as file:
        file.seek(begin)
        return file.read()
