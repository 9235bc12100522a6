"""
Runs, as far as the source side knows them: what was read, what is left, how it ended; and their way to the run log.

The run log lives in a database, and reading must not wait for it: the reporter brings what happened there in the order
of its happening, tries again for as long as it takes, and keeps only the newest counts of a run.

A run that an operator asked for outlives its runner: where that is stopped, nothing ends the run, and the next runner
goes on with it under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from uuid import UUID

from connectors.log import extra
from connectors.ports import Clock, RunLog
from connectors.source import Request, Task
from connectors.wait import Backoff
from schemas.checkpoint import Counts
from schemas.errors import Fenced, TillError

logger = logging.getLogger(__name__)

SCHEDULED = ("SCHEDULER", "SCHEDULED")  # who triggers a poll of itself, and what its run is called: seed 003
STOPPED = "stopped before its end"
IN_DOUBT = "stopped while the broker had not acknowledged what was sent; its work goes on under another run"
CANCELLED = "cancelled"
DONE_BEFORE = "done before"
UNUSABLE = "failed before: no record could be used under this configuration"
IN_HAND = "in another run"
NOTHING_CARRIED: Mapping[str, Counts] = MappingProxyType({})
_LISTING = ""  # the listing's own hold on its run, beside the keys of its tasks
_SHOWN_PROBLEMS = 20  # a run's row names so many; the logs have all
_SHOWN_NAMES = 3  # of what it skipped, for each reason


@dataclass(slots=True)
class Run:
    """
    One listing that found work, while its tasks are read. `descriptors` names the tasks left, by key.

    The run log hears of it with `announce`: at once, or, where all its tasks are recurring, once one has something.
    `request` is what an operator asked; `carried` are the counts of tasks that an earlier life read under this run.
    """

    id: UUID
    tell: Callable[[], None]
    request: Request | None = None
    carried: dict[str, Counts] = field(default_factory=dict)
    announced: bool = False
    cancelled: bool = False
    suspended: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    descriptors: dict[str, str] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _skipped: dict[str, list[str]] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)

    def announce(self) -> None:
        """Let the run log know of it; again changes nothing."""
        if not self.announced:
            self.announced = True
            self.tell()

    @property
    def survives(self) -> bool:
        """Whether another runner goes on with it where this one stops."""
        return self.request is not None and not self.cancelled

    @property
    def failure(self) -> str:
        """Why the run failed; empty if it did not."""
        return CANCELLED if self.cancelled else _listed(self.failures)

    @property
    def shown_problems(self) -> tuple[str, ...]:
        """What made it less than a success, within reason."""
        more = len(self.problems) - _SHOWN_PROBLEMS
        return (*self.problems[:_SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else []))

    def warn(self, text: str) -> None:
        """Something an operator should know, though the records could be used."""
        self._warnings.append(text)

    def skip(self, descriptor: str, reason: str) -> None:
        """The listing met this and made no work of it. Told only of a run that was asked for."""
        if self.request is not None:
            self._skipped.setdefault(reason, []).append(descriptor)
            self.counts = self.counts.plus(Counts(skipped=1))

    @property
    def note(self) -> str:
        """What is odd about what it read; what a run that was asked for did not read, and why not."""
        more = len(self._warnings) - _SHOWN_NAMES
        warnings = [*self._warnings[:_SHOWN_NAMES], *([f"and {more} more like it"] if more > 0 else [])]
        return "; ".join(filter(None, [self._left_out, *warnings]))

    @property
    def _left_out(self) -> str:
        if self.request is None:
            return ""
        told = [f"{len(names)} {reason} ({_some(names)})" for reason, names in self._skipped.items()]
        if told:
            return f"skipped {', '.join(told)}"
        return "" if self.counts.read else "there was nothing to read"

    def list_anew(self) -> None:
        """Its listing failed, and begins anew."""
        self.counts = self.counts.model_copy(update={"skipped": 0})
        self._skipped.clear()


class RunReporter:
    """
    Brings runs to the run log, in order, however long it is away.

    Once a newer epoch has claimed the connector the log refuses everything: `fenced` is called, and nothing more is
    brought.
    """

    def __init__(
        self, log: RunLog, *, connector_id: UUID, clock: Clock, backoff: Backoff, fenced: Callable[[Fenced], None]
    ) -> None:
        self._log = log
        self._connector_id = connector_id
        self._clock = clock
        self._backoff = backoff
        self._fenced = fenced
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

    def end(self, run: Run) -> None:
        """The run is through with reading, or FAILED where there is a reason."""
        self._progress.pop(run.id, None)
        counts, problems, note = run.counts, run.shown_problems, run.note
        if run.failure:
            self.fail(run.id, counts, reason=run.failure)
        else:
            self._add(run.id, lambda: self._log.finish_reading(run.id, counts, problems=problems, note=note))

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
            except Fenced as exc:
                self._fenced(exc)
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
    """The open runs, and which task belongs to which. With its last task a run is through, and the run log is told."""

    def __init__(self, reporter: RunReporter, new_run_id: Callable[[], UUID]) -> None:
        self._reporter = reporter
        self._new_run_id = new_run_id
        self._open: dict[UUID, Run] = {}
        self._of: dict[str, Run] = {}
        self.skipped = 0  # objects skipped as known, told by the scheduled run that ends next

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._open.values()))

    @property
    def announced(self) -> int:
        """How many open runs the run log knows of."""
        return sum(run.announced for run in self._open.values())

    def open(
        self,
        *,
        triggered_by: str,
        run_type: str,
        request: Request | None = None,
        carried: Mapping[str, Counts] = NOTHING_CARRIED,
    ) -> Run:
        """A run, held open by its listing until `release`: a new one, or the one that was asked for."""
        run_id = self._new_run_id() if request is None else UUID(request.id)
        tell = partial(self._reporter.open, run_id, triggered_by=triggered_by, run_type=run_type)
        run = Run(run_id, tell, request, dict(carried), counts=total(carried.values()))
        run.descriptors[_LISTING] = "listing"
        self._open[run.id] = run
        if request is not None:
            run.announce()
        return run

    def get(self, run_id: UUID) -> Run | None:
        """The open run of this id."""
        return self._open.get(run_id)

    def hold(self, run: Run, task: Task) -> None:
        """The run is not through before this task is."""
        run.descriptors[task.key] = task.descriptor
        self._of[task.key] = run
        if not task.recurring:
            run.announce()

    def of(self, key: str) -> Run | None:
        """The run that has the task in hand."""
        return self._of.get(key)

    def release(self, run: Run, key: str = _LISTING, *, left: str = "") -> None:
        """One of the run's tasks is through, or `left` tells why it is not."""
        self._of.pop(key, None)
        descriptor = run.descriptors.pop(key, "")
        if left and run.survives:
            run.suspended = True
        elif left and key != _LISTING:
            run.problems.append(f"{descriptor}: {left}")
        if run.descriptors or run.id not in self._open:
            return
        del self._open[run.id]
        if run.suspended and not run.failure:
            self._reporter.progress(run)
            return  # the next runner goes on with it
        if not (run.announced or run.counts.read or run.problems or run.failures):
            return  # recurring tasks that had nothing
        run.announce()
        if self.skipped and run.request is None:
            run.counts = run.counts.plus(Counts(skipped=self.skipped))
            self.skipped = 0
        self._reporter.end(run)

    def cancel_all(self) -> None:
        """Whatever is open ends FAILED, cancelled; but what was asked for goes on elsewhere."""
        for run in self._open.values():
            run.cancelled = run.cancelled or run.request is None

    def fail_all(self, reason: str) -> None:
        """Whatever is open ends FAILED."""
        for run in self._open.values():
            run.failures.append(reason)

    def end_all(self) -> None:
        """Nobody here goes on with what is open."""
        for run in list(self._open.values()):
            for key in list(run.descriptors):
                self.release(run, key, left=STOPPED)

    def beat(self) -> None:
        """Open runs live."""
        for run in self._open.values():
            if run.announced:
                self._reporter.progress(run)


def total(counts: Iterable[Counts]) -> Counts:
    """All together."""
    found = Counts()
    for each in counts:
        found = found.plus(each)
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _listed(items: list[str]) -> str:
    if len(items) <= 1:
        return "".join(items)
    more = f"; and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{len(items)} tasks failed: {'; '.join(items[:3])}{more}"
