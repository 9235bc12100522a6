"""
The runner: polls one connector's source, reads what is new, publishes it, remembers how far it got.

    poll ─▶ tasks ─▶ read ─▶ publish ─▶ acks of the events, and of the rejections' letters ─▶ checkpoint

A checkpoint is written only after everything before its cursor is acknowledged, so a crash costs duplicates, which have
the same ids, and never a record. One run is one listing that found work; an empty poll is no run.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid4

from connectors.delivery import Delivery, Filter, Outlets
from connectors.envelope import Connector
from connectors.log import bound, extra
from connectors.ports import CheckpointStore, Clock, DeadLetters, Publisher, RunLog
from connectors.run import Run, RunReporter
from connectors.source import Cursor, Skipped, Source, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.task import Queue, TaskStatus, TaskView, Work
from connectors.wait import END, Backoff, Stopped, close_iterator, next_of, pause, within
from schemas import identity, metric
from schemas.checkpoint import Checkpoint, Counts
from schemas.errors import Disposition, TillError
from schemas.metric import Meter, NullMeter

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0  # how often an open run says that it lives
_KEPT_ENDED = 1_000  # tasks that ended and still show in the list; the checkpoints know all
_REVISION_STEP = timedelta(microseconds=1)  # what the timestamps of events can tell apart
_SHOWN_PROBLEMS = 10


class State(StrEnum):
    """What a connector is doing, for its health."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"  # something fails, and is tried again
    PAUSED = "paused"  # it needs somebody
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Ports:
    """The world, as a runner needs it."""

    publisher: Publisher
    dead_letters: DeadLetters
    checkpoints: CheckpointStore
    runs: RunLog
    clock: Clock
    meter: Meter = field(default_factory=NullMeter)


@dataclass(frozen=True, slots=True)
class Status:
    """A connector's health as its runner sees it. `skipped` counts what the last listing could not use, by reason."""

    state: State
    problems: tuple[str, ...]
    hint: str
    listed_at: datetime | None
    open_runs: int
    pending: int
    skipped: Mapping[str, int]


