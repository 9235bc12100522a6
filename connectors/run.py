"""
Runs, as far as the source side knows them: what was read, what is left, how it ended; and their way to the run log.

The run log lives in a database, and reading must not wait for it: the reporter brings what happened there in the order
of its happening, tries again for as long as it takes, and keeps only the newest counts of a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from connectors.log import extra
from connectors.ports import Clock, RunLog
from connectors.source import Task
from connectors.wait import Backoff
from schemas.checkpoint import Counts
from schemas.errors import TillError

logger = logging.getLogger(__name__)

STOPPED = "stopped before its end"
IN_DOUBT = "stopped while the broker had not acknowledged what was sent; its work goes on under another run"
_LISTING = ""  # the listing's own hold on its run, beside the keys of its tasks
_SHOWN_PROBLEMS = 20  # a run's row names so many; the logs have all


@dataclass(slots=True)
class Run:
    """
    One listing that found work, while its tasks are read. `descriptors` names the tasks left, by key.

    The run log hears of it with `announce`: at once, or, where all its tasks are recurring, once one has something.
    """

    id: UUID
    tell: Callable[[], None]
    announced: bool = False
    descriptors: dict[str, str] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def announce(self) -> None:
        """Let the run log know of it; again changes nothing."""
        if not self.announced:
            self.announced = True
            self.tell()

    @property
    def failure(self) -> str:
        """Why the run failed; empty if it did not."""
        return _listed(self.failures)

    @property
    def shown_problems(self) -> tuple[str, ...]:
        """What made it less than a success, within reason."""
        more = len(self.problems) - _SHOWN_PROBLEMS
        return (*self.problems[:_SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else []))


class RunReporter:
    """Brings runs to the run log, in order, however long it is away."""

    def __init__(self, log: RunLog, *, connector_id: UUID, clock: Clock, backoff: Backoff) -> None:
        self._log = log
        self._connector_id = connector_id
        self._clock = clock
        self._backoff = backoff
        self._progress: dict[UUID, Counts] = {}
        self._steps: deque[tuple[UUID, Callable[[], Awaitable[None]] | None]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.problem = ""

    def open(self, run_id: UUID, *, triggered_by: str, run_type: str) -> None:
        """The run began."""
        self._add(
            run_id,
            lambda: self._log.open(run_id, self._connector_id, triggered_by=triggered_by, run_type=run_type),
        )

    def progress(self, run: Run) -> None:
        """The run is alive, and so far it has read this much. Only the newest is kept."""
        new = run.id not in self._progress
        self._progress[run.id] = run.counts
        if new:
            self._add(run.id, None)

    def end(self, run: Run, *, reason: str = "") -> None:
        """The run is through with reading, or FAILED where there is a reason."""
        self._progress.pop(run.id, None)
        counts, problems = run.counts, run.shown_problems
        if reason:
            self.fail(run.id, counts, reason=reason)
        else:
            self._add(run.id, lambda: self._log.finish_reading(run.id, counts, problems=problems))

    def fail(self, run_id: UUID, counts: Counts, *, reason: str) -> None:
        """The run ended FAILED."""
        self._add(run_id, lambda: self._log.fail(run_id, counts, reason=reason))

    async def serve(self) -> None:
        """Bring everything, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._steps:
                await self._bring()
            self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything was brought."""
        await self._idle.wait()

    def _add(self, run_id: UUID, step: Callable[[], Awaitable[None]] | None) -> None:
        self._steps.append((run_id, step))
        self._idle.clear()
        self._wake.set()

    async def _bring(self) -> None:
        run_id, step = self._steps[0]
        failures = 0
        while True:
            try:
                if step is not None:
                    await step()
                elif (counts := self._progress.pop(run_id, None)) is not None:
                    await self._log.progress(run_id, counts)
                break
            except TillError as exc:
                failures += 1
                if self.problem != str(exc):
                    logger.warning("run log unavailable", extra=extra(error=exc, code=exc.code, hint=exc.hint))
                self.problem = str(exc)
                await self._clock.sleep(self._backoff.pause_s(failures, exc))
        self.problem = ""
        self._steps.popleft()


class RunBook:
    """
    The open runs, and which task belongs to which. With its last task a run is through, and the run log is told.

    `cancelled` makes every run that ends from then on a FAILED one.
    """

    def __init__(self, reporter: RunReporter, new_run_id: Callable[[], UUID]) -> None:
        self._reporter = reporter
        self._new_run_id = new_run_id
        self._open: dict[UUID, Run] = {}
        self._of: dict[str, Run] = {}
        self.cancelled = False
        self.skipped = 0  # objects skipped as known, told by the run that ends next

    def __len__(self) -> int:
        return len(self._open)

    def open(self, *, triggered_by: str, run_type: str) -> Run:
        """A new run, held open by its listing until `release`."""
        run_id = self._new_run_id()
        run = Run(run_id, lambda: self._reporter.open(run_id, triggered_by=triggered_by, run_type=run_type))
        run.descriptors[_LISTING] = "listing"
        self._open[run.id] = run
        return run

    def hold(self, run: Run, task: Task) -> None:
        """The run is not through before this task is."""
        run.descriptors[task.key] = task.descriptor
        self._of[task.key] = run
        if not task.recurring:
            run.announce()

    def of(self, key: str) -> Run | None:
        """The run that has the task in hand."""
        return self._of.get(key)

    def release(self, run: Run, key: str = _LISTING, *, problem: str = "") -> None:
        """One of the run's tasks is through."""
        self._of.pop(key, None)
        descriptor = run.descriptors.pop(key, "")
        if problem:
            run.problems.append(f"{descriptor}: {problem}")
        if run.descriptors or run.id not in self._open:
            return
        del self._open[run.id]
        if not (run.announced or run.counts.read or run.problems or run.failures):
            return  # recurring tasks that had nothing
        run.announce()
        if self.skipped:
            run.counts = run.counts.plus(Counts(skipped=self.skipped))
            self.skipped = 0
        self._reporter.end(run, reason="cancelled" if self.cancelled else run.failure)

    def fail_all(self, reason: str) -> None:
        """Whatever is open ends FAILED."""
        for run in self._open.values():
            run.failures.append(reason)

    def end_all(self) -> None:
        """Nobody goes on with what is open."""
        for run in list(self._open.values()):
            for key in list(run.descriptors):
                self.release(run, key, problem=STOPPED if key != _LISTING else "")

    def beat(self) -> None:
        """Open runs live."""
        for run in self._open.values():
            if run.announced:
                self._reporter.progress(run)


def _listed(items: list[str]) -> str:
    if len(items) <= 1:
        return "".join(items)
    more = f"; and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{len(items)} tasks failed: {'; '.join(items[:3])}{more}"
