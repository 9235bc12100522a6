"""
Runs that an operator asks for: now, of days of the past, of what is done already; and their end before their time.

A request is a row, and so is its run from the start: the worker that owns the connector takes it under its claim, and
whoever claims the connector next goes on with it. Nothing is lost with a worker, a signal or a console.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from uuid import UUID, uuid4

from connectors.source import Request
from connectors.spec import SourceSpec
from schemas.checkpoint import Counts
from schemas.errors import ConfigError, Conflict, NotFound, TimedOut
from sinks.pool import Connection, Pool, connection
from tillstream.control import run
from tillstream.control.attempt import attempt
from tillstream.control.claim import Claim, insist
from tillstream.control.connector import ConnectorView, by_id
from tillstream.control.run import RunStatus, RunView
from tillstream.control.statement import statements

MANUAL, BACKFILL = "MANUAL", "BACKFILL"
CANCELLED = "cancelled"
_LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Requested:
    """An open request, as a worker sees it. `epoch` is that of the claim that served it last, if one did."""

    connector_id: UUID
    request: Request
    run_type: str
    requested_by: str
    epoch: int | None
    cancelled: bool

    @property
    def run_id(self) -> UUID:
        """The run's."""
        return UUID(self.request.id)


async def ask(
    pool: Pool,
    view: ConnectorView,
    spec: SourceSpec,
    *,
    since: date | None = None,
    until: date | None = None,
    force: bool = False,
    requested_by: str = MANUAL,
    run_id: UUID | None = None,
    dry_run: bool = False,
) -> UUID:
    """
    Ask for a run of an active connector; its id. A worker begins it within seconds.

    With a `run_id` that is asked for already nothing happens, so that who lost the answer may ask again.

    Days make it a BACKFILL; both are included, in the connector's own zone.

    Raises:
        ConfigError: days that are none, or that this kind of source does not know. Conflict: the connector is paused.
        SinkError: as routed.
    """
    dated = since is not None or until is not None
    if dated and not spec.takes_dates:
        raise ConfigError(
            f"a connector of kind {spec.kind!r} knows no days", hint="leave the days out: it reads what is new"
        )
    if since is not None and until is not None and since > until:
        raise ConfigError(f"the first day, {since}, is after the last, {until}", hint="name them the other way round")
    run_id, kind = run_id or uuid4(), BACKFILL if dated else MANUAL
    arguments = (run_id, view.id, kind, requested_by, since, until, force)
    async with attempt(pool, dry_run=dry_run) as held:
        if await held.fetchval(statements()["find_request"], run_id) is not None:
            return run_id
        if await held.fetchval(statements()["request_run"], *arguments) is None:
            raise Conflict(f"connector {view.name!r} is not active", hint="resume it, and ask again")
    return run_id


async def retry(
    pool: Pool,
    view: RunView,
    specs: Mapping[str, SourceSpec],
    *,
    requested_by: str = MANUAL,
    run_id: UUID | None = None,
    dry_run: bool = False,
) -> UUID:
    """
    Ask for the same once more, of the same days; the new run's id.

    Raises:
        Conflict: it has not ended, was a test, or its connector is deleted or not active. ConfigError: its kind of
            source is not known here. SinkError: as routed.
    """
    if view.completed_at is None:
        raise Conflict("the run has not ended: it cannot be tried again", hint="wait for its end, or cancel it")
    if view.type == run.TEST:
        raise Conflict("a test is not tried again as a run", hint="test the connector again")
    async with connection(pool) as held:
        try:
            owner = await by_id(held, view.connector_id)
        except NotFound as exc:
            raise Conflict(f"connector {view.connector!r} is deleted", hint="create it anew, and run that") from exc
    spec = specs.get(owner.kind)
    if spec is None:
        raise ConfigError(f"there is no source of kind {owner.kind!r} here")
    days = {"since": view.since, "until": view.until}
    return await ask(
        pool, owner, spec, **days, force=view.force, requested_by=requested_by, run_id=run_id, dry_run=dry_run
    )


async def cancel(pool: Pool, view: RunView, *, cancelled_by: str = MANUAL, dry_run: bool = False) -> bool:
    """
    End a run: FAILED, cancelled. True: at once; else its worker does within seconds.

    Its connector goes on, and reads with the next run what this one left.

    Raises:
        Conflict: it is read to its end, has ended, or was cancelled before. SinkError: as routed.
    """
    async with attempt(pool, dry_run=dry_run) as held:
        if await held.fetchval(statements()["cancel_run"], view.id, cancelled_by) is None:
            raise await _refused(held, view)
        # a run that nobody asked for is its worker's
        if await held.fetchval(statements()["find_request"], view.id) is not False:
            return False
        await run.close(held, view.id, RunStatus.FAILED, reason=CANCELLED)
        return True


async def _refused(held: Connection, view: RunView) -> Conflict:
    now = await run.found(held, str(view.id))
    if now.completed_at is None and now.awaiting_sink:
        return Conflict("the run is read to its end: it cannot be cancelled", hint="it ends once the sink confirms it")
    if now.completed_at is None:
        return Conflict("the run was cancelled before; its worker ends it", hint="`till run show` tells when it has")
    return Conflict("the run has ended: it cannot be cancelled", hint="`till run show` tells how")


async def ended(pool: Pool, run_id: UUID, *, within_s: float) -> RunView:
    """
    The run, once it has ended: read, and confirmed by the sink.

    Raises:
        TimedOut: it has not ended in time. SinkError: as routed.
    """
    deadline = time.monotonic() + within_s
    while True:
        view = await run.find_run(pool, str(run_id))
        if view.completed_at is not None:
            return view
        if time.monotonic() > deadline:
            at = "waits for a worker" if view.waiting else "waits for the sink" if view.awaiting_sink else "still reads"
            raise TimedOut(f"run {run_id} has not ended within {within_s:g} s: it {at}", hint="it goes on by itself")
        await asyncio.sleep(_LOOK_S)


async def open_requests(held: Connection, connectors: list[UUID]) -> list[Requested]:
    """Every request of these connectors that has not ended, in the order in which they were made."""
    return [
        Requested(
            connector_id=row["connector_id"],
            request=Request(str(row["run"]), row["first_day"], row["last_day"], row["force"]),
            run_type=row["run_type"],
            requested_by=row["requested_by"],
            epoch=row["epoch"],
            cancelled=row["cancelled"],
        )
        for row in await held.fetch(statements()["open_requests"], connectors)
    ]


async def take(pool: Pool, request: Requested, claim: Claim) -> bool:
    """
    Serve it under the claim; False: it has ended, was cancelled, or belongs to a newer claim.

    Raises:
        SinkError: as routed.
    """
    async with connection(pool) as held:
        taken = await held.fetchval(statements()["take_request"], request.run_id, claim.epoch, claim.worker)
    return taken is not None


async def end(pool: Pool, run_id: UUID, claim: Claim, *, reason: str, counts: Counts | None = None) -> None:
    """
    End a run that no runner has in hand: FAILED, with these counts or those that it has.

    Raises:
        Fenced: pause. SinkError: as routed.
    """
    async with connection(pool) as held, held.transaction():
        await insist(held, claim)
        if counts is not None:
            await run.record(held, run_id, counts)
        await run.close(held, run_id, RunStatus.FAILED, reason=reason, only_while_reading=True)
