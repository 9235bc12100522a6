"""
Files dropped into a local folder: CSV, JSON, JSON lines (seed 000's tutorial connector, made to last).

A file is read when it is at rest. Its identity is its content: the same bytes are read once, under whatever name, and
new content under a known name is a new revision. Files stay where they are.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import PurePath

from pydantic import Field, field_validator

from connectors.context import SourceContext
from connectors.files import content
from connectors.files.content import BLOCK_BYTES, Content, FileRef
from connectors.files.delimited import DelimitedParser
from connectors.files.listing import Entry, Folder, Identified, is_temporary
from connectors.files.name import printable
from connectors.files.objects import JsonLinesParser, JsonParser
from connectors.files.rows import KEPT_HEAD, Parsed, Parser
from connectors.files.text import Encoding
from connectors.files.thread import Threads
from connectors.log import extra
from connectors.mapping import RecordConfig
from connectors.source import WHOLE_OBJECT, Batch, CheckStep, Cursor, Rejection, Skipped, Task
from connectors.spec import SourceSpec
from schemas.errors import RecordRejected, SourceChanged, TillError
from schemas.event import MAX_PATH

logger = logging.getLogger(__name__)


class Format(StrEnum):
    """How a file's bytes become records. `auto` asks the name's suffix."""

    AUTO = "auto"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


_SILENT = ("", "pattern")  # what is wanted, and what was never meant
_SUFFIXES = {".csv": Format.CSV, ".json": Format.JSON, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


class DirectoryConfig(RecordConfig):
    """A watched folder."""

    directory: str = Field("", description="Folder that partners write into.", validate_default=True)
    pattern: str = Field("*", min_length=1, description="Glob of the names to read.")
    format: Format = Field(Format.AUTO, description="Format of the files; `auto` goes by the name's suffix.")
    encoding: Encoding = Field(Encoding.UTF_8, description="Encoding of files without a byte order mark.")
    delimiter: str = Field(
        "", max_length=1, description="CSV delimiter; empty: the one that the header is written with."
    )
    rest_s: float = Field(
        5.0, ge=0, le=86_400, description="Seconds that a file must rest unchanged before it is read."
    )

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
        self._context = context
        self._threads = Threads(limit=2 * config.parallel + 2)
        self._folder = Folder(config.directory, rest_s=config.rest_s, clock=context.clock, threads=self._threads)
        self._matches = re.compile(fnmatch.translate(config.pattern)).match
        self._primed = False

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        """
        A task for each file at rest, oldest first.

        Raises:
            SourceUnavailable: the folder cannot be listed. Disposition: retry.
        """
        self._prime(known)
        logger.info("Opening directory '%s'...", printable(self._config.directory), extra=extra())
        wanted: list[Entry] = []
        others: list[Entry] = []
        async for page in self._folder.entries():
            reasons = [(entry, self._skip_reason(entry)) for entry in page]
            wanted += [entry for entry, reason in reasons if not reason]
            others += [entry for entry, reason in reasons if reason and not entry.reason]
            yield [Skipped(printable(entry.name), why, entry.problem) for entry, why in reasons if why not in _SILENT]
        logger.info("Found %d files", len(wanted), extra=extra())
        resting, moving = self._folder.at_rest(wanted, others)
        yield [Skipped(printable(entry.name), "not_at_rest") for entry in moving]
        async for found in self._folder.identified(resting):
            yield [item if isinstance(item, Skipped) else self._task(item) for item in found]

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        The file's records after `since`, a block of the file at a time.

        Raises:
            SourceUnavailable, SourceChanged: the file is gone, or another one by now. Disposition: retry.
        """
        ref: FileRef = task.context
        opening = content.opened(self._config.directory, ref.name, shown=task.descriptor, threads=self._threads)
        async with opening as file:
            if file.stamp != ref.stamp:
                async for digest in file.sha256():
                    yield Batch((), (), since or {})
                    if digest not in (None, task.key):
                        raise SourceChanged(f"{task.descriptor} has other content by now")
            here = {"file": task.descriptor, "stamp": file.stamp}
            last = Batch((), (), here)
            try:
                async for parsed in self._parsed(file, task, since if since and "offset" in since else None):
                    if last.read:
                        yield last
                    last = Batch(parsed.records, parsed.rejections, {**parsed.place, **here}, parsed.filtered)
            except RecordRejected as exc:
                if last.read:
                    yield last
                last = Batch((), (await _whole(file, ref, task, exc),), here)
            yield replace(last, cursor=here)

    async def check(self) -> Sequence[CheckStep]:
        """Open the folder, list it, read the first byte of a file of it."""
        return await _check(self._config.directory, self._folder, self._threads)

    async def close(self) -> None:
        """Let the threads end; no file is held between calls."""
        self._threads.close()

    async def _parsed(self, file: Content, task: Task, place: Cursor | None) -> AsyncIterator[Parsed]:
        parser = self._parser(task, place)
        offset = parser.offset
        digest = hashlib.sha256() if offset == 0 else None
        final = False
        while not final:
            block = await file.block(offset)
            offset += len(block)
            final = len(block) < BLOCK_BYTES
            if digest is not None:
                digest.update(block)
            for parsed in parser.feed(block, final=final):
                yield parsed
        if digest is not None and digest.hexdigest() != task.key:
            raise SourceChanged(f"{task.descriptor} had other content when it was read")

    def _task(self, found: Identified) -> Task:
        path = printable(f"{self._config.directory.rstrip('/')}/{found.entry.name}")[-MAX_PATH:]
        return Task(found.shown, found.sha256, found.sha256, path, context=found.ref)

    def _parser(self, task: Task, place: Cursor | None) -> Parser:
        mapper, encoding = self._config.mapper(self._context, task.source_object), self._config.encoding
        match Format(place["format"]) if place else self._format(task.context.name):
            case Format.JSON:
                return JsonParser(mapper, encoding, place)
            case Format.JSONL:
                return JsonLinesParser(mapper, encoding, place)
            case _:
                return DelimitedParser(mapper, encoding, place, delimiter=self._config.delimiter or None)

    def _format(self, name: str) -> Format | None:
        if self._config.format is not Format.AUTO:
            return self._config.format
        return _SUFFIXES.get(PurePath(name).suffix.lower())

    def _skip_reason(self, entry: Entry) -> str:
        """Why an entry is not read, by its kind and name; empty if it is."""
        if not self._matches(entry.name):
            return "pattern"
        if entry.reason:
            return entry.reason
        if is_temporary(entry.name):
            return "temporary"
        return "" if self._format(entry.name) else "unknown_format"

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
)


