"""
Where downloads lie until they are read to the end: a folder of this process's own, below the connector's.

What a process leaves behind that was killed is removed by the next one. Which folders those are, locks tell: one whose
lock can be had has no owner any more. So a worker that was only frozen is never robbed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from connectors.files.content import FileRef, stamp, words
from connectors.files.thread import Threads
from schemas.errors import SourceUnavailable

T = TypeVar("T")

KEEP_FREE_BYTES = 256 * 1_048_576  # of the disk: others write there too
_LOCK = ".lock"
_PRIVATE = 0o700


class Staging:
    """The folder, made when it is first needed. What touches the disk happens off the event loop."""

    def __init__(self, parent: Path, threads: Threads) -> None:
        self._parent = parent
        self._threads = threads
        self._lock: int | None = None
        self._sizes: dict[str, int] = {}
        self.folder = parent / uuid.uuid4().hex

    async def open(self) -> None:
        """
        Make the folder, and remove what dead processes left. Once it is made, again changes nothing.

        Raises:
            SourceUnavailable: retry; it cannot be made.
        """
        await self._call(self._open, f"making {self.folder}")

    def part(self) -> Path:
        """A name for a download."""
        return self.folder / f"{uuid.uuid4().hex}.part"

    @property
    def size_bytes(self) -> int:
        """How much lies here, complete."""
        return sum(self._sizes.values())

    @property
    def contents(self) -> list[str]:
        """What lies here, complete, by hash."""
        return list(self._sizes)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._sizes

    async def adopt(self, part: Path, sha256: str) -> None:
        """
        A download is complete: from now on it lies under its content's hash.

        Raises:
            SourceUnavailable: retry.
        """
        if sha256 in self._sizes:
            await self.discard(part)  # what is there may be open: it must not be replaced under its reader
        else:
            self._sizes[sha256] = await self._call(lambda: _renamed(part, self.folder / sha256), "staging a download")

    async def file(self, sha256: str) -> FileRef:
        """
        The staged file, as a reader needs it.

        Raises:
            SourceUnavailable: retry; it is not here any more.
        """
        try:
            status = await self._call((self.folder / sha256).stat, "looking for the staged copy")
        except SourceUnavailable:
            self._sizes.pop(sha256, None)  # so that the next listing brings it again
            raise
        return FileRef(sha256, stamp(status), status.st_size)

    async def remove(self, sha256: str) -> None:
        """It has been read, or is not wanted. Raises nothing."""
        if self._sizes.pop(sha256, None) is not None:
            await self.discard(self.folder / sha256)

    async def discard(self, path: Path) -> None:
        """Remove a file of the folder. Raises nothing."""
        with contextlib.suppress(SourceUnavailable):  # the next process removes the folder
            await self._call(lambda: path.unlink(missing_ok=True), "tidying the staging folder")

    async def free_bytes(self) -> int:
        """
        What the disk has room for, beside what is kept free for others.

        Raises:
            SourceUnavailable: retry.
        """
        return await self._call(lambda: shutil.disk_usage(self.folder).free - KEEP_FREE_BYTES, "looking at the disk")

    async def close(self) -> None:
        """Remove the folder. Raises nothing."""
        if self._lock is not None:
            with contextlib.suppress(SourceUnavailable):
                await self._call(lambda: shutil.rmtree(self.folder, ignore_errors=True), "removing the staging folder")
            os.close(self._lock)
            self._lock = None

    async def _call(self, call: Callable[[], T], what: str) -> T:
        try:
            return await self._threads.run(call)
        except OSError as exc:
            raise SourceUnavailable(f"{what}: {words(exc)}", hint="is there room, and may the worker write?") from exc

    def _open(self) -> None:
        if self._lock is not None and self.folder.exists():
            return
        self._parent.mkdir(_PRIVATE, parents=True, exist_ok=True)
        entry = os.open(self._parent / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(
                entry, fcntl.LOCK_EX
            )  # one process at a time makes a folder and locks it, or looks for dead ones
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            self._sizes.clear()
            _remove_dead(self._parent)
            self.folder.mkdir(_PRIVATE)
            self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _PRIVATE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(entry)


def _remove_dead(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.is_dir() and not folder.is_symlink() and not _is_owned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_owned(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _renamed(part: Path, whole: Path) -> int:
    part.replace(whole)
    return whole.stat().st_size
