"""Runs: listed, shown, cancelled."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from schemas.errors import Conflict, NotFound
from tillstream.api.idempotency import Reserved, ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.activity import ActivityShape
from tillstream.api.v1.shape import (
    USUAL,
    After,
    Body,
    DryRun,
    Instant,
    Limit,
    Model,
    Page,
    cursor_of,
    instant,
    number,
    place_of,
)
from tillstream.api.world import World, WorldDep
from tillstream.control import activity, request
from tillstream.control import connector as connectors
from tillstream.control import file as files
from tillstream.control import run as runs
from tillstream.control.connector import ConnectorView
from tillstream.control.run import RunStatus

router = APIRouter(prefix="/api/v1/runs", tags=["runs"], responses=PROBLEMS)


class RunBody(Body):
    """A run that is asked for; days make it a backfill, both are included."""

    since: date | None = None
    until: date | None = None
    force: bool = Field(default=False, description="Read again what is done; its events stay the same.")
    triggered_by: str = Field(default=request.MANUAL, min_length=1, max_length=100)


class RunShape(Model):
    """
    One run. `awaiting_sink`: it is read to its end, and the sink has not confirmed it yet.

    `waiting`: it was asked for, and no worker has begun it.
    """

    id: UUID
    number: int | None
    connector: str
    connector_id: UUID
    type: str
    status: RunStatus
    triggered_by: str
    read: int
    published: int
    rejected: int
    filtered: int
    skipped: int
    applied: int
    duplicate: int
    dead: int
    started_at: datetime
    completed_at: datetime | None
    duration_s: float | None
    awaiting_sink: bool
    reason: str
    note: str
    waiting: bool
    cancelled: bool
    asked: bool
    since: date | None
    until: date | None
    force: bool
    # seed 003's, once it has ended; a TEST run's have its steps
    details: dict[str, Any] | None

    @classmethod
    def wanted(cls, identifier: UUID, view: ConnectorView, body: RunBody) -> Self:
        """What a run would be that nobody asks for: a dry run's answer."""
        counts = dict.fromkeys(
            ("read", "published", "rejected", "filtered", "skipped", "applied", "duplicate", "dead"), 0
        )
        return cls(
            id=identifier,
            number=None,
            connector=view.name,
            connector_id=view.id,
            type=request.BACKFILL if body.since or body.until else request.MANUAL,
            status=RunStatus.RUNNING,
            triggered_by=body.triggered_by,
            **counts,
            started_at=datetime.now(UTC),
            completed_at=None,
            duration_s=None,
            awaiting_sink=False,
            reason="",
            note="",
            waiting=True,
            cancelled=False,
            asked=True,
            since=body.since,
            until=body.until,
            force=body.force,
            details=None,
        )


class CancelBody(Body):
    """Who cancels."""

    by: str = Field(default=request.MANUAL, min_length=1, max_length=100)


async def made_before(world: World, reserved: Reserved) -> RunShape | None:
    """The run that an earlier try of the request made, whatever has become of its connector; None: it made none."""
    if not reserved.again:
        return None
    with contextlib.suppress(NotFound):
        return RunShape.of(await runs.find_run(world.pool, str(reserved.id)))
    return None


def run_url(identifier: UUID) -> str:
    """Where a run is."""
    return f"/api/v1/runs/{identifier}"


class RetryBody(Body):
    """Who wants it again."""

    triggered_by: str = Field(default=request.MANUAL, min_length=1, max_length=100)


class FileShape(Model):
    """One file: DISCOVERED, DOWNLOADED, NORMALIZED, MATCHED or ERROR. `run_id` is the last run that had it in hand."""

    id: int
    connector_id: UUID
    connector: str
    run_id: UUID | None
    task: str
    provider: str
    cycle_date: date
    filename: str
    path: str
    sha256: str | None
    size_bytes: int | None
    state: str
    records: int
    rejected: int
    error: str
    discovered_at: datetime
    downloaded_at: datetime | None
    normalized_at: datetime | None
    updated_at: datetime


