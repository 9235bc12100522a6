"""
What lies in a folder: regular files at rest, their identity, and what was passed over and why.

A listing costs no I/O but `scandir` and `stat` for files that have not changed since their content was hashed; the
hashes outlive the process in the cursors. All of it happens off the event loop, in pages.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from connectors.files import content
from connectors.files.content import FileRef, words
from connectors.files.name import printable
from connectors.files.thread import Threads
from connectors.ports import Clock
from connectors.source import Skipped
from schemas.errors import SourceChanged, SourceUnavailable

_PAGE = 2_000  # entries that one call to a thread brings
_HASH_PAGE = 256  # files that one call hashes at most,
_HASH_PAGE_BYTES = 64 * content.BLOCK_BYTES  # and how much of them

_TEMPORARY_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", "~")


class Entry(NamedTuple):
    """One regular file of a listing, or what kept it from being one."""

    name: str
    stamp: str = ""
    size_bytes: int = 0
    mtime_s: float = 0.0
    inode: str = ""
    reason: str = ""
    problem: str = ""


class Identified(NamedTuple):
    """A file and its content's SHA-256."""

    entry: Entry
    shown: str
    sha256: str

    @property
    def ref(self) -> FileRef:
        """What reading it needs."""
        return FileRef(self.entry.name, self.entry.stamp, self.entry.size_bytes)


@dataclass(frozen=True, slots=True)
class _Young:
    """A file that changed lately, as the listing before saw it."""

    name: str
    stamp: str
    size_and_mtime: tuple[int, float]
    since_s: float


def _size_and_mtime(entry: Entry) -> tuple[int, float]:
    return entry.size_bytes, entry.mtime_s


def is_temporary(name: str) -> bool:
    """Whether the name says that its writer is not through: hidden, or with a suffix that uploads use."""
    return name.startswith(".") or name.lower().endswith(_TEMPORARY_SUFFIXES)


