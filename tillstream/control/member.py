"""
One connector in a worker's hands: claimed, run, served what was asked of it, let go.

A member lives in tasks of its own, and every wait of its end has a bound, so that none holds up the worker or another
member. A source that does not let go in time is left behind: what it still publishes has the ids of what its successor
publishes, and what it still says of its state is refused, because its epoch is outdated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from connectors.envelope import Connector
from connectors.ports import Ports
from connectors.runner import Runner, State, Status
from connectors.secret_text import masked
from connectors.spec import SourceSpec
from connectors.wait import Stopped
from schemas import metric
from schemas.checkpoint import Counts
from schemas.errors import ConfigError, Fenced, TillError
from schemas.failpoint import failpoint
from sinks.pool import Pool, connection
from tillstream.control import request as requests
from tillstream.control.claim import Claim
from tillstream.control.connector import checked
from tillstream.control.desired import Desired
from tillstream.control.lease import MeterLease
from tillstream.control.report import MOST_TASKS, Reporter
from tillstream.control.request import Requested
from tillstream.control.run import PostgresRunLog
from tillstream.control.takeover import StateStore, release, take_over

logger = logging.getLogger(__name__)

MANAGER = "connector-manager"  # seed 000's component
STOP_S = 5.0  # a stop, and a revocation, wait so long for acknowledgements and checkpoints
GIVE_UP_S = 1.5  # and so long for what was cancelled then
_LAST_REPORT_S = 0.5  # readers may be late


@dataclass(frozen=True, slots=True)
class World:
    """What every connector of this worker shares. `ports.runs` is replaced by the run log of each claim."""

    pool: Pool
    ports: Ports
    state: StateStore
    specs: Mapping[str, SourceSpec]
    worker: str
    production: bool = False


class Member:
    """One connector, from its claim to its end. `changed` is called whenever it ends by itself."""

    def __init__(self, world: World, wanted: Desired, asked: Sequence[Requested], changed: Callable[[], None]) -> None:
        self.desired = wanted
        self.claim: Claim | None = None
        self.runner: Runner | None = None
        self.refusal: TillError | None = None
        self.fenced = False
        self.edits: frozenset[UUID] = frozenset()  # of its cursors, seen to before it began
        self.since_s = time.monotonic()
        self._world = world
        self._asked = list(asked)
        self._served: set[UUID] = set()
        self._cancelled: set[UUID] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Task[None]] = set()  # of those what begins a run
        self._reporter = Reporter(wanted.id, world.worker)
        self._ending: asyncio.Task[None] | None = None
        self.lease = MeterLease(world.ports.meter)
        self._life = asyncio.create_task(self._live(), name=f"{wanted.name}: connector")
        self._life.add_done_callback(lambda _: changed())

    # What it is.

    @property
    def is_ending(self) -> bool:
        """Whether somebody wants it to end."""
        return self._ending is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself: refused, fenced, or paused until somebody mends something."""
        return self._life.done()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, or was left behind because it did not."""
        return self._ending is not None and self._ending.done()

    @property
    def left_behind(self) -> int:
        """Awaits and threads of its source that were given up and do not end, and its life where that does not."""
        own = 0 if self._life.done() else 1
        return (self.runner.status.left_behind if self.runner else 0) + (own if self.is_gone else 0)

    @property
    def status(self) -> Status | None:
        """How its runner fares; None before there is one."""
        return None if self.runner is None else self.runner.status

    def bug(self) -> BaseException | None:
        """What ended it, where that was a bug of ours."""
        return None if not self._life.done() or self._life.cancelled() else self._life.exception()

    # Its life.

    async def _live(self) -> None:
        wanted = self.desired
        try:
            held, runner = await self._claimed()
        except Fenced:
            self.fenced = True
            return
        except TillError as exc:
            self.refusal = exc
            facts = _facts(wanted.provider, error=exc, code=exc.code, hint=exc.hint)
            logger.error("connector not started", extra=facts)
            await self._report_refusal(exc)
            return
        self.runner = runner
        self._begin(self._tell_installed(runner, held))
        self.serve(self._asked)
        if self._taking:
            await asyncio.wait(self._taking)  # what an earlier life began goes on before the first poll
        self._begin(self._report_quietly())
        await runner.run()
        self.lease.forget_all(metric.CONNECTOR_STATE)  # it measures nothing any more, and shows that it is paused
        self.fenced = runner.fenced

    async def _tell_installed(self, runner: Runner, held: Claim) -> None:
        """In seed 000's order: after its first task was started."""
        if await runner.started():
            logger.info("Connector installed", extra=_facts(self.desired.provider, epoch=held.epoch))

    async def _claimed(self) -> tuple[Claim, Runner]:
        """
        A runner under a new epoch, not started yet.

        Raises:
            ConfigError: its kind or configuration is not one that this version runs. SourceBroken: retry; its source
                cannot be made. SinkError, BrokerError: retry.
        """
        world, wanted = self._world, self.desired
        spec = world.specs.get(wanted.kind)
        if spec is None:
            raise ConfigError(
                f"no source of kind {wanted.kind!r} here", hint=f"there are: {', '.join(sorted(world.specs))}"
            )
        names = {"name": wanted.name, "provider": wanted.provider, "known_as": wanted.name}
        config = checked(spec, wanted.configuration, **names)
        told = _facts(wanted.provider, kind=wanted.kind, config=_told(masked(wanted.configuration, spec.config)))
        logger.info("Install connector %s", wanted.name, extra=told)
        took = await take_over(world.pool, world.state, wanted.id, worker=world.worker, clock=world.ports.clock)
        self.claim = held = took.claim
        self.edits = took.edits
        async with connection(world.pool) as reading:  # from the claim on nobody else begins what was asked for
            self._asked = await requests.open_requests(reading, [wanted.id])
        self._reporter.epoch = held.epoch
        runner = Runner(
            Connector(wanted.id, wanted.name, wanted.provider, wanted.version),
            spec,
            config,
            replace(world.ports, meter=self.lease, runs=PostgresRunLog(world.pool, world.ports.meter, claim=held)),
            epoch=held.epoch,
            production=world.production,
            going_on=[each.run_id for each in self._asked if each.epoch is not None],
            polls=wanted.polls,
        )
        return held, runner

    # What is asked of it.

    def serve(self, asked: Sequence[Requested], cancelled: Sequence[UUID] = ()) -> None:
        """
        Begin what was asked for since the last call, and end what was cancelled. Returns at once.

        `cancelled` are runs that nobody asked for: one that is not under way here was left behind by an earlier life.
        """
        if self.claim is None or self.runner is None or self.is_ending:
            self._asked = list(asked)
            return
        for each in asked:
            if self.is_over:
                self._refuse(each, self.claim, self.runner)
            elif each.cancelled and each.run_id not in self._cancelled:
                self._cancelled.add(each.run_id)
                self._begin(self._cancel(each, self.claim, self.runner))
            elif not each.cancelled and each.run_id not in self._served:
                self._served.add(each.run_id)
                taking = self._begin(self._take(each, self.claim, self.runner))
                self._taking.add(taking)
                taking.add_done_callback(self._taking.discard)
        for run_id in cancelled:
            if run_id not in self._cancelled and not (self.runner.cancel_request(run_id) or self.is_over):
                self._cancelled.add(run_id)
                self._begin(self._end_run(run_id, self.claim))

    def _refuse(self, asked: Requested, held: Claim, runner: Runner) -> None:
        """It paused itself: what is asked of it would wait for ever."""
        if not runner.fenced and asked.run_id not in self._cancelled:
            self._cancelled.add(asked.run_id)
            reason = f"the connector is paused: {'; '.join(runner.status.problems)}"
            self._begin(self._end_run(asked.run_id, held, reason))

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{self.desired.name}: request")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _take(self, asked: Requested, held: Claim, runner: Runner) -> None:
        try:
            if await requests.take(self._world.pool, asked, held):
                failpoint("after_request_taken")
                runner.request(asked.request, triggered_by=asked.requested_by, run_type=asked.run_type)
        except TillError as exc:
            self._served.discard(asked.run_id)  # the next look tries again
            logger.warning("request not taken", extra=_facts(self.desired.provider, error=exc, run=asked.run_id))

    async def _cancel(self, asked: Requested, held: Claim, runner: Runner) -> None:
        if runner.cancel_request(asked.run_id):
            return
        try:
            counts = await runner.left_of(asked.run_id)
        except Stopped:
            self._cancelled.discard(asked.run_id)
            return  # whoever has the connector next ends it
        await self._end_run(asked.run_id, held, counts=counts)

    async def _end_run(
        self, run_id: UUID, held: Claim, reason: str = requests.CANCELLED, *, counts: Counts | None = None
    ) -> None:
        try:
            await requests.end(self._world.pool, run_id, held, reason=reason, counts=counts)
        except TillError as exc:
            self._cancelled.discard(run_id)  # the next look tries again
            logger.warning("run not ended", extra=_facts(self.desired.provider, error=exc, run=run_id))

    # What it tells.

    async def report(self, note: str = "") -> None:
        """
        Tell how it fares, and its tasks.

        Raises:
            SinkError: as routed.
        """
        if self.runner is not None:
            await self._reporter.tell(self._world.pool, self.runner.status, self.runner.tasks(MOST_TASKS), note=note)

    async def _report_quietly(self) -> None:
        with contextlib.suppress(TillError):
            await self.report()

    async def _report_refusal(self, exc: TillError) -> None:
        state = State.DEGRADED if exc.retryable else State.PAUSED
        with contextlib.suppress(TillError):  # the log has it
            await self._reporter.tell(self._world.pool, Status(state, (str(exc),), exc.hint, None, 0, 0, {}), ())

    # Its end.

    def end(self, *, fenced: bool = False) -> None:
        """Let go: stop at a checkpoint within `STOP_S`, or be cancelled, or be left behind. Returns at once."""
        self.fenced = self.fenced or fenced
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name=f"{self.desired.name}: end")

    async def ended(self) -> None:
        """Wait for the end, which has a bound."""
        if self._ending is not None:
            await asyncio.wait({self._ending})

    async def _end(self) -> None:
        provider = self.desired.provider
        logger.info("Uninstalling connector", extra=_facts(provider))
        if self.runner is None:
            self._life.cancel()
        else:
            self.runner.stop()
            await asyncio.wait({self._life}, timeout=STOP_S)
            self._life.cancel()
        await asyncio.wait({self._life}, timeout=GIVE_UP_S)
        self.lease.end()
        stays = not self._life.done() or (self.runner is not None and self.runner.status.left_behind > 0)
        await asyncio.wait({asyncio.create_task(self._last_words(gone=not stays))}, timeout=_LAST_REPORT_S)
        if stays:
            logger.error("connector left behind: its source does not stop", extra=_facts(provider))
        else:
            logger.info("Connector uninstalled", extra=_facts(provider))

    async def _last_words(self, *, gone: bool) -> None:
        await self._report_quietly()
        if gone and self.claim is not None:
            with contextlib.suppress(TillError):  # then it is taken for held until it was silent for long enough
                await release(self._world.pool, self.claim)


# a source's own
def _told(configuration: Mapping[str, Any]) -> str:
    """As seed 000 prints one: `{}`, `{/tmp/payments}`; several options with their names."""
    if len(configuration) < 2:
        return "{" + "".join(str(value) for value in configuration.values()) + "}"
    return "{" + " ".join(f"{name}:{value}" for name, value in sorted(configuration.items())) + "}"


def _facts(provider: str = "", **facts: object) -> dict[str, dict[str, object]]:
    named: dict[str, object] = {"component": MANAGER, **facts}
    if provider:
        named["provider"] = provider
    return {"facts": named}