@router.get("")
async def list_runs(
    world: WorldDep,
    connector: Annotated[str | None, Query(max_length=255, description="Its id, number or name.")] = None,
    status: RunStatus | None = None,
    type_: Annotated[
        Literal["SCHEDULED", "MANUAL", "TEST", "BACKFILL"] | None, Query(alias="type", description="What kind of run.")
    ] = None,
    since: Annotated[Instant | None, Query(description="Begun at this instant or after it.")] = None,
    until: Annotated[Instant | None, Query(description="Begun before this instant.")] = None,
    limit: Limit = USUAL,
    after: After = None,
) -> Page[RunShape]:
    """Runs, the newest first; also those of deleted connectors."""
    owner = None if connector is None else (await connectors.find_ever(world.pool, connector)).id
    filtered_by = ["runs", owner, status, type_, since, until]
    place = place_of(after, filtered_by=filtered_by, kinds=(instant, UUID))
    wanted = runs.Filter(owner, status, type_, since, until)
    found, more = await runs.page(
        world.pool, wanted, after=None if place is None else (place[0], place[1]), limit=limit
    )
    return Page(
        data=[RunShape.of(each) for each in found],
        next=None if more is None else cursor_of([more[0].isoformat(), more[1]], filtered_by=filtered_by),
    )


@router.get("/{run}")
async def show_run(run: str, world: WorldDep) -> RunShape:
    """One run, by its id, the beginning of it, or its number."""
    return RunShape.of(await runs.find_run(world.pool, run))


@router.get("/{run}/files")
async def list_files(run: str, world: WorldDep, limit: Limit = USUAL, after: After = None) -> Page[FileShape]:
    """The files that the run had in hand last, the newest first."""
    view = await runs.find_run(world.pool, run)
    filtered_by = ["files", view.id]
    place = place_of(after, filtered_by=filtered_by, kinds=(number,))
    found, more = await files.page(world.pool, run_id=view.id, after=None if place is None else place[0], limit=limit)
    return Page(
        data=[FileShape.of(each) for each in found],
        next=None if more is None else cursor_of([more], filtered_by=filtered_by),
    )


@router.get("/{run}/events")
async def list_run_events(run: str, world: WorldDep, limit: Limit = USUAL, after: After = None) -> Page[ActivityShape]:
    """What happened to the run, in order."""
    view = await runs.find_run(world.pool, run)
    filtered_by = ["events", view.id]
    place = place_of(after, filtered_by=filtered_by, kinds=(number,))
    found = await activity.of_run(world.pool, view.id, after=None if place is None else place[0], limit=limit + 1)
    more = len(found) > limit
    return Page(
        data=[ActivityShape.told(each) for each in found[:limit]],
        next=cursor_of([found[limit - 1].position.id], filtered_by=filtered_by) if more else None,
    )


@router.post("/{run}/cancel", status_code=202)
async def cancel_run(
    run: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: CancelBody | None = None,
    dry_run: DryRun = False,
) -> RunShape:
    """End a run: FAILED, cancelled; its worker does within seconds. Its connector goes on."""
    view = await runs.find_run(world.pool, run)
    response.headers["Location"] = run_url(view.id)
    try:
        await request.cancel(world.pool, view, cancelled_by=(body or CancelBody()).by, dry_run=dry_run)
    except Conflict:
        # an earlier try of this request may have done it, and have died before it could tell
        if not (reserved.again and (await runs.find_run(world.pool, str(view.id))).cancelled):
            raise
    return RunShape.of(await runs.find_run(world.pool, str(view.id)))


@router.post("/{run}/retry", status_code=202)
async def retry_run(
    run: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: RetryBody | None = None,
    dry_run: DryRun = False,
) -> RunShape:
    """Ask for the same once more, of the same days, as a run of its own."""
    if (made := await made_before(world, reserved)) is not None:
        response.headers["Location"] = run_url(made.id)
        return made
    view, by = await runs.find_run(world.pool, run), (body or RetryBody()).triggered_by
    await request.retry(world.pool, view, world.specs, requested_by=by, run_id=reserved.id, dry_run=dry_run)
    if dry_run:
        again = RunBody(since=view.since, until=view.until, force=view.force, triggered_by=by)
        return RunShape.wanted(reserved.id, await connectors.find(world.pool, str(view.connector_id)), again)
    response.headers["Location"] = run_url(reserved.id)
    return RunShape.of(await runs.find_run(world.pool, str(reserved.id)))
