"""One owner for a directory, told by a lock that ends with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from schemas.errors import StackBusy

LOOK_ATTEMPTS = 100
LOOK_PAUSE_S = 0.005


class OwnerLock:
    """
    An exclusive lock on a file that holds its owner's process id.

    The kernel drops it when the owner ends, however it ends; the file stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, what: str) -> None:
        """
        Take the lock at once or not at all.

        Raises:
            StackBusy: another process holds it; the message names the process. Disposition: pause.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(LOOK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if owner := self.owner():
                    os.close(descriptor)
                    raise StackBusy(f"{what} is already run by process {owner} ({self.path})") from None
                # Somebody only looked who the owner is, which takes microseconds.
                time.sleep(LOOK_PAUSE_S)
        else:
            os.close(descriptor)
            raise StackBusy(f"{what} is already run by another process ({self.path})")
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def owner(self) -> int | None:
        """The process that holds the lock, or None when nobody does."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(descriptor)
        else:
            return None
        finally:
            os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 32, 0))
    except ValueError:
        return None