class Folder:
    """One folder, listed again and again."""

    def __init__(self, path: str, *, rest_s: float, clock: Clock, threads: Threads) -> None:
        self._path = path
        self._rest_s = rest_s
        self._clock = clock
        self._threads = threads
        self._young: dict[str, _Young] = {}
        self._hashes: dict[str, tuple[str, str]] = {}

    def remember(self, shown: str, stamp: str, sha256: str) -> None:
        """A hash from an earlier life. What was hashed in this one counts more."""
        self._hashes.setdefault(shown, (stamp, sha256))

    async def entries(self) -> AsyncIterator[list[Entry]]:
        """
        Pages of what is there, in no order.

        Raises:
            SourceUnavailable: retry; the folder cannot be listed. The words are those of seed 000's log.
        """
        try:
            listing = await self._threads.run(_Listing, self._path)
            try:
                while page := await self._threads.run(listing.page):
                    yield page
            finally:
                listing.close()
        except OSError as exc:
            shown = printable(self._path)
            raise SourceUnavailable(
                f"Error opening directory '{shown}': open {shown}: {words(exc)}",
                hint="create the folder, or let us read it; listing goes on by itself",
            ) from exc

    async def at_rest(self, entries: Sequence[Entry], others: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """
        Those `entries` that nobody is writing, oldest first, and those that somebody may be.

        At rest is what has not changed for `rest_s`, by its own time or by what earlier listings saw, and what was seen
        under another name (one of the `others`, say) and has only been renamed since.
        """
        return await self._threads.run(self._sort_out, entries, others)

    def _sort_out(self, entries: Sequence[Entry], others: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        now, ticks = self._clock.now().timestamp(), self._clock.monotonic()
        known, young = self._young, dict[str, _Young]()
        names = {entry.name for entry in (*entries, *others)} if known else set()
        resting: list[Entry] = []
        moving: list[Entry] = []
        for entry in entries:
            if self._rest_s == 0 or self._rest_s <= now - entry.mtime_s:
                resting.append(entry)
                continue
            seen = known.get(entry.inode)
            same = seen is not None and (seen.name, seen.stamp) == (entry.name, entry.stamp)
            renamed = seen is not None and seen.size_and_mtime == _size_and_mtime(entry) and seen.name not in names
            since_s = seen.since_s if seen is not None and (same or renamed) else ticks
            young[entry.inode] = _Young(entry.name, entry.stamp, _size_and_mtime(entry), since_s)
            if renamed or ticks - since_s >= self._rest_s:
                resting.append(entry)
            else:
                moving.append(entry)
        for entry in others:
            if now - entry.mtime_s < self._rest_s:
                young[entry.inode] = _Young(entry.name, entry.stamp, _size_and_mtime(entry), ticks)
        self._young = young
        resting.sort(key=lambda entry: (entry.mtime_s, entry.name))
        return resting, moving

    async def identified(self, entries: Sequence[Entry]) -> AsyncIterator[list[Identified | Skipped]]:
        """
        Pages of files with their contents' hashes, in the order given. An empty one says that hashing goes on.

        A file that cannot be read is passed over with its problem; one that changes meanwhile waits for the next one.
        """
        for page in _pages(entries, self._is_hashed):
            if len(page) == 1 and page[0].size_bytes > _HASH_PAGE_BYTES and not self._is_hashed(page[0]):
                async for one in self._identified_slowly(page[0]):
                    yield one
                continue
            unknown = [entry for entry in page if not self._is_hashed(entry)]
            hashes = await self._threads.run(_hash_all, self._path, unknown) if unknown else {}
            yield [self._judged(entry, hashes.get(entry.name)) for entry in page]

    async def _identified_slowly(self, entry: Entry) -> AsyncIterator[list[Identified | Skipped]]:
        shown = printable(entry.name)
        try:
            async with content.opened(self._path, entry.name, shown=shown, threads=self._threads) as file:
                if file.stamp != entry.stamp:
                    yield [Skipped(shown, "not_at_rest")]
                    return
                async for digest in file.sha256():
                    yield [] if digest is None else [self._judged(entry, digest)]
        except SourceUnavailable as exc:
            yield [Skipped(shown, "unreadable", str(exc))]
        except SourceChanged:
            yield [Skipped(shown, "not_at_rest")]

    def _is_hashed(self, entry: Entry) -> bool:
        return self._hashes.get(printable(entry.name), ("", ""))[0] == entry.stamp

    def _judged(self, entry: Entry, hashed: str | OSError | None) -> Identified | Skipped:
        shown = printable(entry.name)
        if isinstance(hashed, OSError):
            if hashed.errno in (errno.ELOOP, errno.ENOENT):  # replaced by a link, or gone, since it was listed
                return Skipped(shown, "not_at_rest")
            return Skipped(shown, "unreadable", f"open {printable(self._path)}/{shown}: {words(hashed)}")
        if hashed is not None:
            self._hashes[shown] = (entry.stamp, hashed)
        stamp, sha256 = self._hashes.get(shown, ("", ""))
        return Identified(entry, shown, sha256) if stamp == entry.stamp else Skipped(shown, "not_at_rest")


class _Listing:
    """
    A folder being listed, page by page, in threads.

    An abandoned listing is closed while a thread may still be in it, and the C library takes a folder that is closed
    under it for a crash. So the thread closes it when it comes back.
    """

    def __init__(self, path: str) -> None:
        self._entries = os.scandir(path)
        self._reading = threading.Lock()
        self._closed = False

    def __del__(self) -> None:
        # Opened by a thread whose caller had given up: nobody else knows of it. There is none if opening failed.
        if hasattr(self, "_entries"):
            self._entries.close()

    def page(self) -> list[Entry]:
        """Some entries; none at the end."""
        try:
            with self._reading:
                return [] if self._closed else self._read()
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close it now, or when the thread in it comes back. Never waits."""
        self._closed = True
        if self._reading.acquire(blocking=False):
            self._entries.close()
            self._reading.release()

    def _read(self) -> list[Entry]:
        page: list[Entry] = []
        for found in self._entries:
            try:
                status = found.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as exc:
                page.append(Entry(found.name, reason="unreadable", problem=words(exc)))
                continue
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
            inode = f"{status.st_dev}:{status.st_ino}"
            page.append(Entry(found.name, content.stamp(status), status.st_size, status.st_mtime, inode, kind))
            if len(page) >= _PAGE:
                break
        return page


_KINDS = {
    stat.S_IFREG: "",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _pages(entries: Sequence[Entry], is_hashed: Callable[[Entry], bool]) -> Iterator[list[Entry]]:
    """Consecutive entries, as many as one call may hash; a large one alone."""
    page: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        cost = 0 if is_hashed(entry) else entry.size_bytes
        if page and (len(page) >= _HASH_PAGE or size_bytes + cost > _HASH_PAGE_BYTES):
            yield page
            page, size_bytes = [], 0
        page.append(entry)
        size_bytes += cost
    if page:
        yield page


def _hash_all(folder: str, entries: Sequence[Entry]) -> dict[str, str | OSError]:
    """Hashes by name; an error where there is one; nothing for a file that changed meanwhile."""
    hashes: dict[str, str | OSError] = {}
    for entry in entries:
        try:
            descriptor, status = content.open_regular(folder, entry.name)
            try:
                digest = hashlib.sha256()
                offset = 0
                while block := os.pread(descriptor, content.BLOCK_BYTES, offset):
                    digest.update(block)
                    offset += len(block)
                if content.stamp(status) == entry.stamp == content.stamp(os.fstat(descriptor)):
                    hashes[entry.name] = digest.hexdigest()
            finally:
                os.close(descriptor)
        except OSError as exc:
            hashes[entry.name] = exc
    return hashes
