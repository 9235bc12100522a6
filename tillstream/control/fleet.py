"""
The fleet: the connectors that this worker runs, kept equal to what operators want.

Desired state lives in PostgreSQL. Every few seconds it is compared with what runs: a new connector is claimed and
started, one that was paused, deleted or configured anew is stopped at a checkpoint. A lost signal costs seconds.
A worker runs the connectors whose partition of the state topic it owns.
While PostgreSQL is away, what runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from connectors.envelope import Connector
from connectors.ports import CheckpointStore, Clock, DeadLetters, Publisher
from connectors.runner import Ports, Runner, State, Status
from connectors.spec import SourceSpec
from schemas import metric
from schemas.errors import ConfigError, Fenced, TillError
from schemas.metric import Meter
from sinks.pool import Pool, connection
from tillstream.control.claim import Claim, claim, renew
from tillstream.control.connector import Desired, checked, desired
from tillstream.control.run import PostgresRunLog
from tillstream.control.statement import statements

logger = logging.getLogger(__name__)

MANAGER = "connector-manager"  # seed 000's component
STOP_S = 6.0  # a worker has nine seconds to end
_RETRY_S = 5.0  # after a connector could not be started


class StateStore(CheckpointStore, Protocol):
    """Where tasks stand, the greatest epoch that was seen there, and which connectors' state is this worker's."""

    def owns(self, connector_id: UUID) -> bool:
        """Whether the connector's partition of the state topic is assigned to this worker now."""
        ...

    def newest_epoch(self, connector_id: UUID) -> int:
        """A claim must go above it. Complete once `load` has returned."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What every runner of this worker shares."""

    pool: Pool
    publisher: Publisher
    dead_letters: DeadLetters
    state: StateStore
    clock: Clock
    meter: Meter
    specs: Mapping[str, SourceSpec]
    worker: str
    production: bool = False


@dataclass(slots=True)
class _Member:
    """One connector in this worker's hands."""

    desired: Desired
    claim: Claim
    runner: Runner
    task: asyncio.Task[State]
    listed_since_s: float


