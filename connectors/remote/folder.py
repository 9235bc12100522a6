"""
What of a remote folder is to be read: by name, by day, with its checksum's file beside it; and why the rest is not.

Names come from a stranger. Only regular files of the folder itself are looked at: no links, no folders, nothing with a
slash; and nothing here ever makes a local path of a name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo

from connectors.files.day import day_of
from connectors.files.listing import is_temporary
from connectors.remote.entry import Entry, shown
from connectors.remote.pattern import NamePattern, Window
from connectors.source import Skipped


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to read, and the file of its checksum, if checksums are wanted and it is there."""

    entry: Entry
    sidecar: Entry | None = None

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.entry.shown

    @property
    def stamp(self) -> str:
        """What changes when the file does, or its checksum."""
        return self.entry.stamp if self.sidecar is None else f"{self.entry.stamp}+{self.sidecar.stamp}"

    @property
    def key(self) -> tuple[str, str]:
        """Its name with its stamp: the same again, and nobody need look inside."""
        return self.shown, self.stamp


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    Files to read, oldest first, and what was passed over.

    `orphans` are files of checksums, by the names of the files they belong to, which are not there.
    """

    files: Sequence[RemoteFile]
    skipped: Sequence[Skipped]
    orphans: Mapping[str, Entry]


class Chooser:
    """
    Chooses among a folder's names.

    `is_readable` says whether a name tells a format that we read. Names that end with `sidecar_suffix` are never files
    to read; `with_sidecars` says whether they belong to one.
    """

    def __init__(
        self,
        pattern: NamePattern,
        zone: tzinfo,
        *,
        sidecar_suffix: str,
        with_sidecars: bool,
        is_readable: Callable[[str], bool],
    ) -> None:
        self._pattern = pattern
        self._zone = zone
        self._suffix = os.fsencode(sidecar_suffix)
        self._with_sidecars = with_sidecars
        self._is_readable = is_readable

    def choose(self, entries: Sequence[Entry], window: Window) -> Chosen:
        """The files of these days."""
        sidecars = {entry.name: entry for entry in entries if self._is_sidecar(entry)}
        files: list[RemoteFile] = []
        skipped: list[Skipped] = []
        for entry in entries:
            name = os.fsdecode(entry.name)
            if entry.name in sidecars or not self._pattern.matches(name):
                continue
            reason = self._reason(entry, name, window)
            if reason:
                skipped.append(Skipped(entry.shown, reason))
            else:
                files.append(
                    RemoteFile(entry, sidecars.get(entry.name + self._suffix) if self._with_sidecars else None)
                )
        files.sort(key=lambda file: (file.entry.mtime_s, file.entry.name))
        return Chosen(files, skipped, self._orphans(entries, sidecars) if self._with_sidecars else {})

    def _orphans(self, entries: Sequence[Entry], sidecars: Mapping[bytes, Entry]) -> dict[str, Entry]:
        names = {entry.name for entry in entries}
        owners = ((name.removesuffix(self._suffix), sidecar) for name, sidecar in sidecars.items())
        return {shown(owner): sidecar for owner, sidecar in owners if owner not in names}

    def _is_sidecar(self, entry: Entry) -> bool:
        return bool(self._suffix) and not entry.reason and entry.name.endswith(self._suffix)

    def _reason(self, entry: Entry, name: str, window: Window) -> str:
        """Why a file whose name has the pattern's form is not read; empty if it is."""
        if entry.reason:
            return entry.reason
        if is_temporary(name):
            return "temporary"
        if not self._is_readable(name):
            return "unknown_format"
        if self._pattern.dated and self._pattern.day(name) is None:
            return "no_date"
        return "" if window.is_open or self.day(entry) in window else "other_day"

    def day(self, entry: Entry) -> date:
        """The day of a file: the one that its name tells, else the one of its last change, in the connector's zone."""
        named = self._pattern.day(os.fsdecode(entry.name))
        return named or day_of(entry.mtime_s, self._zone)
