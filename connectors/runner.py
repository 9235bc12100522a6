"""
The runner: polls one connector's source, reads what is new, publishes it, remembers how far it got.

    poll ─▶ tasks ─▶ read ─▶ publish ─▶ acks of the events, and of the rejections' letters ─▶ checkpoint

A checkpoint is written only after everything before its cursor is acknowledged, so a crash costs duplicates, which have
the same ids, and never a record. One run is one listing that found work; an empty poll is no run. A run that an
operator asked for is one in any case, and comes before the next poll.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from connectors.context import SourceContext
from connectors.delivery import Filter
from connectors.envelope import Connector
from connectors.execution import Execution
from connectors.health import LISTING, Health, State, Status
from connectors.known import Known, last_runs
from connectors.lag import SourceLag
from connectors.lister import Found, Lister
from connectors.log import bound, extra
from connectors.ports import Ports
from connectors.retry import RetryPolicy
from connectors.run import NOTHING_CARRIED, SCHEDULED, STOPPED, Run, RunBook, RunReporter, total
from connectors.source import Progress, ProgressingSource, Request, Source
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.task import TaskStatus, TaskView
from connectors.thread import Threads, own_threads
from connectors.wait import Backoff, Leftovers, Stopped, bounded, broken, pause
from schemas import identity, metric
from schemas.checkpoint import Checkpoint, Counts
from schemas.errors import Disposition, Fenced, TillError

__all__ = ["Ports", "Runner", "State", "Status"]

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0  # how often an open run says that it lives
_UNTOLD = "crashed, or could not tell how it ended; what is left of it goes on under another run"
_LOST = "was begun under this run, and is not listed any more"
_LOG_BACKOFF_MAX_S = 30.0


class _Asked(NamedTuple):
    """A run that an operator wants."""

    request: Request
    triggered_by: str
    run_type: str


class Runner:
    """
    Runs one connector until it is stopped, or pauses because of an error that somebody must mend.

    `epoch` comes from a claim on the connector: the checkpoint store refuses what an older one still writes.
    `going_on` are runs that were asked for and not ended: an earlier life may have begun them, and `request` goes on.
    Without `polls` it does what `request` asks for, and nothing by itself.

    Raises:
        SourceBroken: retry; the source cannot be made.
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
        going_on: Collection[UUID] = (),
        polls: bool = True,
        rng: random.Random | None = None,
        new_run_id: Callable[[], UUID] = uuid4,
    ) -> None:
        self.connector = connector
        self._spec = spec
        self._config = config
        self._ports = ports
        self._clock = ports.clock
        self._going_on = frozenset(going_on)
        self._polls = polls
        self._source = _made(spec, config, _context(connector, ports, production=production))
        rng = rng or random.Random()
        self._retry = RetryPolicy.of(config, rng)
        log_backoff = Backoff(1.0, _LOG_BACKOFF_MAX_S, rng)
        self._reporter = RunReporter(
            ports.runs, connector_id=connector.id, clock=ports.clock, backoff=log_backoff, fenced=self._succeeded
        )
        self._runs = RunBook(self._reporter, new_run_id)
        self._known = Known(connector.version)
        self._health = Health(connector.name, ports.meter)
        self._lag = SourceLag(connector.name, alert_s=config.lag_alert_s, clock=ports.clock, meter=ports.meter)
        self._left = Leftovers()
        self._threads = Threads(connector.name)
        self._stop = asyncio.Event()
        self._restored = asyncio.Event()
        self._execution = Execution(
            connector,
            self._source,
            config,
            ports,
            Filter.of(config, production=production),
            epoch,
            self._known,
            self._health,
            self._runs,
            self._retry,
            self._left,
            self._stop,
            self._lag,
            pause=self._pause,
            crash=self._crash,
        )
        self._lister = Lister(self._source, self._known, self._runs, self._execution, self._health, ports.meter)
        self._asked: deque[_Asked] = deque()
        self._wake = asyncio.Event()
        self._bug: BaseException | None = None
        self._created_at = self._clock.now()
        self._listed_at: datetime | None = None

    # What the outside asks.

    def stop(self) -> None:
        """Stop reading, wait for acknowledgements within `stop_s`, write checkpoints; `run` returns then."""
        self._stop.set()
        for run in self._runs:
            run.stop.set()

    def cancel(self) -> None:
        """As `stop`, but open runs end FAILED with the reason `cancelled`."""
        for run in self._runs:
            run.cancelled = True
        self.stop()

    def request(self, request: Request, *, triggered_by: str = "MANUAL", run_type: str = "MANUAL") -> None:
        """Do this next, as the run of the request's id; asked again while it is under way it changes nothing."""
        asked = any(each.request.id == request.id for each in self._asked)
        if not asked and self._runs.get(UUID(request.id)) is None:
            self._asked.append(_Asked(request, triggered_by, run_type))
            self._wake.set()

    def cancel_request(self, run_id: UUID) -> bool:
        """
        End a run: FAILED, cancelled. What was acknowledged of it stays so; what it left is read by the next run.

        False where it is not under way here: then it never will be, and the caller ends it.
        """
        run = self._runs.get(run_id)
        if run is None:
            self._asked = deque(each for each in self._asked if each.request.id != str(run_id))
            return False
        self._execution.cancel(run)
        return True

    async def started(self) -> bool:
        """Wait until it knows where its tasks stand, and its first one is started; False: a stop came before."""
        known = [asyncio.ensure_future(each.wait()) for each in (self._restored, self._stop)]
        try:
            await asyncio.wait(known, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in known:
                each.cancel()
        return self._restored.is_set()

    async def left_of(self, run_id: UUID) -> Counts | None:
        """
        What earlier lives counted of a run that goes on, by its checkpoints; None if there are none.

        Raises:
            Stopped: a stop came before it was known.
        """
        if not await self.started():
            raise Stopped
        carried = self._known.carried.get(run_id)
        return total(carried.values()) if carried else None

    def tasks(self, most: int | None = None) -> list[TaskView]:
        """The listing's task, then the last thousand that ended, the running and the pending ones, oldest first."""
        provider, state = self.connector.provider, self.state
        status = {State.PAUSED: TaskStatus.FAILED, State.STOPPED: TaskStatus.STOPPED}.get(state, TaskStatus.ACTIVE)
        error = "; ".join(self.status.problems) if status is TaskStatus.FAILED else ""
        listing = TaskView(provider, self._spec.listing, self._created_at, status, error, {})
        return [listing, *(work.view(provider) for work in self._execution.shown(most))]

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self.status.state

    @property
    def fenced(self) -> bool:
        """Whether it paused because a newer owner has taken the connector over."""
        return self._health.fenced

    @property
    def status(self) -> Status:
        """How it fares now."""
        self._health.others = (self._reporter.problem, self._lag.problem)
        return Status(
            state=self._health.state,
            problems=tuple(self._health.problems()),
            hint=self._health.hint,
            listed_at=self._listed_at,
            open_runs=self._runs.announced,
            pending=len(self._execution.queue),
            skipped=self._health.skipped,
            progress=_progress_of(self._source),
            active=self._execution.active,
            left_behind=len(self._left) + self._threads.busy,
        )

    # The loop.

    async def run(self) -> State:
        """
        Run until stopped or paused; returns which.

        Raises a bug of ours (anything that is no TillError) after the open runs were ended FAILED. Cancelling it ends
        them FAILED `cancelled`, without waiting for what is not acknowledged.
        """
        with own_threads(self._threads), bound(component="scheduler", provider=self.connector.provider):
            reporting = asyncio.create_task(self._reporter.serve(), name="run reporter")
            beating = asyncio.create_task(self._beat(), name="run heartbeat")
            try:
                with bound(task_id=identity.task_id(self._spec.listing)):
                    if await self._restore():
                        logger.info("Starting task...", extra=extra())
                        await self._poll_until_stopped()
                self.stop()
                logger.info("Stopping scheduler...", extra=extra())
                await self._execution.drain()
                if self._bug is not None:
                    raise self._bug
            except asyncio.CancelledError:
                self._runs.cancel_all()
                raise
            except Exception as bug:
                self._runs.fail_all(f"internal error: {type(bug).__name__}")
                raise
            finally:
                beating.cancel()
                await self._execution.abandon()
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
                await pause(self._retry.pause_s(exc, failures), clock=self._clock, stop=self._stop)
            else:
                self._known.restore(loaded.values(), going_on=self._going_on)
                self._restored.set()
                self._report_last_life(loaded.values())
                self._health.works(LISTING)
                self._health.enter(State.RUNNING)
                return True
        return False

    def _report_last_life(self, checkpoints: Collection[Checkpoint]) -> None:
        """A run whose end the log does not know ends now: it crashed, or the log was away. Others are left alone."""
        triggered_by, run_type = SCHEDULED
        for run_id, counts in last_runs(checkpoints).items():
            if run_id not in self._going_on:
                self._reporter.open(run_id, triggered_by=triggered_by, run_type=run_type)
                self._reporter.fail(run_id, counts, reason=_UNTOLD)

    async def _poll_until_stopped(self) -> None:
        self._ports.meter.set(metric.POLL_SECONDS, self._config.poll_s, connector=self.connector.name)
        due_s, failures = self._clock.monotonic(), 0
        while not self._stop.is_set():
            self._wake.clear()
            if self._asked:
                await self._serve(self._asked.popleft())
            elif not self._polls:
                await self._until(HEARTBEAT_S)
            elif self._clock.monotonic() >= due_s:
                error = await self._poll(failures)
                failures = 0 if error is None else failures + 1
                heals = error is not None and self._retry.heals(error)
                pause_s = self._retry.pause_s(error, failures) if error and heals else self._config.poll_s
                due_s = self._clock.monotonic() + pause_s
                await self._until(pause_s)
            else:
                await self._until(due_s - self._clock.monotonic())

    async def _until(self, seconds: float) -> None:
        """Let so much pass, or less: until a stop, or a request."""
        waits: list[asyncio.Future[object]] = [
            asyncio.ensure_future(wait) for wait in (self._clock.sleep(seconds), self._stop.wait(), self._wake.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _poll(self, failures: int) -> TillError | None:
        """One listing that nobody asked for, after so many that failed in a row; why it failed."""
        found = Found()
        try:
            await self._lister.list(found)
        except Stopped:
            return None
        except TillError as exc:
            self._listing_failed(exc, failures + 1)
            return exc
        finally:
            if found.run is not None:
                found.run.problems += found.problems
                self._runs.release(found.run)
        self._listed_at = self._clock.now()
        self._lag.keep(found.met)
        self._health.listed(found.met, found.skipped)
        return None

    async def _serve(self, asked: _Asked) -> None:
        """The run that an operator asked for, until its listing is through; its tasks go on."""
        request, run_type = asked.request, asked.run_type
        carried = self._known.carried.pop(UUID(request.id), NOTHING_CARRIED)
        done = frozenset(key for key in carried if self._known.is_done(key))
        run = self._runs.open(triggered_by=asked.triggered_by, run_type=run_type, request=request, carried=carried)
        left = STOPPED
        try:
            await self._list_for(run, done)
            left = ""
        except Stopped:
            logger.info("listing stopped", extra=extra(run=run.id))
        finally:
            self._runs.release(run, left=left)

    async def _list_for(self, run: Run, done: frozenset[str]) -> None:
        """List until it succeeds, or the run has failed. `done` are tasks that this run has read already."""
        failures = 0
        while True:
            found = Found(run, done)
            try:
                await self._lister.list(found)
            except TillError as exc:
                failures += 1
                self._listing_failed(exc, failures)
                if not self._retry.tries_again(exc, failures):
                    run.failures.append(str(exc))
                    return
                run.list_anew()
                if await pause(self._retry.pause_s(exc, failures), clock=self._clock, stop=run.stop):
                    raise Stopped from exc
            else:
                run.problems += found.problems
                run.failures += [f"{key}: {_LOST}" for key in run.carried if key not in done]
                self._listed_at = self._clock.now()
                self._lag.through(LISTING)
                self._health.works(LISTING)
                return

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            self._runs.beat()
            self._lag.show()
            self._health.others = (self._reporter.problem, self._lag.problem)
            self._health.show()

    # What goes wrong.

    def _listing_failed(self, exc: TillError, failures: int) -> None:
        exc.retell(self._ports.redact)
        self._lag.waits(LISTING, self._listed_at or self._created_at)
        self._health.fails(LISTING, exc)
        logger.error("%s", exc, extra=extra(code=exc.code, hint=exc.hint))
        if exc.disposition is not Disposition.RETRY and not self._retry.tries_again(exc, failures):
            self._pause(exc)

    def _pause(self, exc: TillError) -> None:
        logger.error("connector paused", extra=extra(error=exc, code=exc.code, hint=exc.hint))
        self._health.enter(State.PAUSED)
        self.stop()

    def _succeeded(self, exc: Fenced) -> None:
        """The run log refuses what we write: somebody else has claimed the connector."""
        if not self._health.fenced:
            self._health.fails(LISTING, exc)
            self._pause(exc)

    def _crash(self, bug: BaseException) -> None:
        self._bug = self._bug or bug
        self.stop()

    # The end.

    async def _close(self, reporting: asyncio.Task[None]) -> None:
        """Bring the runs' ends to the run log and let go of the source, both within `stop_s`."""
        stop_s, close = self._config.stop_s, self._source.close
        flushing = asyncio.ensure_future(self._reporter.flushed())
        closing = asyncio.ensure_future(bounded(close, stop_s, self._left, what="closing the source"))
        await asyncio.wait({flushing, reporting}, timeout=stop_s, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({closing})
        for task in (flushing, reporting):
            task.cancel()
        if self.state is not State.PAUSED:
            self._health.enter(State.STOPPED)


def _made(spec: SourceSpec, config: ConnectorConfig, context: SourceContext) -> Source:
    try:
        return spec.factory(config, context)
    except TillError:
        raise
    except Exception as exc:  # a stranger's code may fail in any way
        raise broken(exc, f"making a source of kind {spec.kind}") from exc


def _progress_of(source: Source) -> tuple[Progress, ...]:
    try:
        return tuple(source.progress) if isinstance(source, ProgressingSource) else ()
    except Exception as exc:  # a stranger's code may fail in any way
        logger.warning("no progress known", extra=extra(error=f"{type(exc).__name__}: {exc}"))
        return ()


def _context(connector: Connector, ports: Ports, *, production: bool) -> SourceContext:
    return SourceContext(
        connector_id=connector.id,
        connector=connector.name,
        clock=ports.clock,
        secrets=ports.secrets,
        meter=ports.meter,
        staging=ports.staging / str(connector.id),
        adapters=ports.adapters,
        production=production,
    )
