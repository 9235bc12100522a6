"""Which contents lay behind which names and stamps: so that nothing is downloaded twice."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.files.reading import is_end
from connectors.remote.aftermath import ASIDE, MARK_CHARACTERS
from connectors.remote.entry import Entry
from connectors.remote.folder import RemoteFile
from connectors.source import Cursor


class Memory:
    """
    Remembers from the cursors of earlier lives, and from the downloads of this one.

    Of an earlier life only files that were read to their end count: the others must be downloaded again.
    """

    def __init__(self) -> None:
        self._contents: dict[tuple[str, str], str] = {}
        self._primed = False

    def prime(self, known: Mapping[str, Cursor]) -> None:
        """Take over what earlier lives left; once."""
        if self._primed:
            return
        self._primed = True
        for sha256, cursor in known.items():
            if is_end(cursor):
                self._contents[cursor["file"], cursor["stamp"]] = sha256

    def remember(self, file: RemoteFile, sha256: str) -> None:
        """The content behind a name and a stamp."""
        self._contents[file.key] = sha256

    def forget(self, file: RemoteFile) -> None:
        """It must be looked into again."""
        self._contents.pop(file.key, None)

    def content(self, file: RemoteFile) -> str | None:
        """The SHA-256 of what lies behind a name and a stamp, if it is known."""
        return self._contents.get(file.key)

    def left_behind(self, orphans: Mapping[str, Entry]) -> list[tuple[RemoteFile, str]]:
        """Of checksums' files whose own files are gone, by their names: those that were read, with what they sign."""
        if not orphans:
            return []
        found: dict[str, tuple[RemoteFile, str]] = {}
        for (name, stamp), sha256 in self._contents.items():
            orphan = orphans.get(name)
            # all checksums have one size: without a time this may be the next file's, come before it
            if orphan is not None and orphan.mtime_s and stamp.partition("+")[2] == orphan.stamp:
                found[name] = RemoteFile(orphan), sha256
        return list(found.values())

    def is_aside(self, entry: Entry) -> bool:
        """Whether this is a file that was read, and whose deletion was cut short after it had been renamed."""
        mark = entry.name.removeprefix(ASIDE)[:MARK_CHARACTERS].decode("ascii", "replace")
        return (
            not entry.reason
            and entry.name.startswith(ASIDE)
            and len(mark) == MARK_CHARACTERS
            and any(
                sha256.startswith(mark) and entry.stamp in stamp.split("+")
                for (_, stamp), sha256 in self._contents.items()
            )
        )
