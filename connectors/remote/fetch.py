"""
From a remote file to a verified copy in staging: its checksum's file, room on the disk, the download, the comparison.

What is wrong with one file is told of that file alone. One that is refused, such as for a checksum that does not match,
is not looked at again until it or its checksum changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from connectors.files.thread import Threads
from connectors.log import extra
from connectors.ports import Clock
from connectors.remote.door import Door
from connectors.remote.download import Download
from connectors.remote.entry import Entry, join
from connectors.remote.folder import RemoteFile
from connectors.remote.options import Checksum, Rules
from connectors.remote.session import Session
from connectors.remote.sidecar import MAX_BYTES, expected_sha256
from connectors.remote.staging import Staging
from connectors.source import Progress, Skipped
from schemas.errors import SourceChanged, SourceUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Key = tuple[str, str]

TOLD_EVERY_S = 10.0  # a line of the log for a download that takes long
ROOM_S = 60.0  # without a sign of life from whoever reads what is staged, after which a listing waits no longer


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection broke, and not a byte had come. Was it the file's fault? Alone, it will show."""

    problem: str


Fetched = str | Skipped | Cut
"""A staged content's SHA-256; or why there is none."""


class Fetcher:
    """Brings files into staging. `tell` hears how many bytes came, as they come."""

    def __init__(
        self, rules: Rules, door: Door, staging: Staging, threads: Threads, clock: Clock, *, tell: Callable[[int], None]
    ) -> None:
        self._rules = rules
        self._door = door
        self._staging = staging
        self._threads = threads
        self._clock = clock
        self._tell = tell
        self._downloads: dict[_Key, Download] = {}
        self._claims: dict[_Key, int] = {}  # bytes that downloads under way will take
        self._refused: dict[str, tuple[str, Skipped]] = {}
        self._lacking_since_s: dict[str, float] = {}
        self._read_at_s = time.monotonic()
        self._moved = asyncio.Event()

    @property
    def progress(self) -> list[Progress]:
        """The downloads that are under way."""
        under_way = [self._downloads[key] for key in self._claims if key in self._downloads]
        return [Progress(each.entry.shown, each.offset, each.entry.size_bytes) for each in under_way]

    async def keep_only(self, files: Iterable[RemoteFile]) -> None:
        """Forget whatever is about files that are not there any more, or are others by now."""
        there = {file.key for file in files}
        names = {name for name, _ in there}
        for key in [key for key in self._downloads if key not in there and key not in self._claims]:
            await self._staging.discard(self._downloads.pop(key).part)
        self._refused = {name: each for name, each in self._refused.items() if name in names}
        self._lacking_since_s = {name: since_s for name, since_s in self._lacking_since_s.items() if name in names}

    def moved(self) -> None:
        """Something staged is being read, or has been: there is room, or will be."""
        self._read_at_s = time.monotonic()
        self._moved.set()

    async def fetch(self, file: RemoteFile) -> Fetched:
        """
        Bring a file in, going on where an earlier call was cut short; it is staged under its hash then.

        Raises:
            SourceUnavailable: retry; the server cannot be reached at all.
            SourceMisconfigured, SourceUnauthorised: pause; it may not be, any more.
        """
        told = self._refused.get(file.shown)
        if told is not None and told[0] == file.stamp:
            return told[1]
        expected = await self._expected(file)
        if not isinstance(expected, str):
            return expected
        if not await self._claim(file):
            return Skipped(file.shown, "awaiting_room")
        try:
            return await self._room_problem(file) or await self._download(file, expected)
        finally:
            del self._claims[file.key]
            self._moved.set()

    # The checksum.

    async def _expected(self, file: RemoteFile) -> Fetched:
        """What the content must hash to; the empty text: nobody says. Or why it is not brought in now."""
        sidecar = file.sidecar
        if self._rules.checksum is Checksum.OFF:
            return ""
        name = file.shown + self._rules.sidecar_suffix
        if sidecar is None:
            return self._lacking(file, f"there is no {name}")
        text = await self._on(file, lambda session: session.head(join(self._rules.folder, sidecar.name), MAX_BYTES))
        if not isinstance(text, bytes):
            return text
        try:
            expected = expected_sha256(text, file.entry.name)
        except ValueError as exc:
            return self._lacking(file, f"{name}: {exc}")
        self._lacking_since_s.pop(file.shown, None)
        return expected

    def _lacking(self, file: RemoteFile, problem: str) -> Skipped:
        """What is told of it. The file's own time counts too, or each restart would begin to wait anew."""
        now_s, is_first = self._clock.monotonic(), file.shown not in self._lacking_since_s
        waited_s = now_s - self._lacking_since_s.setdefault(file.shown, now_s)
        if file.entry.mtime_s:
            waited_s = max(waited_s, self._clock.now().timestamp() - file.entry.mtime_s)
        # a bank may keep a file's old time: its checksum has until the next look in any case
        is_early = waited_s < self._rules.grace_s or (is_first and self._rules.grace_s > 0)
        if self._rules.checksum is Checksum.AWAIT and is_early:
            return Skipped(file.shown, "awaiting_checksum")
        return Skipped(file.shown, "no_checksum", problem)

    async def _verified(self, file: RemoteFile, part: Path, sha256: str, expected: str) -> Fetched:
        if expected and sha256 != expected:
            await self._staging.discard(part)
            name = file.shown + self._rules.sidecar_suffix
            return self._refuse(file, "checksum_mismatch", f"its SHA-256 is {sha256}, {name} says {expected}")
        await self._staging.adopt(part, sha256)
        return sha256

    def _refuse(self, file: RemoteFile, reason: str, problem: str) -> Skipped:
        refused = Skipped(file.shown, reason, problem)
        self._refused[file.shown] = (file.stamp, refused)
        return refused

    # The download.

    async def _download(self, file: RemoteFile, expected: str) -> Fetched:
        download = self._downloads.setdefault(file.key, self._new_download(file))
        began_s, begun_at = time.monotonic(), download.offset
        while True:
            before = download.offset
            found = await self._on(file, lambda session: self._run(session, download))
            begins_anew = isinstance(found, SourceChanged) and before > 0
            goes_on = isinstance(found, Cut) and download.offset > before
            if not begins_anew and not goes_on:
                break
        if isinstance(found, Cut):
            return found  # what has come stays for the next attempt
        del self._downloads[file.key]
        if isinstance(found, str):
            size_bytes, seconds = download.offset - begun_at, round(time.monotonic() - began_s, 3)
            logger.info("file downloaded", extra=extra(file=file.shown, size_bytes=size_bytes, seconds=seconds))
            return await self._verified(file, download.part, found, expected)
        await self._staging.discard(download.part)
        return await self._changed(file, found) if isinstance(found, SourceChanged) else found

    async def _run(self, session: Session, download: Download) -> str | SourceChanged:
        try:
            return await download.run(session, join(self._rules.folder, download.entry.name))
        except SourceChanged as exc:
            return exc

    async def _changed(self, file: RemoteFile, exc: SourceChanged) -> Fetched:
        """A file that changes is not at rest. One that looks as before, and is not what it says, is refused."""
        now = await self._on(file, lambda session: session.entry(self._rules.folder, file.entry.name))
        if isinstance(now, Entry) and now.stamp == file.entry.stamp:
            return self._refuse(file, "not_what_it_says", str(exc))
        return now if isinstance(now, Cut) else Skipped(file.shown, "not_at_rest")

    async def _on(self, file: RemoteFile, work: Callable[[Session], Awaitable[T]]) -> T | Skipped | Cut:
        """Do it on a session; what goes wrong is this file's alone, or the connection's."""
        async with self._door.session() as session:
            try:
                return await work(session)
            except SourceUnavailable as exc:
                return Skipped(file.shown, "unreadable", str(exc)) if session.alive else Cut(str(exc))

    def _new_download(self, file: RemoteFile) -> Download:
        told_s = time.monotonic()
        done = 0

        def tell(size_bytes: int) -> None:
            nonlocal told_s, done
            done += size_bytes
            self._tell(size_bytes)
            if time.monotonic() - told_s >= TOLD_EVERY_S:
                told_s = time.monotonic()
                facts = extra(file=file.shown, done_bytes=done, size_bytes=file.entry.size_bytes)
                logger.info("downloading", extra=facts)

        return Download(file.entry, self._staging, self._threads, tell=tell)

    # Room.

    async def _claim(self, file: RemoteFile) -> bool:
        """Wait for room beside what is staged and not read yet; False if nobody seems to read."""
        while self._taken_bytes and self._taken_bytes + file.entry.size_bytes > self._rules.staging_bytes:
            left_s = ROOM_S - (time.monotonic() - self._read_at_s)
            if left_s <= 0:
                return False
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), left_s)
        self._claims[file.key] = file.entry.size_bytes
        return True

    @property
    def _taken_bytes(self) -> int:
        return self._staging.size_bytes + sum(self._claims.values())

    async def _room_problem(self, file: RemoteFile) -> Skipped | None:
        """Why the disk cannot take it, with what else is on its way."""
        free = await self._staging.free_bytes()
        here = sum(each.offset for key, each in self._downloads.items() if key in self._claims)
        needed = sum(self._claims.values()) - here
        if needed <= free:
            return None
        problem = f"{_mib(needed)} are needed in {self._staging.folder.parent}, {_mib(max(free, 0))} are free"
        return Skipped(file.shown, "no_room", problem)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1_048_576:,.0f} MiB"
