"""
A source of one task that is never done: a table, a list, an API that is asked for what is new since the last time.

Such a source says how a page is read, and no more:

    class TableSource(PolledSource[TableConfig]):
        polls = "payments"

        async def page(self, batch, since): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Generic, TypeVar

from connectors.check import step, understood
from connectors.context import SourceContext
from connectors.mapping import BatchBuilder, RecordConfig
from connectors.source import Batch, CheckStep, Cursor, Skipped, Task

C = TypeVar("C", bound=RecordConfig)

LONGEST_S = 600.0  # a reading, and so a run, ends after so long, that it can be counted; the next poll goes on


class PolledSource(ABC, Generic[C]):
    """
    Reads pages until one is empty, or for ten minutes; the next poll goes on from there. Its check reads a page.

    `polls` names what it reads: the task, and a part of every event's id. It never changes, for its events would be
    others; a source of a named table sets it in its `__init__`.
    """

    polls: str

    def __init__(self, config: C, context: SourceContext) -> None:
        self._config = config
        self._context = context

    @abstractmethod
    async def page(self, batch: BatchBuilder, since: Cursor | None) -> Cursor | None:
        """
        Add the next records after `since` to the batch, in order, a few thousand at most; the cursor after them.

        None: there is nothing more for now. `since` is a cursor of before, None the first time.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured: pause.
        """

    async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:  # noqa: ARG002
        """One task, for ever."""
        yield [Task(self.polls, self.polls, self.polls, recurring=True)]

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        A page a batch, until there is nothing more for now.

        Raises:
            SourceError: what `page` raises.
        """
        clock, batch = self._context.clock, self._builder(task.source_object)
        last_s = clock.monotonic() + LONGEST_S
        while clock.monotonic() < last_s and (since := await self.page(batch, since)) is not None:
            yield batch.build(since)

    async def check(self) -> Sequence[CheckStep]:
        """Read the first page."""
        return [await step("read a page", self._sample())]

    async def close(self) -> None:
        """Let go of what is open; nothing is."""

    def _builder(self, source_object: str) -> BatchBuilder:
        return BatchBuilder(self._config.mapper(self._context, source_object))

    async def _sample(self) -> str:
        batch = self._builder(self.polls)
        if await self.page(batch, None) is None:
            return "nothing there yet"
        return understood(batch.build({}), of="a record of the source")


__all__ = ["LONGEST_S", "PolledSource"]
