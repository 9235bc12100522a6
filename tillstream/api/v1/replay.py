"""Replays: the log read again beside the live sink, and compared with the tables."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from schemas.errors import ConfigError
from tillstream.api.idempotency import ReservedDep
from tillstream.api.problem import PROBLEMS
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
    place_of,
)
from tillstream.api.world import WorldDep
from tillstream.control import replays
from tillstream.control.replay import Source

router = APIRouter(prefix="/api/v1/replays", tags=["replays"], responses=PROBLEMS)


class ReplayBody(Body):
    """What is to be replayed: published from `since` and before `until`. `apply` mends what differs."""

    since: Instant | None = None
    until: Instant | None = None
    apply: bool = False
    deadline_s: float = Field(default=300.0, ge=0, le=86_400, description="For the live sink to pass the range.")
    requested_by: str = Field(default="MANUAL", min_length=1, max_length=100)


class ReplayShape(Model):
    """One replay. `report` is there once it has ended well: what was read, and what differs."""

    id: UUID
    since: datetime | None
    until: datetime | None
    apply: bool
    requested_by: str
    started_at: datetime
    ended_at: datetime | None
    status: Literal["running", "equal", "different", "mended", "failed", "interrupted"]
    # what was read, and what differs
    report: dict[str, Any] | None
    error: str


@router.post("", status_code=202)
async def start_replay(
    world: WorldDep,
    response: Response,
    reserved: ReservedDep,
    body: ReplayBody | None = None,
    dry_run: DryRun = False,
) -> ReplayShape:
    """Read the log again. Publishes nothing; one at a time."""
    asked = body or ReplayBody()
    if asked.since is not None and asked.until is not None and asked.since >= asked.until:
        raise ConfigError("the range ends before it begins", hint="give `since` an earlier instant than `until`")
    if dry_run:
        return ReplayShape(
            id=reserved.id,
            since=asked.since,
            until=asked.until,
            apply=asked.apply,
            requested_by=asked.requested_by,
            started_at=datetime.now(UTC),
            ended_at=None,
            status="running",
            report=None,
            error="",
        )
    wanted = replays.Wanted(asked.since, asked.until, asked.apply, asked.deadline_s, asked.requested_by)
    view, is_new = await replays.begin(world.pool, reserved.id, wanted)
    if is_new:
        settings = world.settings
        dsn = settings.postgres.dsn.get_secret_value()
        source = Source(settings.kafka.bootstrap, world.topics.events.name, dsn)
        job = asyncio.create_task(replays.carry_out(world.pool, reserved.id, source, wanted), name="replay")
        world.jobs.add(job)
        job.add_done_callback(world.jobs.discard)
    response.headers["Location"] = f"/api/v1/replays/{view.id}"
    return ReplayShape.of(view)


@router.get("")
async def list_replays(world: WorldDep, limit: Limit = USUAL, after: After = None) -> Page[ReplayShape]:
    """Replays, the newest first."""
    place = place_of(after, filtered_by="replays", kinds=(instant, UUID))
    begin = None if place is None else (place[0], place[1])
    found, more = await replays.page(world.pool, after=begin, limit=limit)
    return Page(
        data=[ReplayShape.of(each) for each in found],
        next=None if more is None else cursor_of([more[0].isoformat(), more[1]], filtered_by="replays"),
    )


@router.get("/{replay_id}")
async def show_replay(replay_id: UUID, world: WorldDep) -> ReplayShape:
    """One replay, and how it ended."""
    return ReplayShape.of(await replays.find(world.pool, replay_id))