async def _whole(file: Content, ref: FileRef, task: Task, exc: RecordRejected) -> Rejection:
    """The rejection of a file that cannot be read at all, with all of it, or its head if it is too large."""
    head = await file.block(0, KEPT_HEAD)
    if len(head) == ref.size_bytes:
        return Rejection(WHOLE_OBJECT, exc.code, str(exc), head, 1)
    return Rejection(WHOLE_OBJECT, exc.code, str(exc), head, 1, ref.size_bytes, task.key)


async def _check(path: str, folder: Folder, threads: Threads) -> list[CheckStep]:
    steps: list[CheckStep] = []
    entries: list[Entry] = []

    async def list_folder() -> str:
        async for page in folder.entries():
            entries.extend(page)
            break
        return f"{len(entries)} entries seen"

    async def read_a_file() -> str:
        first = next((entry for entry in entries if not entry.reason), None)
        if first is None:
            return "no file yet"
        shown = printable(first.name)
        async with content.opened(path, first.name, shown=shown, threads=threads) as file:
            await file.block(0, 1)
        return shown

    for name, step in (("list the folder", list_folder), ("read a file", read_a_file)):
        steps.append(await _timed(name, step))
        if not steps[-1].ok:
            break
    return steps


async def _timed(name: str, step: Callable[[], Awaitable[str]]) -> CheckStep:
    began = time.monotonic()
    try:
        detail, hint, ok = await step(), "", True
    except TillError as exc:
        detail, hint, ok = str(exc), exc.hint, False
    return CheckStep(name, ok, time.monotonic() - began, detail, hint)
