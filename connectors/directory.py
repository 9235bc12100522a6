"""
Files dropped into a local folder: CSV, JSON, JSON lines (seed 000's tutorial connector, made to last).

A file is read when it is at rest. Its identity is its content: the same bytes are read once, under whatever name, and
new content under a known name is a new revision. Files stay where they are.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from connectors.check import Told, step
from connectors.context import SourceContext
from connectors.files import content
from connectors.files.config import FilesConfig
from connectors.files.cursor import model as cursor_model
from connectors.files.day import day_of
from connectors.files.listing import Entry, Folder, Identified, is_temporary
from connectors.files.name import printable
from connectors.files.reading import FileReader, LocalFile
from connectors.files.sample import SAMPLE_BYTES, tried
from connectors.files.thread import Threads
from connectors.log import Listings
from connectors.source import Batch, CheckStep, Cursor, File, Skipped, Task
from connectors.spec import SourceSpec
from schemas.errors import SourceUnavailable
from schemas.event import MAX_PATH

logger = logging.getLogger(__name__)

_MOST_NAMES = 100  # that a check lists
_SILENT = ("", "pattern")  # what is wanted, and what was never meant


class DirectoryConfig(FilesConfig):
    """A watched folder."""

    directory: str = Field("", description="Folder that partners write into.", validate_default=True)

    @field_validator("directory")
    @classmethod
    def _is_named(cls, value: str) -> str:
        if not value:
            raise ValueError("missing directory to watch")  # seed 000's words
        if "\x00" in value:
            raise ValueError("a folder's name holds no NUL")
        return value


class DirectorySource:
    """Publishes every file at rest in a folder, each content once."""

    def __init__(self, config: DirectoryConfig, context: SourceContext) -> None:
        self._config = config
        self._threads = Threads(limit=2 * config.parallel + 2)
        self._reader = FileReader(config, context, self._threads)
        self._folder = Folder(config.directory, rest_s=config.rest_s, clock=context.clock, threads=self._threads)
        self._matches = re.compile(fnmatch.translate(config.pattern)).match
        self._zone = ZoneInfo(config.timezone) if config.timezone else UTC
        self._listings = Listings(logger, printable(config.directory))
        self._primed = False

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        """
        A task for each file at rest, oldest first.

        Raises:
            SourceUnavailable: the folder cannot be listed. Disposition: retry.
        """
        self._prime(known)
        wanted: list[Entry] = []
        others: list[Entry] = []
        try:
            async for page in self._folder.entries():
                reasons = [(entry, self._skip_reason(entry)) for entry in page]
                wanted += [entry for entry, reason in reasons if not reason]
                others += [entry for entry, reason in reasons if reason and not entry.reason]
                yield [Skipped(printable(one.name), why, one.problem) for one, why in reasons if why not in _SILENT]
        except SourceUnavailable:
            self._listings.failed()
            raise
        self._listings.found(len(wanted))
        resting, moving = await self._folder.at_rest(wanted, others)
        yield [Skipped(printable(entry.name), "not_at_rest") for entry in moving]
        async for found in self._folder.identified(resting):
            yield [item if isinstance(item, Skipped) else self._task(item) for item in found]

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        The file's records after `since`, a block of the file at a time.

        Raises:
            SourceUnavailable, SourceChanged: the file is gone, or another one by now. Disposition: retry.
        """
        local = LocalFile(self._config.directory, task.context, task.context.name)
        async with aclosing(self._reader.batches(local, task, since)) as batches:
            async for batch in batches:
                yield batch

    async def check(self) -> Sequence[CheckStep]:
        """Open the folder, list it, try the mapping on the beginning of the newest file of it."""
        return await _check(self._folder, self._try, wanted=lambda entry: not self._skip_reason(entry))

    async def close(self) -> None:
        """Let the threads end; no file is held between calls."""
        self._threads.close()

    async def _try(self, entry: Entry) -> str:
        shown = printable(entry.name)
        opening = content.opened(self._config.directory, entry.name, shown=shown, threads=self._threads)
        async with opening as file:
            head = await file.block(0, SAMPLE_BYTES)
        return tried(self._reader, name=entry.name, shown=shown, head=head, size_bytes=entry.size_bytes)

    def _task(self, found: Identified) -> Task:
        path = printable(f"{self._config.directory.rstrip('/')}/{found.entry.name}")[-MAX_PATH:]
        file = File(found.entry.size_bytes, day_of(found.entry.mtime_s, self._zone))
        return Task(found.shown, found.sha256, found.sha256, path, file=file, context=found.ref)

    def _skip_reason(self, entry: Entry) -> str:
        """Why an entry is not read, by its kind and name; empty if it is."""
        if not self._matches(entry.name):
            return "pattern"
        if entry.reason:
            return entry.reason
        if is_temporary(entry.name):
            return "temporary"
        return "" if self._config.format_of(entry.name) else "unknown_format"

    def _prime(self, known: Mapping[str, Cursor]) -> None:
        """Hashes of earlier lives, from the cursors, so that nothing is hashed again that has not changed."""
        if not self._primed:
            self._primed = True
            for sha256, cursor in known.items():
                if "file" in cursor:
                    self._folder.remember(cursor["file"], cursor["stamp"], sha256)


SPEC = SourceSpec(
    kind="directory",
    summary="Records of files dropped into a local folder: CSV, JSON, JSON lines.",
    config=DirectoryConfig,
    factory=DirectorySource,
    resumes_from="byte offset and row in each file, by content",
    cursor=cursor_model,
    example={
        "directory": "/srv/partners/acme",
        "pattern": "*.csv",
        "columns": {"reference": "Payment id", "amount": "Value", "effective_at": "Booked"},
        "type": "payin",
        "amount_unit": "major",
        "date_format": "%d/%m/%Y",
        "timezone": "Europe/Paris",
    },
    notes="What a file may look like: [files.md](../files.md). It is read once it is at rest, and stays where it is.",
)


async def _check(
    folder: Folder, attempt: Callable[[Entry], Awaitable[str]], *, wanted: Callable[[Entry], bool]
) -> list[CheckStep]:
    steps: list[CheckStep] = []
    entries: list[Entry] = []

    async def list_folder() -> Told:
        async for page in folder.entries():
            entries.extend(page)
            break
        names = [printable(entry.name) for entry in entries if wanted(entry)]
        return Told(f"{len(entries)} entries seen", tuple(sorted(names)[:_MOST_NAMES]))

    async def read_a_file() -> str:
        newest = max(filter(wanted, entries), key=lambda entry: (entry.mtime_s, entry.name), default=None)
        return "no file yet" if newest is None else await attempt(newest)

    steps.append(await step("list the folder", list_folder()))
    if steps[-1].ok:
        steps.append(await step("read a file", read_a_file()))
    return steps
