"""What the families of seeds 003 and 004 share: a test, a run, a backfill, pausing, and the history."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AliasChoices, BaseModel, Field

from tillstream.api.compat import action
from tillstream.api.compat.shape import Body, Instant, given, takes
from tillstream.api.idempotency import ReservedDep
from tillstream.api.world import World, WorldDep
from tillstream.control import history
from tillstream.control.connector import ConnectorView
from tillstream.control.history import PAGE, SeedRun
from tillstream.control.run import RunView

MOST = 200
_BY = Field(default="", max_length=100, description="Who wants it, as the history tells.")


class By(Body):
    """Who asks."""

    triggered_by: str = _BY


class Noted(By):
    """Who asks, and why."""

    note: str = Field(default="", max_length=2_000)


class RunNow(By):
    """A run, of a day if one is named."""

    day: date | None = Field(
        default=None,
        validation_alias=AliasChoices("date", "run_date"),
        description="A day, in the connector's own zone.",
    )
    force: bool = Field(default=False, description="Read again what is done; its events stay the same.")


class Days(By):
    """A backfill: days of the connector's own zone, both included."""

    startDate: date  # noqa: N815  the seed's key
    endDate: date  # noqa: N815  the seed's key
    force: bool = Field(default=False, description="Read again what is done; its events stay the same.")


class SeedAsked(BaseModel):
    """A run that goes on after the answer."""

    success: bool = True
    run_id: int
    status: str
    message: str


class SeedBackfillAsked(SeedAsked):
    """A backfill that goes on after the answer."""

    days: int


class SeedSwitchedConnector(BaseModel):
    """Which was paused or resumed."""

    id: str
    name: str
    status: str


class SeedSwitched(BaseModel):
    """A connector that was paused or resumed."""

    success: bool = True
    connector: SeedSwitchedConnector
    message: str


class SeedHistoryRun(BaseModel):
    """One run: seed 003's keys first, then what its tables hold beside, then seed 004's counts of files."""

    id: str
    run_type: str
    status: str
    duration_seconds: str | None
    error_message: str | None
    started_at: Instant
    completed_at: Instant | None
    triggered_by: str | None
    run_date: date | None
    records_processed: int
    records_success: int
    records_failed: int
    files_total: int
    files_normalized: int
    files_skipped: int
    files_failed: int


class SeedHistory(BaseModel):
    """Some runs, the newest first."""

    success: bool = True
    runs: list[SeedHistoryRun]
    total: int
    limit: int
    offset: int


LimitQuery = Annotated[int, Query(ge=1, le=MOST)]
OffsetQuery = Annotated[int, Query(ge=0, le=1_000_000_000)]


def add_actions(router: APIRouter) -> None:
    """Add the routes that both families have: `run` and `run-now`, `history` and `runs` (payments.md, c2)."""
    for name in ("run", "run-now"):
        router.add_api_route(
            f"/{{ref}}/{name}", run_now, methods=["POST"], status_code=202, openapi_extra=takes(RunNow), name=name
        )
    router.add_api_route(
        "/{ref}/backfill", backfill, methods=["POST"], status_code=202, openapi_extra=takes(Days), name="backfill"
    )
    router.add_api_route("/{ref}/pause", pause, methods=["POST"], openapi_extra=takes(Noted), name="pause")
    router.add_api_route("/{ref}/resume", resume, methods=["POST"], openapi_extra=takes(By), name="resume")
    for name in ("history", "runs"):
        router.add_api_route(f"/{{ref}}/{name}", list_history, methods=["GET"], name=name)


async def run_now(
    ref: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: Annotated[RunNow, Depends(given(RunNow))],
) -> SeedAsked:
    """Run it now. The answer does not wait: the history tells how it ends."""
    view = await action.found(world, ref)
    run = await action.asked(
        world, view, reserved, since=body.day, until=body.day, force=body.force, by=body.triggered_by
    )
    response.headers["Location"] = _place(run)
    return SeedAsked(run_id=run.number or 0, status=run.status, message="Connector run started")


async def backfill(
    ref: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: Annotated[Days, Depends(given(Days))],
) -> SeedBackfillAsked:
    """Read days of the past. What is done already is skipped, unless it is forced."""
    view = await action.found(world, ref)
    run = await action.asked(
        world, view, reserved, since=body.startDate, until=body.endDate, force=body.force, by=body.triggered_by
    )
    response.headers["Location"] = _place(run)
    days = (body.endDate - body.startDate).days + 1
    return SeedBackfillAsked(run_id=run.number or 0, status=run.status, message="Backfill started", days=days)


async def pause(ref: str, world: WorldDep, body: Annotated[Noted, Depends(given(Noted))]) -> SeedSwitched:
    """Pause it: no schedule starts it, and nobody can."""
    view = await action.paused(world, await action.found(world, ref), note=body.note, by=body.triggered_by)
    return _switched(view, "Connector paused successfully")


async def resume(ref: str, world: WorldDep, body: Annotated[By, Depends(given(By))]) -> SeedSwitched:
    """Let it run again."""
    view = await action.resumed(world, await action.found(world, ref), by=body.triggered_by)
    return _switched(view, "Connector resumed successfully")


async def list_history(ref: str, world: WorldDep, limit: LimitQuery = PAGE, offset: OffsetQuery = 0) -> SeedHistory:
    """Its runs, the newest first."""
    view = await action.found(world, ref)
    runs, total = await history.history(world.pool, view.number, limit=limit, offset=offset)
    return SeedHistory(runs=[_told(world, run) for run in runs], total=total, limit=limit, offset=offset)


def _told(world: World, run: SeedRun) -> SeedHistoryRun:
    return SeedHistoryRun(
        id=str(run.id),
        run_type=run.run_type,
        status=run.status,
        duration_seconds=None if run.duration_seconds is None else str(run.duration_seconds),
        error_message=None if run.error_message is None else world.redact(run.error_message),
        started_at=run.started_at,
        completed_at=run.completed_at,
        triggered_by=run.triggered_by,
        run_date=run.run_date,
        records_processed=run.records_processed,
        records_success=run.records_success,
        records_failed=run.records_failed,
        files_total=run.files_total,
        files_normalized=run.files_normalized,
        files_skipped=run.files_skipped,
        files_failed=run.files_failed,
    )


def _switched(view: ConnectorView, message: str) -> SeedSwitched:
    connector = SeedSwitchedConnector(id=str(view.number), name=view.name, status=view.status)
    return SeedSwitched(connector=connector, message=message)


def _place(run: RunView) -> str:
    return f"/api/v1/runs/{run.id}"
