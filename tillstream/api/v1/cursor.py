"""
Cursors: where a connector's tasks stand, and their edits.

An edit is never done when its answer is sent: the worker that owns the connector's state applies it, within a second or
so, or when there is one. So the answer is 202 with the edit's own address, which tells pending, applied or refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from sinks.pool import connection
from tillstream.api.problem import PROBLEMS, Refusal
from tillstream.api.v1.connector import DifferenceShape, IfMatch, found, spec_or_none
from tillstream.api.v1.shape import USUAL, After, Body, DryRun, Limit, Model, Page, cursor_of, place_of, text
from tillstream.api.world import World, WorldDep
from tillstream.control import cursor as cursors
from tillstream.control import cursor_edit as edits

router = APIRouter(prefix="/api/v1/connectors", tags=["cursors"], responses=PROBLEMS)

Ref = Annotated[
    str,
    Path(
        max_length=3_000,
        description="The task's `ref`, as the list of cursors tells it: its key in UTF-8 as base64url without padding.",
    ),
]
Note = Annotated[str, Query(max_length=2_000, description="Why.")]
By = Annotated[str, Query(max_length=100, description="Who says so.")]


class CursorShape(Model):
    """
    Where one task stands, as its newest checkpoint says. `ref` names it in paths; `id` is the one of task lists.

    `etag` is what an edit names as If-Match; `pending` is an edit that waits for its worker.
    """

    id: str
    ref: str
    task: str
    descriptor: str
    # a source's own
    cursor: dict[str, Any] | None
    done: bool
    run: UUID
    epoch: int
    seq: int
    revision_at: datetime
    updated_at: datetime
    pending: UUID | None
    etag: str


class CursorBody(Body):
    """Where the task is to go on: a cursor as its source writes them, whole. Why, and who says so."""

    # a source's own
    cursor: dict[str, Any]
    note: str = Field(default="", max_length=2_000)
    by: str = Field(default="", max_length=100)


class CursorEditShape(Model):
    """
    One edit of a cursor, and what became of it. `unchanged`: the cursor is so already, and nobody was asked.

    `differences` are the fields that become other, `follows` is what comes of it; `reason` is why it was refused.
    """

    id: UUID
    connector_id: UUID
    task: str
    ref: str
    descriptor: str
    action: Literal["set", "reset"]
    status: Literal["pending", "applied", "refused", "unchanged"]
    reason: str
    differences: list[DifferenceShape]
    # a source's own, before and after
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    follows: list[str]
    note: str
    requested_by: str
    requested_at: datetime
    ended_at: datetime | None
    worker: str


@router.get("/{ref}/cursors")
async def list_cursors(ref: str, world: WorldDep, limit: Limit = USUAL, after: After = None) -> Page[CursorShape]:
    """Where its tasks stand, by task."""
    view = await found(world, ref)
    filtered_by = ["cursors", str(view.id)]
    place = place_of(after, filtered_by=filtered_by, kinds=(text,))
    begin = None if place is None else place[0]
    listed = await cursors.cursors_of(world.pool, view.id, limit=limit + 1, after=begin)
    more = len(listed) > limit
    return Page(
        data=[CursorShape.of(each) for each in listed[:limit]],
        next=cursor_of([listed[limit - 1].task], filtered_by=filtered_by) if more else None,
    )


@router.get("/{ref}/cursors/{task}")
async def show_cursor(ref: str, task: Ref, world: WorldDep, response: Response) -> CursorShape:
    """Where one task stands; its ETag is what an edit names."""
    view = await found(world, ref)
    async with connection(world.pool) as held:
        cursor = await cursors.find_cursor(held, view.id, cursors.task_of(task))
    response.headers["ETag"] = cursor.etag
    return CursorShape.of(cursor)


@router.put(
    "/{ref}/cursors/{task}",
    status_code=202,
    responses={200: {"model": CursorEditShape, "description": "It is so already: nobody was asked."}},
)
async def edit_cursor(
    ref: str,
    task: Ref,
    body: CursorBody,
    world: WorldDep,
    response: Response,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> CursorEditShape:
    """
    Set where a task of a paused connector goes on. Reading again doubles nothing: records have the same event ids.
    Going ahead loses the records that are passed over. Its worker applies it, once; `Location` tells when.
    """
    wanted = edits.Edit(cursors.task_of(task), body.cursor, _tags(if_match), body.note, body.by)
    return await _asked(world, ref, wanted, response, dry_run=dry_run)


@router.delete(
    "/{ref}/cursors/{task}",
    status_code=202,
    responses={200: {"model": CursorEditShape, "description": "It is so already: nobody was asked."}},
)
async def reset_cursor(
    ref: str,
    task: Ref,
    world: WorldDep,
    response: Response,
    note: Note = "",
    by: By = "",
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> CursorEditShape:
    """Forget where a task of a paused connector stands: it is read from its beginning, and nothing is doubled."""
    wanted = edits.Edit(cursors.task_of(task), None, _tags(if_match), note, by)
    return await _asked(world, ref, wanted, response, dry_run=dry_run)


@router.get("/{ref}/cursor-edits/{edit_id}")
async def show_cursor_edit(ref: str, edit_id: UUID, world: WorldDep) -> CursorEditShape:
    """One edit, and whether it is pending, applied or refused."""
    view = await found(world, ref)
    return CursorEditShape.of(await edits.find(world.pool, view.id, edit_id))


async def _asked(world: World, ref: str, wanted: edits.Edit, response: Response, *, dry_run: bool) -> CursorEditShape:
    view = await found(world, ref)
    heartbeat_s = world.settings.connector.heartbeat_s
    silent_s = max(edits.SILENT_MIN_S, edits.SILENT_FACTOR * heartbeat_s)
    spec = spec_or_none(world, view.kind)
    edit = await edits.ask(world.pool, view, spec, wanted, silent_s=silent_s, dry_run=dry_run)
    if edit.status == edits.UNCHANGED:
        response.status_code = 200
    elif not dry_run:
        response.headers["Location"] = f"/api/v1/connectors/{view.id}/cursor-edits/{edit.id}"
    return CursorEditShape.of(edit)


def _tags(if_match: str | None) -> frozenset[str] | None:
    """
    The ETags that the edit is meant for; None for any.

    Raises:
        Refusal: it names none.
    """
    if if_match is None:
        raise Refusal(
            "precondition_required",
            "an edit names the cursor that it is meant for",
            hint="send the cursor's ETag as If-Match",
        )
    tags = frozenset(each.strip() for each in if_match.split(","))
    return None if "*" in tags else tags
