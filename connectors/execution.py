"""
The tasks of one connector at work: a bounded number at a time, each through every failure that waiting heals.

A task is in the hands of one run, and stops with it. What is left of a task is left where its last acknowledgement was.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from connectors.delivery import Delivery, Filter
from connectors.envelope import Connector
from connectors.health import Health
from connectors.known import Known
from connectors.lag import SourceLag
from connectors.limit import RateLimit
from connectors.log import bound, extra
from connectors.ports import Ports
from connectors.retry import RetryPolicy
from connectors.run import IN_DOUBT, STOPPED, Run, RunBook
from connectors.source import FinishingSource, Source, Task
from connectors.spec import ConnectorConfig
from connectors.task import Queue, TaskStatus, Work
from connectors.wait import Guard, Leftovers, Stopped, abandon, pause, quietly
from schemas import identity
from schemas.checkpoint import Checkpoint, CheckpointFile
from schemas.errors import Disposition, TillError

logger = logging.getLogger(__name__)

NOT_BEGUN = "not begun"
EDITED = "goes on from a cursor that an operator set; what that left out is in no count"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEPT_ENDED = 1_000  # tasks that ended and still show in the list; the checkpoints know all
_ABANDON_S = 2.0


@dataclass(slots=True)
class Execution:
    """
    Runs the tasks it is given. `pause` is told of an error that somebody must mend, `crash` of a bug of ours; both are
    to set `stopping`, after which nothing begins.
    """

    connector: Connector
    source: Source
    config: ConnectorConfig
    ports: Ports
    rules: Filter
    epoch: int
    known: Known
    health: Health
    runs: RunBook
    retry: RetryPolicy
    left: Leftovers
    stopping: asyncio.Event
    lag: SourceLag
    pause: Callable[[TillError], None]
    crash: Callable[[BaseException], None]
    queue: Queue = field(init=False)
    _limit: RateLimit = field(init=False)
    _running: dict[asyncio.Task[None], Work] = field(default_factory=dict)
    _ended: dict[str, Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = Queue(self.config.parallel)
        self._limit = RateLimit(self.config.records_per_s, self.ports.clock)

    def shown(self, most: int | None = None) -> list[Work]:
        """
        Those that ended last, the running and the pending ones, in the order in which they were found.

        Of too many: those that run, the first of the pending ones, the newest of the ended.
        """
        running = sorted(self._running.values(), key=_order)[:most]
        pending = list(self.queue if most is None else islice(self.queue, (most - len(running)) // 2))
        room = None if most is None else most - len(running) - len(pending)
        ended = list(self._ended.values())
        kept = ended if room is None else ended[max(0, len(ended) - room) :]
        return sorted([*kept, *running, *pending], key=_order)

    @property
    def active(self) -> int:
        """How many tasks have begun and not ended."""
        return len(self._running)

    def add(self, task: Task, run: Run) -> None:
        """Make it work of the run."""
        self._ended.pop(task.key, None)
        self.runs.hold(run, task)
        if self.known.take_edited(task.key):
            run.warn(f"{task.descriptor}: {EDITED}")
        if self.known.is_set(task.key):
            task = replace(task, is_set=True)
        work = self.known.begin(task, self.ports.clock.now(), counted=run.carried.pop(task.key, None))
        if task.recurring:  # a poll that failed has not moved it
            self.lag.begins(task.key, self.ports.clock.now())
        else:
            self.lag.waits(task.key, work.revision_at)
        self.queue.add(work)
        self._fill()

    def cancel(self, run: Run) -> None:
        """End the run: FAILED, cancelled. What was acknowledged of its tasks stays so."""
        run.cancelled = True
        run.stop.set()
        self._give_back(run)
        if run.request is None:
            self.runs.release(run)  # the listing that opened it goes on, and makes no more work

    def guard(self, run: Run | None = None) -> Guard:
        """The bounds of what the source may make us wait, in the work of a run."""
        stop = self.stopping if run is None else run.stop
        name, seconds = self.connector.name, self.config.deadline_s
        return Guard(seconds=seconds, clock=self.ports.clock, stop=stop, left=self.left, owner=name)

    async def drain(self) -> None:
        """What has not begun stays where it is; what runs is given `stop_s` for its acknowledgements and checkpoint."""
        self._give_back()
        if self._running:
            await asyncio.wait(self._running, timeout=2 * self.config.stop_s + _ABANDON_S)

    async def abandon(self) -> None:
        """Give up what still runs."""
        for work in self.queue.clear():  # or what is abandoned would make room for it
            work.status = TaskStatus.STOPPED
        left = list(self._running)
        for running in left:
            running.cancel()
        if left:
            await asyncio.wait(left, timeout=_ABANDON_S)

    def _give_back(self, run: Run | None = None) -> None:
        """Take what has not begun from its run; of one run, or of all."""
        for work in self.queue.clear():
            held_by = self.runs.of(work.task.key)
            if run is not None and held_by is not run:
                self.queue.add(work)
                continue
            work.status = TaskStatus.STOPPED
            if held_by is not None:
                self.runs.release(held_by, work.task.key, left=NOT_BEGUN)

    def _fill(self) -> None:
        while not self.stopping.is_set() and (work := self.queue.begin()) is not None:
            running = asyncio.create_task(self._work(work), name=f"{self.connector.name}: task {work.task.descriptor}")
            self._running[running] = work
            running.add_done_callback(self._worked)

    async def _work(self, work: Work) -> None:
        """Read one task to its end, through every failure that waiting heals."""
        run = self.runs.of(work.task.key)
        assert run is not None, "a task runs only while its run holds it"  # noqa: S101
        delivery = Delivery(
            self.connector,
            self.source,
            self.config,
            self.ports,
            work=work,
            run=run,
            rules=self.rules,
            checkpoint=lambda: self._checkpoint(work, run),
            guard=lambda: self.guard(run),
            progressed=lambda: self._progresses(work),
            hold=lambda seconds: self._hold(work, run, seconds),
            limit=self._limit,
            lag=self.lag,
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

    def _progresses(self, work: Work) -> None:
        work.trouble = ""
        self.health.works(work.task.key)

    async def _attempts(self, delivery: Delivery, work: Work, run: Run) -> None:
        failures = 0
        while True:
            before = work.cursor
            try:
                await delivery.attempt()
            except TillError as exc:
                if exc.disposition is Disposition.CRASH:
                    raise
                exc.retell(self.ports.redact)
                self.health.fails(work.task.key, exc)
                work.trouble = str(exc)
                failures = 1 if work.cursor != before else failures + 1
                if not self.retry.tries_again(exc, failures):
                    self._failed(work, run, exc)
                    return
                await self._wait_for_next_attempt(work, run, failures, exc)
            else:
                self._terminated(work)
                await self._finish(work.task, run)
                return

    async def _wait_for_next_attempt(self, work: Work, run: Run, failures: int, exc: TillError) -> None:
        pause_s = self.retry.pause_s(exc, failures)
        facts = extra(error=exc, code=exc.code, attempt=failures + 1, pause_s=round(pause_s, 3))
        logger.warning("task tries again", extra=facts)
        await self._hold(work, run, pause_s)

    async def _hold(self, work: Work, run: Run, seconds: float) -> None:
        """Let time pass; others run meanwhile. Raises Stopped at a stop."""
        self.queue.give_way()
        self._fill()
        try:
            await pause(seconds, clock=self.ports.clock, stop=run.stop)
        finally:
            await self._come_back(work, run)
        if run.stop.is_set():
            raise Stopped

    async def _come_back(self, work: Work, run: Run) -> None:
        """Wait for room to go on; to end, at a stop, none is needed."""
        returning = asyncio.ensure_future(self.queue.come_back(work.order))
        stopping = asyncio.ensure_future(run.stop.wait())
        try:
            await asyncio.wait({returning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not returning.done():
                returning.cancel()
                self.queue.squeeze_in()

    async def _finish(self, task: Task, run: Run) -> None:
        """Let the source do what it does once an object is done with, within `deadline_s` and until a stop."""
        source = self.source
        if not isinstance(source, FinishingSource) or task.recurring:
            return
        what = f"{self.connector.name}: finishing {task.descriptor}"
        finishing = asyncio.create_task(quietly(lambda: source.finish(task), what), name=what)
        timer = asyncio.ensure_future(self.ports.clock.sleep(self.config.deadline_s))
        stopping = asyncio.ensure_future(run.stop.wait())
        try:
            await asyncio.wait({finishing, timer, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            stopping.cancel()
            await abandon(finishing, self.left)

    def _terminated(self, work: Work) -> None:
        self.health.works(work.task.key)
        self.lag.through(work.task.key)
        counts = work.counts
        facts = extra(**{name: getattr(counts, name) for name in ("read", "published", "rejected", "filtered")})
        if work.is_unusable:
            work.status, work.error = TaskStatus.FAILED, work.first_rejection
            if not work.task.recurring:
                self.health.unusable(work.task, work.error)
            logger.error("Task terminated with error: %s", work.error, extra=facts)
        else:
            work.status = TaskStatus.TERMINATED
            if not work.task.recurring:
                self.health.usable(work.task, work.note)
            logger.info("Task terminated with success", extra=facts)

    def _failed(self, work: Work, run: Run, exc: TillError) -> None:
        work.status, work.error = TaskStatus.FAILED, str(exc)
        run.failures.append(f"{work.task.descriptor}: {exc}")
        logger.error("Task terminated with error: %s", exc, extra=extra(code=exc.code, hint=exc.hint))
        if exc.disposition is Disposition.PAUSE:
            self.pause(exc)

    def _worked(self, running: asyncio.Task[None]) -> None:
        """A task is off the machine, however it ended."""
        work = self._running.pop(running)
        key = work.task.key
        run = self.runs.of(key)
        if not running.cancelled() and (bug := running.exception()) is not None:
            work.status, work.error = TaskStatus.FAILED, f"internal error: {type(bug).__name__}"
            self.crash(bug)
            if run is not None:
                run.failures.append(f"{work.task.descriptor}: {work.error}")
        self.known.end(work)
        self._ended[key] = work
        if len(self._ended) > _KEPT_ENDED:
            del self._ended[next(iter(self._ended))]
        if run is not None:
            stopped = work.status is TaskStatus.STOPPED
            if stopped and work.in_doubt and not run.survives:
                # What may be in the log is not in the counts, so these can never balance: the run must not wait for it.
                run.failures.append(f"{work.task.descriptor}: {IN_DOUBT}")
            elif stopped and work.trouble and not (run.survives or run.counts.read):
                run.failures.append(f"{work.task.descriptor}: {STOPPED}: {work.trouble}")
            # a recurring task that had nothing to read leaves nothing to tell
            left = stopped and (run.survives or run.counts.read or not work.task.recurring)
            self.runs.release(run, key, left=STOPPED if left else "")
        self.queue.end()
        self._fill()

    def _checkpoint(self, work: Work, run: Run) -> Checkpoint:
        return Checkpoint(
            connector_id=self.connector.id,
            task=work.task.key,
            descriptor=work.task.descriptor,
            run_id=run.id,
            epoch=self.epoch,
            seq=self.known.next_seq(),
            cursor=None if work.cursor is None else dict(work.cursor),
            part=tuple(digest.hex() for digest in work.part),
            file=_file_of(work.task),
            counts=work.counts,
            done=work.done,
            used=work.used,
            configuration_version=self.connector.version,
            recurring=work.task.recurring,
            edit=self.known.edit_of(work, self.epoch),
            revision_at=work.revision_at,
            updated_at=self.ports.clock.now(),
        )


def _file_of(task: Task) -> CheckpointFile | None:
    if task.file is None or not _SHA256.fullmatch(task.key):
        return None
    size_bytes, day, downloaded = task.file
    return CheckpointFile(
        name=task.descriptor,
        path=task.path,
        sha256=task.key,
        size_bytes=size_bytes,
        day=day,
        downloaded=downloaded,
    )


def _order(work: Work) -> int:
    return work.order
