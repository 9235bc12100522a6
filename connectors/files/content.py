"""
One file's content: opened without following links or blocking, its identity, its blocks, and whether it kept still.

Nothing outside the folder is ever opened: names are opened relative to the folder's descriptor, `O_NOFOLLOW` refuses a
link, `O_NONBLOCK` keeps a FIFO from blocking, and only a regular file is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from connectors.files.thread import Threads
from schemas.errors import SourceChanged, SourceUnavailable

T = TypeVar("T")

BLOCK_BYTES = 1_048_576
_HASH_SLICE_BYTES = 64 * BLOCK_BYTES  # what one call to a thread hashes at most, so that a deadline can watch
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file as the listing met it: its name as the system gave it, and what `fstat` said (see `stamp`)."""

    name: str
    stamp: str
    size_bytes: int


def stamp(status: os.stat_result) -> str:
    """What changes whenever a file does: device, inode, size, times of change. `ctime` cannot be set back."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


class Content:
    """An open file. Every call checks that it is still the file that was opened."""

    def __init__(self, descriptor: int, opened_as: str, shown: str, threads: Threads) -> None:
        self._descriptor = descriptor
        self.stamp = opened_as
        self._shown = shown
        self._threads = threads

    async def sha256(self) -> AsyncIterator[str | None]:
        """
        None for each slice that was hashed, then the SHA-256 of the whole content, in hex.

        Raises:
            SourceChanged, SourceUnavailable: retry.
        """
        digest = hashlib.sha256()
        offset = 0
        while True:
            hashed = await self._call(_hash, offset, digest)
            offset += hashed
            if hashed < _HASH_SLICE_BYTES:
                break
            yield None
        yield digest.hexdigest()

    async def block(self, offset: int, size_bytes: int = BLOCK_BYTES) -> bytes:
        """
        The bytes from `offset`, fewer than asked for only at the end.

        Raises:
            SourceChanged, SourceUnavailable: retry.
        """
        return await self._call(_read, offset, size_bytes)

    async def _call(self, call: Callable[..., tuple[T, os.stat_result]], *args: object) -> T:
        try:
            result, status = await self._threads.run(call, self._descriptor, *args)
        except OSError as exc:
            raise SourceUnavailable(f"reading {self._shown}: {words(exc)}") from exc
        if stamp(status) != self.stamp:
            raise SourceChanged(f"{self._shown} changed while it was read")
        return result


@asynccontextmanager
async def opened(folder: str, name: str, *, shown: str, threads: Threads) -> AsyncIterator[Content]:
    """
    The regular file `name` of `folder`, open for reading.

    Raises:
        SourceUnavailable: retry; it is gone, may not be read, or is no regular file.
    """
    try:
        descriptor, status = await threads.run(open_regular, folder, name)
    except OSError as exc:
        raise SourceUnavailable(f"opening {shown}: {words(exc)}") from exc
    try:
        yield Content(descriptor, stamp(status), shown, threads)
    finally:
        os.close(descriptor)


def open_regular(folder: str, name: str) -> tuple[int, os.stat_result]:
    """A descriptor of the regular file `name` of `folder`, and its status. Raises OSError, also for any other kind."""
    root = os.open(folder, _OPEN_FOLDER)
    try:
        descriptor = os.open(name, _OPEN, dir_fd=root)
    finally:
        os.close(root)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{name!r} is no regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def _hash(descriptor: int, offset: int, digest: hashlib._Hash) -> tuple[int, os.stat_result]:
    hashed = 0
    while hashed < _HASH_SLICE_BYTES:
        block = os.pread(descriptor, min(BLOCK_BYTES, _HASH_SLICE_BYTES - hashed), offset + hashed)
        if not block:
            break
        digest.update(block)
        hashed += len(block)
    return hashed, os.fstat(descriptor)


def _read(descriptor: int, offset: int, size_bytes: int) -> tuple[bytes, os.stat_result]:
    parts: list[bytes] = []
    got = 0
    while got < size_bytes and (part := os.pread(descriptor, size_bytes - got, offset + got)):
        parts.append(part)
        got += len(part)
    return b"".join(parts), os.fstat(descriptor)


def words(exc: OSError) -> str:
    """What the system said, as seed 000's log has it: lower case."""
    return (exc.strerror or str(exc)).lower()