class Runner:
    """
    Runs one connector until it is stopped, or pauses because of an error that somebody must mend.

    `epoch` comes from a claim on the connector: the checkpoint store refuses what an older one still writes.
    """

    def __init__(
        self,
        connector: Connector,
        spec: SourceSpec,
        config: ConnectorConfig,
        ports: Ports,
        *,
        epoch: int,
        production: bool = False,
        rng: random.Random | None = None,
        new_run_id: Callable[[], UUID] = uuid4,
    ) -> None:
        self.connector = connector
        self._spec = spec
        self._config = config
        self._ports = ports
        self._clock = ports.clock
        self._epoch = epoch
        self._new_run_id = new_run_id
        self._source: Source = spec.factory(config, ports.clock)
        self._rules = Filter.of(config, production=production)
        rng = rng or random.Random()
        self._backoff = Backoff(config.error_backoff_s, config.error_backoff_max_s, rng)
        self._reporter = RunReporter(
            ports.runs, connector_id=connector.id, clock=ports.clock, backoff=Backoff(1.0, 30.0, rng)
        )
        self._outlets = Outlets(ports.publisher, ports.dead_letters, ports.checkpoints, ports.clock, ports.meter)

        self._stop = asyncio.Event()
        self._poll = asyncio.Event()
        self._trigger = ("SCHEDULER", "SCHEDULED")
        self._cancelled = False
        self._bug: BaseException | None = None

        self._queue = Queue(config.parallel)
        self._running: dict[asyncio.Task[None], Work] = {}
        self._unfinished: dict[str, Work] = {}  # by task key: begun or found, and not read to the end
        self._done: dict[str, str] = {}  # task key → the descriptor under which it was met
        self._cursors: dict[str, Cursor] = {}
        self._ended: dict[str, Work] = {}
        self._run_of: dict[str, Run] = {}
        self._runs: dict[UUID, Run] = {}
        self._same_content: set[tuple[str, str]] = set()
        self._skipped_known = 0
        self._seq = 0
        self._order = 0
        self._last_revision_at: datetime | None = None

        self._state = State.STARTING
        self._created_at = self._clock.now()
        self._listed_at: datetime | None = None
        self._skipped: dict[tuple[str, str], str] = {}
        self._failing: dict[str, TillError] = {}  # by task key, or "" for the listing

    # --- what the outside asks ---

    def stop(self) -> None:
        """Stop reading, wait for acknowledgements within `stop_s`, write checkpoints; `run` returns then."""
        self._stop.set()

    def cancel(self) -> None:
        """As `stop`, but open runs end FAILED with the reason `cancelled`."""
        self._cancelled = True
        self._stop.set()

    def poll_now(self, *, triggered_by: str = "MANUAL", run_type: str = "MANUAL") -> None:
        """List at once, and call the run that comes of it so."""
        self._trigger = (triggered_by, run_type)
        self._poll.set()

    def tasks(self) -> list[TaskView]:
        """The listing's task, then the last thousand that ended, the running and the pending ones, oldest first."""
        provider = self.connector.provider
        status = {State.PAUSED: TaskStatus.FAILED, State.STOPPED: TaskStatus.STOPPED}.get(
            self._state, TaskStatus.ACTIVE
        )
        error = "; ".join(self._problems()) if status is TaskStatus.FAILED else ""
        listing = TaskView(provider, self._spec.listing, self._created_at, status, error, {})
        works = sorted([*self._ended.values(), *self._running.values(), *self._queue], key=lambda work: work.order)
        return [listing, *(work.view(provider) for work in works)]

    @property
    def state(self) -> State:
        """What it is doing now."""
        return State.DEGRADED if self._state is State.RUNNING and self._problems() else self._state

    @property
    def status(self) -> Status:
        """How it fares now."""
        reasons: dict[str, int] = {}
        for _, reason in self._skipped:
            reasons[reason] = reasons.get(reason, 0) + 1
        return Status(
            state=self.state,
            problems=tuple(self._problems()),
            hint=next((exc.hint for exc in self._failing.values()), ""),
            listed_at=self._listed_at,
            open_runs=len(self._runs),
            pending=len(self._queue),
            skipped=reasons,
        )

    # --- the loop ---

    async def run(self) -> State:
        """
        Run until stopped or paused; returns which.

        Raises a bug (anything that is no TillError) after the open runs were ended FAILED. Cancelling it ends them
        FAILED `cancelled`, without waiting for what is not acknowledged.
        """
        reporting = asyncio.create_task(self._reporter.serve(), name="run reporter")
        beating = asyncio.create_task(self._beat(), name="run heartbeat")
        try:
            with bound(component="scheduler", provider=self.connector.provider):
                with bound(task_id=identity.task_id(self._spec.listing)):
                    if await self._restore():
                        logger.info("Starting task...", extra=extra())
                        await self._poll_until_stopped()
                logger.info("Stopping scheduler...", extra=extra())
                await self._drain()
            if self._bug is not None:
                raise self._bug
        except asyncio.CancelledError:
            self._cancelled = True
            raise
        except Exception as bug:
            self._fail_runs(f"internal error: {type(bug).__name__}")
            raise
        finally:
            self._stop.set()  # or what is abandoned would make room for what is pending
            beating.cancel()
            await self._abandon_tasks()
            self._end_runs()
            await self._close(reporting)
        return self._state

    async def _restore(self) -> bool:
        """Load where the tasks stand; False if there was no coming so far."""
        failures = 0
        while not self._stop.is_set():
            try:
                loaded = await self._ports.checkpoints.load(self.connector.id)
            except TillError as exc:
                self._failing[""] = exc
                if exc.disposition is not Disposition.RETRY:
                    self._pause(exc)
                    return False
                failures += 1
                logger.warning("checkpoints unavailable", extra=extra(error=exc, code=exc.code))
                await pause(self._backoff.pause_s(failures, exc), clock=self._clock, stop=self._stop)
            else:
                for checkpoint in loaded.values():
                    self._remember(checkpoint)
                for run_id, counts in _left_open(loaded.values()).items():
                    self._reporter.fail(run_id, counts, reason="crashed; its work goes on under another run")
                self._enter(State.RUNNING)
                return True
        return False

    def _remember(self, checkpoint: Checkpoint) -> None:
        self._seq = max(self._seq, checkpoint.seq)
        self._last_revision_at = max(self._last_revision_at or checkpoint.revision_at, checkpoint.revision_at)
        key = checkpoint.task
        if checkpoint.cursor is not None:
            self._cursors[key] = checkpoint.cursor
        if checkpoint.done:
            self._done[key] = ""
        else:
            self._unfinished[key] = Work(
                Task(key, key, key), 0, checkpoint.revision_at, discovered=True, cursor=checkpoint.cursor
            )

    async def _poll_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._poll.clear()
            try:
                await self._list()
            except Stopped:
                return
            except TillError as exc:
                self._failing[""] = exc
                logger.error("%s", exc, extra=extra(code=exc.code, hint=exc.hint))
                if exc.disposition is not Disposition.RETRY:
                    self._pause(exc)
                    return
            self._show_state()
            await self._until_next_poll()

    async def _until_next_poll(self) -> None:
        sleep = self._clock.sleep(self._config.poll_s)
        waits: list[asyncio.Future[object]] = [
            asyncio.ensure_future(wait) for wait in (sleep, self._stop.wait(), self._poll.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _list(self) -> None:
        """One poll: every task that is new, or not done and not in hand, becomes work of one run."""
        run: Run | None = None
        met: set[str] = set()
        skipped: dict[tuple[str, str], str] = {}
        listing = self._source.tasks(self._cursors)
        try:
            while True:
                item = await within(
                    next_of(listing),
                    seconds=self._config.deadline_s,
                    clock=self._clock,
                    what="listing",
                    stop=self._stop,
                )
                if item is END:
                    break
                if isinstance(item, Skipped):
                    skipped[item.descriptor, item.reason] = item.problem
                    self._skip(item)
                elif item is not None:
                    met.add(item.key)
                    if self._is_work(item):
                        run = run or self._open_run()
                        self._enqueue(item, run)
        finally:
            await close_iterator(listing)
            if run is not None:
                run.problems += [f"{descriptor}: {problem}" for (descriptor, _), problem in skipped.items() if problem]
                self._release(run)  # the listing's own hold
        self._skipped = skipped
        self._listed_at = self._clock.now()
        self._failing = {key: exc for key, exc in self._failing.items() if key in met}

    def _skip(self, item: Skipped) -> None:
        if (item.descriptor, item.reason) in self._skipped:
            return
        self._ports.meter.add(metric.FILES_SKIPPED_TOTAL, connector=self.connector.name, reason=item.reason)
        if item.problem:
            logger.error(
                "Error scheduling task '%s': %s", item.descriptor, item.problem, extra=extra(reason=item.reason)
            )
        else:
            logger.debug("skipped", extra=extra(descriptor=item.descriptor, reason=item.reason))

    def _is_work(self, task: Task) -> bool:
        if task.key in self._run_of:
            self._count_same_content(task, self._run_of[task.key].descriptors[task.key])
            return False
        known_as = self._done.get(task.key)
        if known_as is None:
            return True
        self._count_same_content(task, known_as)
        if not known_as:
            self._done[task.key] = task.descriptor
        return False

    def _count_same_content(self, task: Task, known_as: str) -> None:
        """The same content under another name is skipped, and counted once."""
        name = (task.key, task.descriptor)
        if known_as in ("", task.descriptor) or name in self._same_content:
            return
        self._same_content.add(name)
        self._skipped_known += 1
        self._ports.meter.add(metric.FILES_SKIPPED_TOTAL, connector=self.connector.name, reason="same_content")
        logger.info("same content skipped", extra=extra(descriptor=task.descriptor, known_as=known_as))

    def _enqueue(self, task: Task, run: Run) -> None:
        self._order += 1
        known = self._unfinished.get(task.key)
        revision_at = known.revision_at if known else self._next_revision()
        work = Work(task, self._order, revision_at)
        if known is not None:
            work.discovered, work.cursor = known.discovered, known.cursor
        self._unfinished[task.key] = work
        self._ended.pop(task.key, None)
        self._run_of[task.key] = run
        run.hold(task.key, task.descriptor)
        self._queue.add(work)
        self._fill()

    def _next_revision(self) -> datetime:
        """Now, but later than any before: of two contents found in one listing, the later found one is the newer."""
        now = self._clock.now()
        if self._last_revision_at is not None and now <= self._last_revision_at:
            now = self._last_revision_at + _REVISION_STEP
        self._last_revision_at = now
        return now

    # --- tasks ---

    def _fill(self) -> None:
        while not self._stop.is_set() and (work := self._queue.begin()) is not None:
            running = asyncio.create_task(self._work(work), name=f"task {work.task.descriptor}")
            self._running[running] = work
            running.add_done_callback(self._worked)

    async def _work(self, work: Work) -> None:
        """Read one task to its end, through every failure that waiting heals."""
        run = self._run_of[work.task.key]
        delivery = Delivery(
            self.connector,
            self._source,
            self._config,
            self._outlets,
            work=work,
            run=run,
            rules=self._rules,
            checkpoint=lambda: self._checkpoint(work, run),
            stop=self._stop,
        )
        with bound(task_id=identity.task_id(work.task.descriptor)):
            work.status = TaskStatus.ACTIVE
            logger.info("Starting task...", extra=extra())
            try:
                await self._attempts(delivery, work, run)
            except Stopped:
                work.status = TaskStatus.STOPPED
            except asyncio.CancelledError:
                work.status = TaskStatus.STOPPED
                raise

    async def _attempts(self, delivery: Delivery, work: Work, run: Run) -> None:
        failures = 0
        while True:
            before = work.cursor
            try:
                await delivery.attempt()
            except TillError as exc:
                if exc.disposition is Disposition.CRASH:
                    raise
                self._failing[work.task.key] = exc
                failures = 1 if work.cursor != before else failures + 1
                if exc.disposition is Disposition.PAUSE or failures > self._config.max_retries:
                    self._failed(work, run, exc)
                    return
                await self._wait_for_next_attempt(work, failures, exc)
            else:
                self._terminated(work)
                return

    async def _wait_for_next_attempt(self, work: Work, failures: int, exc: TillError) -> None:
        pause_s = self._backoff.pause_s(failures, exc)
        logger.warning(
            "task tries again", extra=extra(error=exc, code=exc.code, attempt=failures + 1, pause_s=round(pause_s, 3))
        )
        self._show_state()
        self._queue.give_way()
        self._fill()
        try:
            await pause(pause_s, clock=self._clock, stop=self._stop)
        finally:
            await self._queue.come_back(work.order)
        if self._stop.is_set():
            raise Stopped

    def _terminated(self, work: Work) -> None:
        self._failing.pop(work.task.key, None)
        counts = work.counts
        facts = {name: getattr(counts, name) for name in ("read", "published", "rejected", "filtered")}
        if counts.rejected and counts.rejected == counts.read:
            work.status, work.error = TaskStatus.FAILED, work.first_rejection
            logger.error("Task terminated with error: %s", work.error, extra=extra(**facts))
        else:
            work.status = TaskStatus.TERMINATED
            logger.info("Task terminated with success", extra=extra(**facts))

    def _failed(self, work: Work, run: Run, exc: TillError) -> None:
        work.status, work.error = TaskStatus.FAILED, str(exc)
        run.failures.append(f"{work.task.descriptor}: {exc}")
        logger.error("Task terminated with error: %s", exc, extra=extra(code=exc.code, hint=exc.hint))
        if exc.disposition is Disposition.PAUSE:
            self._pause(exc)

    def _worked(self, running: asyncio.Task[None]) -> None:
        """A task is off the machine, however it ended."""
        work = self._running.pop(running)
        key, descriptor = work.task.key, work.task.descriptor
        run = self._run_of.pop(key)
        if not running.cancelled() and (bug := running.exception()) is not None:
            work.status, work.error = TaskStatus.FAILED, f"internal error: {type(bug).__name__}"
            run.failures.append(f"{descriptor}: {work.error}")
            self._bug = self._bug or bug
            self._stop.set()
        if work.status is TaskStatus.STOPPED:
            run.problems.append(f"{descriptor}: stopped before its end")
        if work.cursor is not None:
            self._cursors[key] = work.cursor
        if work.done:
            del self._unfinished[key]
            self._done[key] = descriptor
        self._ended[key] = work
        if len(self._ended) > _KEPT_ENDED:
            del self._ended[next(iter(self._ended))]
        self._release(run, key)
        self._show_state()
        self._queue.end()
        self._fill()

    def _checkpoint(self, work: Work, run: Run) -> Checkpoint:
        self._seq += 1
        return Checkpoint(
            connector_id=self.connector.id,
            task=work.task.key,
            run_id=run.id,
            epoch=self._epoch,
            seq=self._seq,
            cursor=None if work.cursor is None else dict(work.cursor),
            counts=work.counts,
            done=work.done,
            revision_at=work.revision_at,
            updated_at=self._clock.now(),
        )

    # --- runs ---

    def _open_run(self) -> Run:
        triggered_by, run_type = self._trigger
        self._trigger = ("SCHEDULER", "SCHEDULED")
        run = Run(self._new_run_id())
        run.hold("", self._spec.listing)
        self._runs[run.id] = run
        self._reporter.open(run.id, triggered_by=triggered_by, run_type=run_type)
        return run

    def _release(self, run: Run, key: str = "") -> None:
        """One of the run's tasks is through; with the last one, so is the run."""
        run.descriptors.pop(key, None)
        if run.descriptors or run.id not in self._runs:
            return
        del self._runs[run.id]
        if self._skipped_known:
            run.counts = run.counts.plus(Counts(skipped=self._skipped_known))
            self._skipped_known = 0
        self._reporter.end(run, reason="cancelled" if self._cancelled else run.failure)

    def _fail_runs(self, reason: str) -> None:
        for run in self._runs.values():
            run.failures.append(reason)

    def _end_runs(self) -> None:
        for run in list(self._runs.values()):
            run.problems += [f"{descriptor}: stopped before its end" for descriptor in run.descriptors.values()]
            run.descriptors.clear()
            self._release(run)

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            for run in self._runs.values():
                self._reporter.progress(run)

    # --- health ---

    def _problems(self) -> list[str]:
        found = [str(exc) for exc in self._failing.values()]
        found += [f"{descriptor}: {problem}" for (descriptor, _), problem in self._skipped.items() if problem]
        if self._reporter.problem:
            found.append(self._reporter.problem)
        return found[:_SHOWN_PROBLEMS]

    def _pause(self, exc: TillError) -> None:
        logger.error("connector paused", extra=extra(error=exc, code=exc.code, hint=exc.hint))
        self._enter(State.PAUSED)
        self._stop.set()

    def _enter(self, state: State) -> None:
        self._state = state
        self._show_state()

    def _show_state(self) -> None:
        now = self.state
        for state in State:
            self._ports.meter.set(
                metric.CONNECTOR_STATE, float(state is now), connector=self.connector.name, state=state.value
            )

    # --- the end ---

    async def _drain(self) -> None:
        """What has not begun stays where it is; what runs is given `stop_s` for its acknowledgements and checkpoint."""
        for work in self._queue.clear():
            work.status = TaskStatus.STOPPED
            run = self._run_of.pop(work.task.key)
            run.problems.append(f"{work.task.descriptor}: not begun")
            self._release(run, work.task.key)
        if self._running:
            await asyncio.wait(self._running, timeout=2 * self._config.stop_s + 2.0)

    async def _abandon_tasks(self) -> None:
        for work in self._queue.clear():
            work.status = TaskStatus.STOPPED
        left = list(self._running)
        for running in left:
            running.cancel()
        if left:
            await asyncio.wait(left, timeout=2.0)

    async def _close(self, reporting: asyncio.Task[None]) -> None:
        """Bring the runs' ends to the run log and let go of the source, both within `stop_s`."""
        flushing = asyncio.ensure_future(self._reporter.flushed())
        closing = asyncio.ensure_future(self._source.close())
        await asyncio.wait({flushing, reporting}, timeout=self._config.stop_s, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({closing}, timeout=self._config.stop_s)
        for task in (flushing, closing, reporting):
            task.cancel()
        if self._state is not State.PAUSED:
            self._enter(State.STOPPED)


def _left_open(checkpoints: Iterable[Checkpoint]) -> dict[UUID, Counts]:
    """Runs of which some task was not read to its end, with what their checkpoints counted."""
    listed = list(checkpoints)
    unfinished = {checkpoint.run_id for checkpoint in listed if not checkpoint.done}
    counts: dict[UUID, Counts] = {}
    for checkpoint in listed:
        if checkpoint.run_id in unfinished:
            counts[checkpoint.run_id] = counts.get(checkpoint.run_id, Counts()).plus(checkpoint.counts)
    return counts