class Fleet:
    """Runs the connectors. `run` returns after `stop`; a bug in a runner comes out of it."""

    def __init__(self, world: World, *, refresh_s: float, heartbeat_s: float) -> None:
        self._world = world
        self._refresh_s = refresh_s
        self._heartbeat_s = heartbeat_s
        self._members: dict[UUID, _Member] = {}
        self._refused: dict[UUID, tuple[int, float]] = {}
        self._stop = asyncio.Event()
        self._beaten_at_s = float("-inf")

    def stop(self) -> None:
        """Stop every connector at a checkpoint; `run` returns then."""
        self._stop.set()

    @property
    def statuses(self) -> Mapping[str, Status]:
        """How the connectors fare, by name."""
        return {member.desired.name: member.runner.status for member in self._members.values()}

    async def run(self) -> None:
        """Compare, start, stop, report, until `stop`."""
        logger.info("Restoring state", extra=_facts())
        try:
            while not self._stop.is_set():
                try:
                    await self._compare(await desired(self._world.pool))
                    await self._beat()
                except TillError as exc:
                    logger.warning("desired connectors unknown", extra=_facts(error=exc, code=exc.code))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._refresh_s)
        finally:
            await self._end()

    async def _compare(self, wanted: list[Desired]) -> None:
        wanted = [each for each in wanted if self._world.state.owns(each.id)]
        by_id = {each.id: each for each in wanted}
        for member in list(self._members.values()):
            if member.task.done():
                self._ended(member)
            if by_id.get(member.desired.id) != member.desired:
                await self._remove(member)
        for each in wanted:
            if each.id not in self._members and not self._stop.is_set():
                await self._add(each)
        self._measure()

    async def _add(self, wanted: Desired) -> None:
        version, again_at_s = self._refused.get(wanted.id, (0, 0.0))
        if version == wanted.version and time.monotonic() < again_at_s:
            return
        try:
            runner, held = await self._claimed(wanted)
        except TillError as exc:
            self._refused[wanted.id] = (wanted.version, time.monotonic() + _RETRY_S)
            logger.error(
                "connector not started", extra=_facts(wanted.provider, error=exc, code=exc.code, hint=exc.hint)
            )
            await self._report_refusal(wanted, exc)
            return
        self._refused.pop(wanted.id, None)
        task = asyncio.create_task(runner.run(), name=f"connector {wanted.name}")
        self._members[wanted.id] = _Member(wanted, held, runner, task, time.monotonic())
        logger.info("Connector installed", extra=_facts(wanted.provider, epoch=held.epoch))

    async def _claimed(self, wanted: Desired) -> tuple[Runner, Claim]:
        """
        A runner under a new epoch, not started yet.

        Raises:
            ConfigError: its kind or configuration is not one that this version runs. SinkError, BrokerError: retry.
        """
        world = self._world
        spec = world.specs.get(wanted.kind)
        if spec is None:
            raise ConfigError(
                f"no source of kind {wanted.kind!r} here", hint=f"there are: {', '.join(sorted(world.specs))}"
            )
        config = checked(spec, wanted.configuration, name=wanted.name, provider=wanted.provider)
        logger.info("Install connector %s", wanted.name, extra=_facts(wanted.provider, kind=wanted.kind))
        await world.state.load(wanted.id)  # everything that an older epoch wrote has been seen
        epoch = world.state.newest_epoch(wanted.id)
        held = await claim(world.pool, wanted.id, worker=world.worker, table_epoch=epoch)
        ports = Ports(
            publisher=world.publisher,
            dead_letters=world.dead_letters,
            checkpoints=world.state,
            runs=PostgresRunLog(world.pool, world.meter),
            clock=world.clock,
            meter=world.meter,
        )
        connector = Connector(wanted.id, wanted.name, wanted.provider)
        runner = Runner(connector, spec, config, ports, epoch=held.epoch, production=world.production)
        return runner, held

    async def _remove(self, member: _Member) -> None:
        logger.info("Uninstalling connector", extra=_facts(member.desired.provider))
        member.runner.stop()
        await asyncio.wait({member.task}, timeout=STOP_S)
        if not member.task.done():
            member.task.cancel()
            await asyncio.wait({member.task}, timeout=1.0)
        del self._members[member.desired.id]
        logger.info("Connector uninstalled", extra=_facts(member.desired.provider))

    def _ended(self, member: _Member) -> None:
        """A runner that ended by itself is paused until it is configured anew; or it met a bug, which is ours."""
        if member.task.cancelled():
            return
        error = member.task.exception()
        if error is not None:
            raise error

    def _measure(self) -> None:
        for member in self._members.values():
            listed_at = member.runner.status.listed_at
            now = self._world.clock.now()
            age_s = (now - listed_at).total_seconds() if listed_at else time.monotonic() - member.listed_since_s
            self._world.meter.set(metric.SCAN_AGE_SECONDS, max(0.0, age_s), connector=member.desired.name)

    async def _beat(self) -> None:
        """Renew the claims and report, every `heartbeat_s`."""
        if time.monotonic() - self._beaten_at_s < self._heartbeat_s:
            return
        self._beaten_at_s = time.monotonic()
        for member in list(self._members.values()):
            try:
                await renew(self._world.pool, member.claim)
            except Fenced as exc:
                logger.warning("claim lost", extra=_facts(member.desired.provider, error=exc))
                await self._remove(member)
                continue
            await self._report(member.desired.id, member.runner.status)

    async def _report(self, connector_id: UUID, status: Status) -> None:
        arguments = ("; ".join(status.problems), status.hint, status.listed_at, status.open_runs, status.pending)
        skipped = json.dumps(dict(status.skipped))
        async with connection(self._world.pool) as held:
            await held.execute(statements()["report_connector"], connector_id, status.state.value, *arguments, skipped)

    async def _report_refusal(self, wanted: Desired, exc: TillError) -> None:
        state = State.DEGRADED if exc.retryable else State.PAUSED
        with contextlib.suppress(TillError):  # the log has it
            await self._report(wanted.id, Status(state, (str(exc),), exc.hint, None, 0, 0, {}))

    async def _end(self) -> None:
        members = list(self._members.values())
        for member in members:
            member.runner.stop()
        if members:
            await asyncio.wait({member.task for member in members}, timeout=STOP_S)
        for member in members:
            member.task.cancel()


def _facts(provider: str = "", **facts: object) -> dict[str, dict[str, object]]:
    named: dict[str, object] = {"component": MANAGER, **facts}
    if provider:
        named["provider"] = provider
    return {"facts": named}
