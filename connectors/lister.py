"""One listing of a source: what is new becomes work of a run, what is known or of no use is told once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from connectors.execution import Execution
from connectors.health import Health
from connectors.known import Known
from connectors.log import extra
from connectors.run import DONE_BEFORE, IN_HAND, SCHEDULED, UNUSABLE, Run, RunBook
from connectors.source import Request, RequestedSource, Skipped, Source, Task
from connectors.wait import END, broken
from schemas import metric
from schemas.errors import SourceBroken, TillError
from schemas.failpoint import failpoint
from schemas.metric import Meter

logger = logging.getLogger(__name__)

MOST_KEY = 512  # as a checkpoint has it


@dataclass(slots=True)
class Found:
    """
    What a listing met so far. `run` is the one that was asked for; else the first work opens one.

    `done` are tasks that this same run has read before, in an earlier life.
    """

    run: Run | None = None
    done: frozenset[str] = frozenset()
    met: set[str] = field(default_factory=set)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What should have become a task and could not."""
        return [f"{descriptor}: {problem}" for (descriptor, _), problem in self.skipped.items() if problem]


@dataclass(frozen=True, slots=True)
class Lister:
    """Lists one connector's source."""

    source: Source
    known: Known
    runs: RunBook
    execution: Execution
    health: Health
    meter: Meter

    async def list(self, found: Found) -> None:
        """
        Make work of every task that is new, or neither done nor in hand; with `force` of those that are done too.

        Raises:
            Stopped: a stop came first. TillError: the listing's own; SourceBroken: retry.
        """
        asked = found.run
        pages = self._pages(asked.request if asked else None)
        async with self.execution.guard(asked) as guard:
            try:
                while (page := await guard.next(pages, "listing")) is not END:
                    failpoint("while_listing")
                    for item in _usable(page):
                        self._meet(item, found)
            finally:
                await guard.close(pages)

    def _pages(self, request: Request | None) -> AsyncIterator[Sequence[Task | Skipped]]:
        source, cursors = self.source, self.known.cursors
        try:
            if request is not None and isinstance(source, RequestedSource):
                return source.requested(cursors, request)
            return source.tasks(cursors)
        except TillError:
            raise
        except Exception as exc:  # no generator: a function that failed at once
            raise broken(exc, "listing") from exc

    def _meet(self, item: Task | Skipped, found: Found) -> None:
        if isinstance(item, Skipped):
            item = replace(item, problem=self.execution.ports.redact(item.problem)) if item.problem else item
            found.skipped[item.descriptor, item.reason] = item.problem
            self._skip(item)
            if found.run is not None:
                found.run.skip(item.descriptor, item.reason)
        else:
            found.met.add(item.key)
            if self._is_work(item, found):
                found.run = found.run or self.runs.open(triggered_by=SCHEDULED[0], run_type=SCHEDULED[1])
                self.execution.add(item, found.run)

    def _skip(self, item: Skipped) -> None:
        if not self.health.is_new(item):
            return
        self.meter.add(metric.FILES_SKIPPED_TOTAL, connector=self.execution.connector.name, reason=item.reason)
        if item.problem:
            facts = extra(reason=item.reason)
            logger.error("Error scheduling task '%s': %s", item.descriptor, item.problem, extra=facts)
        else:
            logger.debug("skipped", extra=extra(descriptor=item.descriptor, reason=item.reason))

    def _is_work(self, task: Task, found: Found) -> bool:
        run, key = self.runs.of(task.key), task.key
        if found.run is not None and found.run.cancelled:
            return False  # the next poll makes work of it
        if run is None and (not self.known.is_done(key) or self._is_forced(task, found)):
            return True
        unusable = run is None and self.known.is_unusable(key)
        if unusable:
            self.health.unusable(task)
        if found.run is not None and run is not found.run and key not in found.done:
            found.run.skip(task.descriptor, IN_HAND if run else UNUSABLE if unusable else DONE_BEFORE)
        known_as = run.descriptors[key] if run else self.known.known_as(task)
        if self.known.is_new_name(task, known_as):
            self.runs.skipped += 1
            name = self.execution.connector.name
            self.meter.add(metric.FILES_SKIPPED_TOTAL, connector=name, reason="same_content")
            logger.info("same content skipped", extra=extra(descriptor=task.descriptor, known_as=known_as))
        return False

    def _is_forced(self, task: Task, found: Found) -> bool:
        """Whether it is to be read again though it is done. A recurring task is never done."""
        request = found.run.request if found.run else None
        return request is not None and request.force and task.key not in found.done


def _usable(page: Sequence[Task | Skipped]) -> Sequence[Task | Skipped]:
    """
    The page, if it is what the contract says: else something of ours would fail on it, further on.

    Raises:
        SourceBroken: retry.
    """
    if not isinstance(page, Sequence):
        raise SourceBroken(f"the listing gave {type(page).__name__}, not a page of tasks")
    for item in page:
        texts: tuple[object, ...]
        match item:
            case Task():
                texts = (item.descriptor, item.key, item.source_object, item.path)
            case Skipped():
                texts = (item.descriptor, item.reason, item.problem)
            case _:
                raise SourceBroken(f"the listing gave {type(item).__name__}, neither a task nor something skipped")
        if not all(isinstance(text, str) for text in texts):
            raise SourceBroken(f"the listing gave a {type(item).__name__} whose texts are no texts")
        if isinstance(item, Task) and not 0 < len(item.key) <= MOST_KEY:
            raise SourceBroken(f"the listing gave a task whose key has not 1 to {MOST_KEY} characters")
    return page
