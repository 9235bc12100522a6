"""A remote folder's names, as bytes, and how they are shown and joined."""

from __future__ import annotations

import os
from dataclasses import dataclass

from connectors.files.name import printable


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One name of a folder. `stamp` changes whenever the server says that the file did: its size and its time of change.

    `reason` is why it is no file to read, such as `symlink`.
    """

    name: bytes
    stamp: str = ""
    size_bytes: int = 0
    mtime_s: float = 0.0
    reason: str = ""

    @property
    def shown(self) -> str:
        """The name for people, as `printable` spells it."""
        return shown(self.name)


def shown(path: bytes) -> str:
    """A path for people; different ones stay different."""
    return printable(os.fsdecode(path))


def join(folder: bytes, name: bytes) -> bytes:
    """The path of a name in a folder; a name that begins with a slash is a path of its own."""
    if name.startswith(b"/"):
        return name
    return b"/" + name if folder == b"/" else folder.rstrip(b"/") + b"/" + name
