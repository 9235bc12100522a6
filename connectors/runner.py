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
from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID, uuid4

from connectors.context import SourceContext
from connectors.delivery import Delivery, Filter
from connectors.envelope import Connector
from connectors.health import LISTING, Health, State, Status
from connectors.known import Known, last_runs
from connectors.log import bound, extra
from connectors.ports import Ports
from connectors.run import IN_DOUBT, STOPPED, Run, RunBook, RunReporter
from connectors.source import FinishingSource, ProgressingSource, Skipped, Source, Task
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.task import Queue, TaskStatus, TaskView, Work
from connectors.wait import END, Backoff, Guard, Stopped, abandon, close_iterator, pause
from schemas import identity, metric
from schemas.checkpoint import Checkpoint
from schemas.errors import Disposition, TillError

__all__ = ["Ports", "Runner", "State", "Status"]

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0  # how often an open run says that it lives
_SCHEDULED = ("SCHEDULER", "SCHEDULED")  # who triggers a poll of itself, and what its run is called: seed 003
_UNTOLD = "crashed, or could not tell how it ended; what is left of it goes on under another run"
_LOG_BACKOFF_MAX_S = 30.0
_KEPT_ENDED = 1_000  # tasks that ended and still show in the list; the checkpoints know all


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
        self._source: Source = spec.factory(config, _context(connector, ports, production=production))
        self._rules = Filter.of(config, production=production)
        rng = rng or random.Random()
        self._backoff = Backoff(config.error_backoff_s, config.error_backoff_max_s, rng)
        log_backoff = Backoff(1.0, _LOG_BACKOFF_MAX_S, rng)
        self._reporter = RunReporter(ports.runs, connector_id=connector.id, clock=ports.clock, backoff=log_backoff)
        self._runs = RunBook(self._reporter, new_run_id)
        self._known = Known()
        self._health = Health(connector.name, ports.meter)
        self._queue = Queue(config.parallel)
        self._running: dict[asyncio.Task[None], Work] = {}
        self._ended: dict[str, Work] = {}
        self._stop = asyncio.Event()
        self._poll = asyncio.Event()
        self._trigger = _SCHEDULED
        self._bug: BaseException | None = None
        self._created_at = self._clock.now()
        self._listed_at: datetime | None = None

    # What the outside asks.

    def stop(self) -> None:
        """Stop reading, wait for acknowledgements within `stop_s`, write checkpoints; `run` returns then."""
        self._stop.set()

    def cancel(self) -> None:
        """As `stop`, but open runs end FAILED with the reason `cancelled`."""
        self._runs.cancelled = True
        self._stop.set()

    def poll_now(self, *, triggered_by: str = "MANUAL", run_type: str = "MANUAL") -> None:
        """List at once, and call the run that comes of it so."""
        self._trigger = (triggered_by, run_type)
        self._poll.set()

    def tasks(self) -> list[TaskView]:
        """The listing's task, then the last thousand that ended, the running and the pending ones, oldest first."""
        provider, state = self.connector.provider, self.state
        status = {State.PAUSED: TaskStatus.FAILED, State.STOPPED: TaskStatus.STOPPED}.get(state, TaskStatus.ACTIVE)
        error = "; ".join(self.status.problems) if status is TaskStatus.FAILED else ""
        listing = TaskView(provider, self._spec.listing, self._created_at, status, error, {})
        works = sorted([*self._ended.values(), *self._running.values(), *self._queue], key=lambda work: work.order)
        return [listing, *(work.view(provider) for work in works)]

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self.status.state

    @property
    def status(self) -> Status:
        """How it fares now."""
        self._health.other = self._reporter.problem
        return Status(
            state=self._health.state,
            problems=tuple(self._health.problems()),
            hint=self._health.hint,
            listed_at=self._listed_at,
            open_runs=len(self._runs),
            pending=len(self._queue),
            skipped=self._health.skipped,
            progress=tuple(self._source.progress) if isinstance(self._source, ProgressingSource) else (),
        )

    # The loop.

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
            self._runs.cancelled = True
            raise
        except Exception as bug:
            self._runs.fail_all(f"internal error: {type(bug).__name__}")
            raise
        finally:
            beating.cancel()
            await self._abandon_tasks()
            self._runs.end_all()
            await self._close(reporting)
        return self.state

    async def _restore(self) -> bool:
        """Load where the tasks stand; False if there was no coming so far."""
        failures = 0
        while not self._stop.is_set():
            try:
                loaded = await self._ports.checkpoints.load(self.connector.id)
            except TillError as exc:
                self._health.fails(LISTING, exc)
                if exc.disposition is not Disposition.RETRY:
                    self._pause(exc)
                    return False
                failures += 1
                logger.warning("checkpoints unavailable", extra=extra(error=exc, code=exc.code))
                await pause(self._backoff.pause_s(failures, exc), clock=self._clock, stop=self._stop)
            else:
                self._known.restore(loaded.values())
                self._report_last_life(loaded.values())
                self._health.enter(State.RUNNING)
                return True
        return False

    def _report_last_life(self, checkpoints: Collection[Checkpoint]) -> None:
        """A run whose end the log does not know ends now: it crashed, or the log was away. Others are left alone."""
        triggered_by, run_type = _SCHEDULED
        for run_id, counts in last_runs(checkpoints).items():
            self._reporter.open(run_id, triggered_by=triggered_by, run_type=run_type)
            self._reporter.fail(run_id, counts, reason=_UNTOLD)

    async def _poll_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._poll.clear()
            try:
                await self._list()
            except Stopped:
                return
            except TillError as exc:
                self._health.fails(LISTING, exc)
                logger.error("%s", exc, extra=extra(code=exc.code, hint=exc.hint))
                if exc.disposition is not Disposition.RETRY:
                    self._pause(exc)
                    return
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
        listing = self._source.tasks(self._known.cursors)
        try:
            async with self._guard() as guard:
                while (page := await guard.next(listing, "listing")) is not END:
                    for item in page:
                        if isinstance(item, Skipped):
                            skipped[item.descriptor, item.reason] = item.problem
                            self._skip(item)
                            continue
                        met.add(item.key)
                        if self._is_work(item):
                            run = run or self._open_run()
                            self._enqueue(item, run)
        finally:
            await close_iterator(listing)
            if run is not None:
                run.problems += [f"{descriptor}: {problem}" for (descriptor, _), problem in skipped.items() if problem]
                self._runs.release(run)
        self._listed_at = self._clock.now()
        self._health.listed(met, skipped)

    def _guard(self) -> Guard:
        return Guard(seconds=self._config.deadline_s, clock=self._clock, stop=self._stop)

    def _skip(self, item: Skipped) -> None:
        if not self._health.is_new(item):
            return
        self._ports.meter.add(metric.FILES_SKIPPED_TOTAL, connector=self.connector.name, reason=item.reason)
        if item.problem:
            facts = extra(reason=item.reason)
            logger.error("Error scheduling task '%s': %s", item.descriptor, item.problem, extra=facts)
        else:
            logger.debug("skipped", extra=extra(descriptor=item.descriptor, reason=item.reason))

    def _is_work(self, task: Task) -> bool:
        run = self._runs.of(task.key)
        if run is None and not self._known.is_done(task):
            return True
        known_as = run.descriptors[task.key] if run else self._known.known_as(task)
        if self._known.is_new_name(task, known_as):
            self._runs.skipped += 1
            self._ports.meter.add(metric.FILES_SKIPPED_TOTAL, connector=self.connector.name, reason="same_content")
            logger.info("same content skipped", extra=extra(descriptor=task.descriptor, known_as=known_as))
        return False

    def _open_run(self) -> Run:
        triggered_by, run_type = self._trigger
        self._trigger = _SCHEDULED
        return self._runs.open(triggered_by=triggered_by, run_type=run_type)

    def _enqueue(self, task: Task, run: Run) -> None:
        self._ended.pop(task.key, None)
        self._runs.hold(run, task)
        self._queue.add(self._known.begin(task, self._clock.now()))
        self._fill()

    # Tasks.

    def _fill(self) -> None:
        while not self._stop.is_set() and (work := self._queue.begin()) is not None:
            running = asyncio.create_task(self._work(work), name=f"task {work.task.descriptor}")
            self._running[running] = work
            running.add_done_callback(self._worked)

    async def _work(self, work: Work) -> None:
        """Read one task to its end, through every failure that waiting heals."""
        run = self._runs.of(work.task.key)
        assert run is not None, "a task runs only while its run holds it"  # noqa: S101
        delivery = Delivery(
            self.connector,
            self._source,
            self._config,
            self._ports,
            work=work,
            run=run,
            rules=self._rules,
            checkpoint=lambda: self._checkpoint(work, run),
            guard=self._guard,
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
                self._health.fails(work.task.key, exc)
                failures = 1 if work.cursor != before else failures + 1
                if exc.disposition is Disposition.PAUSE or failures > self._config.max_retries:
                    self._failed(work, run, exc)
                    return
                await self._wait_for_next_attempt(work, failures, exc)
            else:
                self._terminated(work)
                await self._finish(work.task)
                return

    async def _wait_for_next_attempt(self, work: Work, failures: int, exc: TillError) -> None:
        pause_s = self._backoff.pause_s(failures, exc)
        facts = extra(error=exc, code=exc.code, attempt=failures + 1, pause_s=round(pause_s, 3))
        logger.warning("task tries again", extra=facts)
        self._queue.give_way()
        self._fill()
        try:
            await pause(pause_s, clock=self._clock, stop=self._stop)
        finally:
            await self._queue.come_back(work.order)
        if self._stop.is_set():
            raise Stopped

    async def _finish(self, task: Task) -> None:
        """Let the source do what it does once an object is done with, within `deadline_s` and until a stop."""
        if not isinstance(self._source, FinishingSource) or task.recurring:
            return
        finishing = asyncio.ensure_future(self._source.finish(task))
        timer = asyncio.ensure_future(self._clock.sleep(self._config.deadline_s))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({finishing, timer, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            stopping.cancel()
            await abandon(finishing)

    def _terminated(self, work: Work) -> None:
        self._health.works(work.task.key)
        counts = work.counts
        facts = extra(**{name: getattr(counts, name) for name in ("read", "published", "rejected", "filtered")})
        if counts.rejected and counts.rejected == counts.read:
            work.status, work.error = TaskStatus.FAILED, work.first_rejection
            logger.error("Task terminated with error: %s", work.error, extra=facts)
        else:
            work.status = TaskStatus.TERMINATED
            logger.info("Task terminated with success", extra=facts)

    def _failed(self, work: Work, run: Run, exc: TillError) -> None:
        work.status, work.error = TaskStatus.FAILED, str(exc)
        run.failures.append(f"{work.task.descriptor}: {exc}")
        logger.error("Task terminated with error: %s", exc, extra=extra(code=exc.code, hint=exc.hint))
        if exc.disposition is Disposition.PAUSE:
            self._pause(exc)

    def _worked(self, running: asyncio.Task[None]) -> None:
        """A task is off the machine, however it ended."""
        work = self._running.pop(running)
        key = work.task.key
        run = self._runs.of(key)
        if not running.cancelled() and (bug := running.exception()) is not None:
            work.status, work.error = TaskStatus.FAILED, f"internal error: {type(bug).__name__}"
            self._bug = self._bug or bug
            self._stop.set()
            if run is not None:
                run.failures.append(f"{work.task.descriptor}: {work.error}")
        self._known.end(work)
        self._ended[key] = work
        if len(self._ended) > _KEPT_ENDED:
            del self._ended[next(iter(self._ended))]
        if run is not None:
            stopped = work.status is TaskStatus.STOPPED
            if stopped and work.in_doubt:
                # What may be in the log is not in the counts, so these can never balance: the run must not wait for it.
                run.failures.append(f"{work.task.descriptor}: {IN_DOUBT}")
            self._runs.release(run, key, problem=STOPPED if stopped else "")
        self._queue.end()
        self._fill()

    def _checkpoint(self, work: Work, run: Run) -> Checkpoint:
        return Checkpoint(
            connector_id=self.connector.id,
            task=work.task.key,
            run_id=run.id,
            epoch=self._epoch,
            seq=self._known.next_seq(),
            cursor=None if work.cursor is None else dict(work.cursor),
            counts=work.counts,
            done=work.done,
            recurring=work.task.recurring,
            revision_at=work.revision_at,
            updated_at=self._clock.now(),
        )

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            self._runs.beat()

    # The end.

    def _pause(self, exc: TillError) -> None:
        logger.error("connector paused", extra=extra(error=exc, code=exc.code, hint=exc.hint))
        self._health.enter(State.PAUSED)
        self._stop.set()

    async def _drain(self) -> None:
        """What has not begun stays where it is; what runs is given `stop_s` for its acknowledgements and checkpoint."""
        for work in self._queue.clear():
            work.status = TaskStatus.STOPPED
            run = self._runs.of(work.task.key)
            if run is not None:
                self._runs.release(run, work.task.key, problem="not begun")
        if self._running:
            await asyncio.wait(self._running, timeout=2 * self._config.stop_s + 2.0)

    async def _abandon_tasks(self) -> None:
        for work in self._queue.clear():  # or what is abandoned would make room for it
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
        if self.state is not State.PAUSED:
            self._health.enter(State.STOPPED)


def _context(connector: Connector, ports: Ports, *, production: bool) -> SourceContext:
    return SourceContext(
        connector_id=connector.id,
        connector=connector.name,
        clock=ports.clock,
        secrets=ports.secrets,
        meter=ports.meter,
        staging=ports.staging / str(connector.id),
        production=production,
    )
