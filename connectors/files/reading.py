"""
A local file at rest → batches of records. Shared by every source whose records come in files.

What is published are the bytes whose hash is the task's key, or none: a file read from its beginning is hashed again
while it is parsed, and one that changes meanwhile is an error. A cursor with an `offset` stands at a record's end in
the file; one without stands at the file's end.

Records are named by their row. A cursor that an operator set is held against the file before anything is read after it:
with the row of another place its records would come under ids that stand for others already, and all of them die.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

from connectors.context import SourceContext
from connectors.files import content
from connectors.files.config import FilesConfig, Format
from connectors.files.content import BLOCK_BYTES, Content, FileRef
from connectors.files.delimited import DelimitedParser
from connectors.files.objects import JsonLinesParser, JsonParser
from connectors.files.rows import KEPT_HEAD, Parsed, Parser
from connectors.files.thread import Threads
from connectors.source import WHOLE_OBJECT, Batch, Cursor, Rejection, Task
from schemas.errors import RecordRejected, SourceChanged, SourceMisconfigured


@dataclass(frozen=True, slots=True)
class LocalFile:
    """
    Where a task's bytes lie. `name` is the one whose suffix tells the format.

    `stamp` is what its cursors keep, so that the next listing knows the file by it; empty: the local file's own.
    """

    folder: str
    ref: FileRef
    name: str
    stamp: str = ""


def is_end(cursor: Cursor | None) -> bool:
    """Whether the cursor stands at the end of its file."""
    return cursor is not None and "file" in cursor and "offset" not in cursor


class FileReader:
    """Reads local files as a connector's configuration says."""

    def __init__(self, config: FilesConfig, context: SourceContext, threads: Threads) -> None:
        self._config = config
        self._context = context
        self._threads = threads

    async def batches(self, local: LocalFile, task: Task, since: Cursor | None) -> AsyncGenerator[Batch, None]:
        """
        The file's records after `since`, a block of the file at a time; empty batches say that it is being hashed.

        Raises:
            SourceUnavailable, SourceChanged: the file is gone, or another one by now. Disposition: retry.
            SourceMisconfigured: an operator set the cursor to what is no record's end. Disposition: pause.
        """
        if is_end(since):
            return
        opening = content.opened(local.folder, local.ref.name, shown=task.descriptor, threads=self._threads)
        async with opening as file:
            if file.stamp != local.ref.stamp:
                async for digest in file.sha256():
                    yield Batch((), (), since or {})
                    if digest not in (None, task.key):
                        raise SourceChanged(f"{task.descriptor} has other content by now")
            here = {"file": task.descriptor, "stamp": local.stamp or file.stamp}
            last = Batch((), (), here)
            place = since if since and "offset" in since else None
            if place is not None and task.is_set:
                async for _ in self._followed(file, local, task, place):
                    yield Batch((), (), since or {})
            try:
                async for parsed in self._parsed(file, local, task, place):
                    if last.read:
                        yield last
                    last = Batch(
                        parsed.records, parsed.rejections, {**parsed.place, **here}, parsed.filtered, parsed.note
                    )
            except RecordRejected as exc:
                if last.read:
                    yield last
                last = Batch((), (await _whole(file, local.ref, task, exc),), here)
            yield replace(last, cursor=here)

    def parser(self, name: str, *, source_object: str, place: Cursor | None = None) -> Parser:
        """The parser of a file of this name, from its beginning or from a place."""
        mapper, encoding = self._config.mapper(self._context, source_object), self._config.encoding
        match Format(place["format"]) if place else self._config.format_of(name):
            case Format.JSON:
                return JsonParser(mapper, encoding, place)
            case Format.JSONL:
                return JsonLinesParser(mapper, encoding, place)
            case _:
                return DelimitedParser(mapper, encoding, place, delimiter=self._config.delimiter or None)

    async def _followed(self, file: Content, local: LocalFile, task: Task, place: Cursor) -> AsyncIterator[None]:
        """
        Go through the file up to the place, a block at a time, and see that a record ends there, of that number.

        Raises:
            SourceMisconfigured: none does.
        """
        parser = self.parser(local.name, source_object=task.source_object)
        offset, target = 0, int(place["offset"])
        try:
            while offset < target and (block := await file.block(offset, min(BLOCK_BYTES, target - offset))):
                offset += len(block)
                for _ in parser.feed(block, final=False, at_once=offset == target):
                    pass
                yield
            found = parser.place()
        except RecordRejected as exc:
            raise _misplaced(task, f"the file cannot be read up to there: {exc}") from exc
        if offset < target:
            raise _misplaced(task, f"the file ends at byte {offset}")
        if found["offset"] != target:
            raise _misplaced(task, f"record {found['row']} ends at byte {found['offset']}, and none at {target}")
        if found["row"] != place["row"]:
            raise _misplaced(task, f"at byte {target} it is row {found['row']}, not {place['row']}")

    async def _parsed(self, file: Content, local: LocalFile, task: Task, place: Cursor | None) -> AsyncIterator[Parsed]:
        parser = self.parser(local.name, source_object=task.source_object, place=place)
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


def _misplaced(task: Task, why: str) -> SourceMisconfigured:
    return SourceMisconfigured(
        f"the cursor of {task.descriptor}, which an operator set, is no place of it: {why}; nothing was read after it",
        hint="pause the connector, set the cursor to a place that the task had, or reset it; then resume",
    )


async def _whole(file: Content, ref: FileRef, task: Task, exc: RecordRejected) -> Rejection:
    """The rejection of a file that cannot be read at all, with all of it, or its head if it is too large."""
    head = await file.block(0, KEPT_HEAD)
    if len(head) == ref.size_bytes:
        return Rejection(WHOLE_OBJECT, exc.code, str(exc), head, 1)
    return Rejection(WHOLE_OBJECT, exc.code, str(exc), head, 1, ref.size_bytes, task.key)
