"""
What becomes of a remote file once all of it is durable: it is left, moved, or deleted.

A file that was replaced meanwhile is never touched. A look before the act would leave a moment for that, so the file is
first renamed, then looked at, and only then kept away or deleted; the wrong one is put back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from connectors.log import extra
from connectors.remote.door import Door
from connectors.remote.entry import Entry, join, shown
from connectors.remote.folder import RemoteFile
from connectors.remote.options import AfterRead
from connectors.remote.pattern import MAX_NAME_BYTES
from connectors.remote.session import Session
from connectors.source import Skipped
from schemas.errors import SourceUnavailable, TillError

logger = logging.getLogger(__name__)

_TAKEN = 16  # names that are tried where a folder holds a file of the name already
MARK_CHARACTERS = 12  # of a content's hash in a name
ASIDE = b".till-"  # what a file is called between the look and its deletion; hidden, so no listing takes it


class Aftermath:
    """Puts files away. `folder` is where they lie, `target` where they are moved to."""

    def __init__(self, policy: AfterRead, folder: bytes, target: bytes) -> None:
        self.policy = policy
        self._folder = folder
        self._target = target

    async def apply(self, session: Session, file: RemoteFile, sha256: str) -> bool:
        """
        Put a file and its checksum away; False if it is not there any more, or another one by now.

        Raises:
            SourceUnavailable: retry; the server does not let us.
        """
        found = await session.entry(self._folder, file.entry.name)
        if found is None or found.stamp != file.entry.stamp or found.reason:
            return False
        if not await self._put_away(session, file.entry, sha256):
            return False
        if file.sidecar is not None:
            await self._put_away(session, file.sidecar, sha256)
        logger.info("file put away", extra=extra(file=file.shown, policy=self.policy.value))
        return True

    async def remove(self, session: Session, entry: Entry) -> None:
        """
        Delete it.

        Raises:
            SourceUnavailable: retry.
        """
        await session.remove(join(self._folder, entry.name))

    async def _put_away(self, session: Session, entry: Entry, sha256: str) -> bool:
        """Whether it was still the one that was read."""
        source = join(self._folder, entry.name)
        folder, name = await self._away(session, source, entry.name, sha256)
        moved = await session.entry(folder, name)
        if moved is None:
            return False
        if moved.stamp != entry.stamp:
            await session.rename(join(folder, name), source)
            return False
        if self.policy is AfterRead.DELETE:
            await session.remove(join(folder, name))
        return True

    async def _away(self, session: Session, source: bytes, name: bytes, sha256: str) -> tuple[bytes, bytes]:
        """Rename it to where no file is; the folder and the name that it has now."""
        mark = sha256[:MARK_CHARACTERS].encode()
        deletes = self.policy is AfterRead.DELETE
        folder = self._folder if deletes else self._target
        stem = ASIDE + mark if deletes else name[: MAX_NAME_BYTES - 2 * MARK_CHARACTERS] + b"." + mark
        names = [*(() if deletes else (name,)), stem, *(b"%s.%d" % (stem, number) for number in range(2, _TAKEN))]
        for new in names:
            if await session.entry(folder, new) is not None:
                continue
            try:
                await session.rename(source, join(folder, new))
            except SourceUnavailable:
                if not session.alive or deletes:
                    raise
                await session.make_folder(folder)
                await session.rename(source, join(folder, new))
            return folder, new
        raise SourceUnavailable(f"{shown(folder)} has too many files that are called like {shown(name)}")


class Finishing:
    """
    Puts each file away once: when its task is done, or, where that was cut short, from a later listing.

    A listing knows of a done task only that its cursor stands at the end. So it offers the task to the runner first,
    which would read it if it were not done; what nobody has read by the next listing is done indeed.
    """

    def __init__(self, aftermath: Aftermath, door: Door) -> None:
        self._aftermath = aftermath
        self._door = door
        self._listing = 0
        self._offered: dict[tuple[str, str], int] = {}
        self._read: dict[str, int] = {}
        self._busy: set[str] = set()
        self._undone: dict[str, str] = {}

    @property
    def leaves(self) -> bool:
        """Whether there is nothing to do."""
        return self._aftermath.policy is AfterRead.LEAVE

    def begin_listing(self) -> None:
        """Another listing begins."""
        self._listing += 1
        self._read = {sha256: number for sha256, number in self._read.items() if number >= self._listing - 1}

    def reads(self, sha256: str) -> None:
        """This content is being read: it is not done."""
        self._read[sha256] = self._listing

    async def finish(self, file: RemoteFile, sha256: str) -> None:
        """The file's task is done. Raises nothing."""
        if self.leaves or file.shown in self._busy:
            return
        self._busy.add(file.shown)
        try:
            async with self._door.session() as session:
                await self._aftermath.apply(session, file, sha256)
            self._undone.pop(file.shown, None)
        except TillError as exc:
            if self._undone.get(file.shown) != str(exc):
                logger.warning("file not put away", extra=extra(file=file.shown, error=exc, hint=exc.hint))
            self._undone[file.shown] = str(exc)
        finally:
            self._busy.discard(file.shown)

    async def catch_up(self, done: Sequence[tuple[RemoteFile, str]]) -> list[Skipped]:
        """
        Put away what this listing offered, the one before too, and nobody read; and tell what cannot be.

        A checksum whose file is away already comes as a file of its own.
        """
        if self.leaves:
            return []
        before, self._offered = self._offered, {file.key: self._listing for file, _ in done}
        for file, sha256 in done:
            if before.get(file.key) == self._listing - 1 and self._read.get(sha256, -1) < self._listing - 1:
                await self.finish(file, sha256)
        names = {file.shown for file, _ in done}
        self._undone = {name: problem for name, problem in self._undone.items() if name in names}
        return [Skipped(name, "not_put_away", problem) for name, problem in self._undone.items()]

    async def remove_asides(self, entries: Sequence[Entry]) -> None:
        """Delete what was renamed in order to be deleted, and then was not. Raises nothing."""
        for entry in entries:
            try:
                async with self._door.session() as session:
                    await self._aftermath.remove(session, entry)
            except TillError as exc:
                logger.warning("file not deleted", extra=extra(file=entry.shown, error=exc, hint=exc.hint))
