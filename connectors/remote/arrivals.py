"""
One listing of a remote folder after the other: what is there, what is new, and each new file's way to a task.

What is known is offered again without being touched. New files are brought in side by side and offered in their order.
A file during which the connection breaks may be the culprit, or a neighbour of it: each such file is tried again alone,
when all others are through.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from connectors.files.reading import is_end
from connectors.log import Listings
from connectors.remote.aftermath import Finishing
from connectors.remote.door import Door
from connectors.remote.fetch import Cut, Fetcher
from connectors.remote.folder import Chooser, Chosen, RemoteFile
from connectors.remote.memory import Memory
from connectors.remote.pages import Emit, in_order
from connectors.remote.pattern import Window
from connectors.remote.rest import LONGEST_WAIT_S, Rest
from connectors.remote.staging import Staging
from connectors.source import Cursor, File, Skipped, Task
from schemas.errors import SourceUnavailable, TillError
from schemas.event import MAX_PATH

logger = logging.getLogger(__name__)

_PAGE = 2_000  # tasks
_MOST_CUTS_ALONE = 3  # files in a row, each alone, after which it is the server


class Arrivals:
    """The folder of one connector, listed again and again. `place` is its address in lineage."""

    def __init__(
        self,
        door: Door,
        fetcher: Fetcher,
        staging: Staging,
        finishing: Finishing,
        *,
        place: str,
        folder: bytes,
        chooser: Chooser,
        rest: Rest,
        parallel: int,
    ) -> None:
        self._place = place
        self._folder = folder
        self._door = door
        self._chooser = chooser
        self._rest = rest
        self._staging = staging
        self._fetcher = fetcher
        self._finishing = finishing
        self._parallel = parallel
        self._listings = Listings(logger, place)
        self._memory = Memory()
        self._done: set[str] = set()
        self._forced: set[str] = set()

    async def offer(self, known: Mapping[str, Cursor], window: Window, emit: Emit, *, force: bool) -> None:
        """
        Offer everything there is, as pages.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured, SourceUnauthorised: pause.
        """
        self._memory.prime(known)
        self._finishing.begin_listing()
        self._fetcher.moved()
        await self._staging.open()
        await self._tidy(known)
        try:
            chosen = await self._look(window)
        except TillError:
            self._listings.failed()
            raise
        wait_s = max((self._rest.missing_s(file.shown) for file in self._new(chosen, known, force=force)), default=0)
        if 0 < wait_s <= LONGEST_WAIT_S:
            await self._rest.wait(wait_s)
            chosen = await self._look(window)
        self._listings.found(len(chosen.files))
        emit(chosen.skipped)
        await self._fetcher.keep_only(chosen.files)
        new = self._new(chosen, known, force=force)
        done = self._offer_known(chosen, new, known, emit)
        moving = {file.shown for file in new if self._rest.missing_s(file.shown)}
        emit([Skipped(name, "not_at_rest") for name in moving])
        await self._bring([file for file in new if file.shown not in moving], known, emit, force=force)
        left = self._memory.left_behind({} if self._finishing.leaves else chosen.orphans)
        done += [(checksum, sha256) for checksum, sha256 in left if self._is_done(sha256, known)]
        emit(await self._finishing.catch_up(done))

    async def done(self, sha256: str) -> None:
        """All of this content is durable: its copy is not needed any more."""
        self._done.add(sha256)
        self._forced.discard(sha256)
        await self._staging.remove(sha256)
        self._fetcher.moved()

    async def _look(self, window: Window) -> Chosen:
        async with self._door.session() as session:
            entries = await session.entries(self._folder)
        if not self._finishing.leaves:
            await self._finishing.remove_asides([entry for entry in entries if self._memory.is_aside(entry)])
        chosen = self._chooser.choose(entries, window)
        self._rest.look({file.shown: file.stamp for file in chosen.files})
        return chosen

    def _is_done(self, sha256: str, known: Mapping[str, Cursor]) -> bool:
        return sha256 in self._done or is_end(known.get(sha256))

    def _new(self, chosen: Chosen, known: Mapping[str, Cursor], *, force: bool) -> list[RemoteFile]:
        """Files whose content must be brought in."""
        if force:
            return list(chosen.files)
        found = []
        for file in chosen.files:
            sha256 = self._memory.content(file)
            is_here = sha256 is not None and sha256 in self._staging
            if sha256 is None or (not is_here and (sha256 in self._forced or not self._is_done(sha256, known))):
                found.append(file)
        return found

    def _offer_known(
        self, chosen: Chosen, new: Sequence[RemoteFile], known: Mapping[str, Cursor], emit: Emit
    ) -> list[tuple[RemoteFile, str]]:
        """Offer the others; those of them that are done."""
        unknown = {file.key for file in new}
        contents = [(file, self._memory.content(file)) for file in chosen.files if file.key not in unknown]
        offered = [(file, sha256) for file, sha256 in contents if sha256 is not None]
        for start in range(0, len(offered), _PAGE):
            emit([self._task(file, sha256) for file, sha256 in offered[start : start + _PAGE]])
        return [(file, sha256) for file, sha256 in offered if self._is_done(sha256, known)]

    async def _bring(
        self, files: Sequence[RemoteFile], known: Mapping[str, Cursor], emit: Emit, *, force: bool
    ) -> None:
        suspects: list[RemoteFile] = []
        in_a_row = 0
        async for file, fetched in in_order(files, self._fetcher.fetch, parallel=self._parallel):
            in_a_row = in_a_row + 1 if isinstance(fetched, Cut) else 0
            if isinstance(fetched, Cut):
                suspects.append(file)
                self._give_up(fetched, in_a_row, 2 * self._parallel)
            else:
                emit([await self._met(file, fetched, known, force=force)])
        in_a_row = 0
        for file in suspects:
            fetched = await self._fetcher.fetch(file)
            in_a_row = in_a_row + 1 if isinstance(fetched, Cut) else 0
            if isinstance(fetched, Cut):
                emit([Skipped(file.shown, "cut_off", fetched.problem)])
                self._give_up(fetched, in_a_row, _MOST_CUTS_ALONE)
            else:
                emit([await self._met(file, fetched, known, force=force)])

    def _give_up(self, cut: Cut, in_a_row: int, most: int) -> None:
        """It is not the files, it is the server."""
        if in_a_row > most:
            raise SourceUnavailable(cut.problem)

    async def _met(
        self, file: RemoteFile, fetched: str | Skipped, known: Mapping[str, Cursor], *, force: bool
    ) -> Task | Skipped:
        if isinstance(fetched, Skipped):
            return fetched
        self._memory.remember(file, fetched)
        if force:
            self._forced.add(fetched)
        elif self._is_done(fetched, known):
            await self._staging.remove(fetched)  # known under another name; the runner says so, and reads nothing
        return self._task(file, fetched)

    async def _tidy(self, known: Mapping[str, Cursor]) -> None:
        """Copies of what is done, which nobody will read."""
        for sha256 in self._staging.contents:
            if self._is_done(sha256, known) and sha256 not in self._forced:
                await self._staging.remove(sha256)

    def _task(self, file: RemoteFile, sha256: str) -> Task:
        facts = File(file.entry.size_bytes, self._chooser.day(file.entry), downloaded=True)
        path = f"{self._place}/{file.shown}"[-MAX_PATH:]
        return Task(file.shown, sha256, sha256, path, file=facts, context=file)
