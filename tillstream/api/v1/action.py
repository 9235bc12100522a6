"""What is done with a connector: tested, run, paused, resumed; and what it is at."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
from tillstream.api.v1.connector import ConnectorDetail, StepShape, answer_of, context_of, found, trying
from tillstream.api.v1.run import RunBody, RunShape, made_before, run_url
from tillstream.api.v1.shape import Body, DryRun, Model, Page
from tillstream.api.v1.source_type import spec_of
from tillstream.api.world import World, WorldDep
from tillstream.control import edit, report, request, trial
from tillstream.control import run as runs
from tillstream.control.connector import ConnectorStatus

router = APIRouter(prefix="/api/v1/connectors", tags=["connectors"], responses=PROBLEMS)


class TryBody(Body):
    """Who tries it."""

    triggered_by: str = Field(default=trial.TRIGGERED_BY, min_length=1, max_length=100)


class TryShape(Model):
    """How a TEST run ended. `error` and `hint` are those of the step that failed; `found` are names, such as files."""

    run_id: UUID
    number: int
    ok: bool
    error: str
    hint: str
    steps: list[StepShape]
    found: list[str]
    duration_s: float


class NoteBody(Body):
    """Why, and who says so."""

    note: str = Field(default="", max_length=2_000)
    by: str = Field(default="", max_length=100)


class TaskShape(Model):
    """One task: the listing, what is read or waits, what was read."""

    id: str
    descriptor: str
    status: str
    error: str
    created_at: datetime
    # a source's own cursor
    state: dict[str, Any]
    live: bool


@router.post("/{ref}/test")
async def try_connector(ref: str, world: WorldDep, reserved: ReservedDep, body: TryBody | None = None) -> TryShape:
    """Try its source for real, as it is configured: a TEST run, which publishes nothing and leaves its status alone."""
    view = await found(world, ref)
    async with trying(world):
        tried = await trial.try_out(
            world.pool,
            view,
            world.specs,
            context_of(world, view.id, view.name),
            triggered_by=(body or TryBody()).triggered_by,
            redact=world.redact,
            run_id=reserved.id,
        )
    return TryShape.of(tried)


@router.post("/{ref}/run", status_code=202)
async def run_connector(
    ref: str,
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: RunBody | None = None,
    dry_run: DryRun = False,
) -> RunShape:
    """Ask for a run, now; a worker begins it within seconds."""
    if (made := await made_before(world, reserved)) is not None:
        response.headers["Location"] = run_url(made.id)
        return made
    wanted = body or RunBody()
    view = await found(world, ref)
    await request.ask(
        world.pool,
        view,
        spec_of(world, view.kind),
        since=wanted.since,
        until=wanted.until,
        force=wanted.force,
        requested_by=wanted.triggered_by,
        run_id=reserved.id,
        dry_run=dry_run,
    )
    if dry_run:
        return RunShape.wanted(reserved.id, view, wanted)
    response.headers["Location"] = run_url(reserved.id)
    return RunShape.of(await runs.find_run(world.pool, str(reserved.id)))


@router.post("/{ref}/pause")
async def pause_connector(
    ref: str, world: WorldDep, response: Response, body: NoteBody | None = None, dry_run: DryRun = False
) -> ConnectorDetail:
    """Stop it at a checkpoint, until it is resumed."""
    return await _switched(world, ref, ConnectorStatus.PAUSED, body, response, dry_run=dry_run)


@router.post("/{ref}/resume")
async def resume_connector(
    ref: str, world: WorldDep, response: Response, body: NoteBody | None = None, dry_run: DryRun = False
) -> ConnectorDetail:
    """Let it go on where it stood."""
    return await _switched(world, ref, ConnectorStatus.ACTIVE, body, response, dry_run=dry_run)


@router.get("/{ref}/tasks")
async def list_tasks(
    ref: str, world: WorldDep, limit: Annotated[int, Query(ge=1, le=1_000)] = report.MOST_TASKS
) -> Page[TaskShape]:
    """Its tasks, the oldest first: the newest, and those at work."""
    view = await found(world, ref)
    tasks = await report.tasks_of(world.pool, view.id, limit=limit)
    return Page(data=[TaskShape.of(each) for each in tasks])


async def _switched(
    world: World, ref: str, status: ConnectorStatus, body: NoteBody | None, response: Response, *, dry_run: bool
) -> ConnectorDetail:
    view, why = await found(world, ref), body or NoteBody()
    if dry_run:
        tried = await edit.change(
            world.pool, view.id, lambda now: replace(now, status=status), world.specs, note=why.note, dry_run=True
        )
        return answer_of(world, tried.view, response)
    if status is ConnectorStatus.PAUSED:
        return answer_of(world, await edit.pause(world.pool, view.id, note=why.note, by=why.by), response)
    return answer_of(world, await edit.resume(world.pool, view.id, by=why.by), response)
