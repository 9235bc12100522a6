"""
Editing a cursor: an operator sets where a task of a paused connector goes on, or lets it begin anew.

An edit is a row. Whoever owns the connector's state applies it under a claim of its own, before anybody reads again;
see `tillstream/control/takeover.py`. What is accepted here is either applied, or refused because the task moved on
since the operator looked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from connectors.cursor import CursorModel, Direction
from connectors.spec import SourceSpec
from schemas.errors import ConfigError, Conflict, NotFound, PreconditionFailed
from sinks.pool import Connection, Pool, connection
from tillstream.control import connector as connectors
from tillstream.control.attempt import attempt
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.cursor import CursorView, find_cursor, ref_of
from tillstream.control.difference import Difference, differences
from tillstream.control.edit import locked
from tillstream.control.request import open_requests
from tillstream.control.statement import statements

SET, RESET = "set", "reset"
PENDING, APPLIED, REFUSED, UNCHANGED = "pending", "applied", "refused", "unchanged"
MOST_BYTES = 262_144  # a checkpoint is one message of the state topic; the largest cursors of ours have 30 kB
SILENT_FACTOR, SILENT_MIN_S = 3, 15.0  # a worker that is silent for longer is taken for dead; stopping takes it 7 s

_BACK = "what stands after the new cursor is read again; records keep their event ids, so nothing counts twice"
_AHEAD = "what stands between the old and the new cursor is never read: those records are lost here, and in no count"
_TELL = {
    Direction.BACK: (_BACK,),
    Direction.AHEAD: (_AHEAD,),
    Direction.UNKNOWN: (f"if it goes back, {_BACK}", f"if it goes ahead, {_AHEAD}"),
}
_RESET = "the task is read from its beginning; records keep their event ids, so nothing counts twice"
_DONE = "the task was done; it is read once more if the next listing still finds it"


@dataclass(frozen=True, slots=True)
class Edit:
    """What an operator wants. `cursor` None lets the task begin anew; `tags` are ETags that it is meant for, or any."""

    task: str
    # a source's own
    cursor: Mapping[str, Any] | None
    tags: frozenset[str] | None = None
    note: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class CursorEditView:
    """
    One edit: pending, applied, refused with a reason, or unchanged: then there was nothing to do, and no row is kept.

    `follows` are sentences about what comes of it; `before` and `after` are whole cursors, `differences` their fields.
    """

    id: UUID
    connector_id: UUID
    task: str
    ref: str
    descriptor: str
    action: str
    status: str
    reason: str
    differences: list[Difference]
    # a source's own
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    follows: list[str]
    note: str
    requested_by: str
    requested_at: datetime
    ended_at: datetime | None
    worker: str


async def ask(
    pool: Pool,
    view: ConnectorView,
    spec: SourceSpec | None,
    edit: Edit,
    *,
    silent_s: float,
    edit_id: UUID | None = None,
    dry_run: bool = False,
) -> CursorEditView:
    """
    Ask the owner of the connector's state to edit a cursor; what it is to become, and what will follow.

    A worker that was silent for `silent_s` is not waited for. With `dry_run` nobody is asked.

    Raises:
        NotFound: no such task. Conflict: it is not paused, a worker has it in hand still, or another edit waits.
        PreconditionFailed: the cursor has another tag. ConfigError: everything that is wrong with the cursor.
        SinkError: as routed.
    """
    async with attempt(pool, dry_run=dry_run) as held:
        now = await locked(held, view.id, expected=None, by=edit.by)
        await _insist_on_rest(held, now, silent_s=silent_s)
        cursor = await find_cursor(held, view.id, edit.task)
        if edit.tags is not None and cursor.etag not in edit.tags:
            raise PreconditionFailed(
                f"the cursor has changed since: its tag is {cursor.etag}",
                hint="look at it again, and repeat the edit if it is still wanted",
            )
        if cursor.pending is not None:
            raise Conflict(f"edit {cursor.pending} of this cursor waits for a worker", hint="wait until it has ended")
        follows = await _follows(held, now, spec, cursor, edit)
        wanted = _view(cursor, edit, follows, connector_id=view.id, edit_id=edit_id or uuid4())
        if wanted.status == UNCHANGED:
            return wanted
        await held.execute(
            statements()["ask_cursor_edit"],
            wanted.id,
            view.id,
            cursor.task,
            cursor.descriptor,
            wanted.action,
            _json(cursor.cursor),
            _json(edit.cursor),
            cursor.done,
            cursor.epoch,
            cursor.seq,
            json.dumps(follows),
            edit.note,
            edit.by,
        )
        return _read(await held.fetchrow(statements()["find_cursor_edit"], wanted.id, view.id))


async def find(pool: Pool, connector_id: UUID, edit_id: UUID) -> CursorEditView:
    """
    One edit of a connector's cursors, and what became of it.

    Raises:
        NotFound: there is none. SinkError: as routed.
    """
    async with connection(pool) as held:
        row = await held.fetchrow(statements()["find_cursor_edit"], edit_id, connector_id)
    if row is None:
        raise NotFound(f"there is no edit {edit_id}", hint="its connector's events tell which there were")
    return _read(row)


async def _insist_on_rest(held: Connection, view: ConnectorView, *, silent_s: float) -> None:
    if view.status is not ConnectorStatus.PAUSED:
        raise Conflict(
            f"connector {view.name!r} is not paused: its worker would go on from where it stands",
            hint="pause it, and ask again once its worker has let go of it",
        )
    worker = await held.fetchval(statements()["held_by"], view.id, silent_s)
    if worker is not None:
        stopping = Conflict(
            f"worker {worker} has connector {view.name!r} in hand still", hint="it stops within seconds: ask again then"
        )
        stopping.retry_after_s = 2.0
        raise stopping


async def _follows(
    held: Connection, view: ConnectorView, spec: SourceSpec | None, cursor: CursorView, edit: Edit
) -> list[str]:
    """
    What comes of it, told to the operator.

    Raises:
        ConfigError: everything that is wrong with the cursor.
    """
    model, before = _model_of(view, spec), cursor.cursor or {}
    if edit.cursor is None:
        found = [_RESET, *(model.advice_at_reset if model else ())]
    else:
        direction = _judged(model, edit.cursor, before)
        found = [*_TELL[direction], *(model.advice if model else ())]
    if cursor.done:
        found.append(_DONE)
    for each in await open_requests(held, [view.id]):
        if each.run_id == cursor.run and each.epoch is not None:
            found.append(f"run {cursor.run}, which was to go on with this task, ends FAILED: ask for it anew")
    return found


def _model_of(view: ConnectorView, spec: SourceSpec | None) -> type[CursorModel] | None:
    if spec is None or spec.cursor is None:
        return None
    names = {"name": view.name, "provider": view.provider, "known_as": view.name}
    return spec.cursor(connectors.checked(spec, view.configuration, **names))


def _judged(model: type[CursorModel] | None, cursor: Mapping[str, Any], before: Mapping[str, Any]) -> Direction:
    """
    Which way it goes, by the source's own model of its cursors.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    problems = []
    size_bytes = len(json.dumps(cursor).encode())
    if size_bytes > MOST_BYTES:
        problems.append(f"cursor: has {size_bytes} bytes; at most {MOST_BYTES} can be kept")
    direction = Direction.UNKNOWN
    if model is not None:
        try:
            judged = model.model_validate_json(json.dumps(cursor))
        except ValidationError as exc:
            problems += list(_problems(exc))
        else:
            problems += [f"cursor.{field}: {message}" for field, message in judged.refusals(before)]
            direction = Direction.UNKNOWN if problems else _direction(judged, before)
    if problems:
        raise ConfigError(
            "\n  ".join(["the cursor cannot be so:", *problems]),
            hint="take a cursor that the task had, and change what must be other",
        )
    return direction


def _direction(judged: CursorModel, before: Mapping[str, Any]) -> Direction:
    try:
        return judged.direction(before)
    except (KeyError, ValueError, TypeError):  # one of an earlier version
        return Direction.UNKNOWN


def _problems(exc: ValidationError) -> Iterator[str]:
    for error in exc.errors(include_url=False):
        key = ".".join(["cursor", *(str(part) for part in error["loc"])])
        unknown = error["type"] == "extra_forbidden"
        yield f"{key}: {'is no key of such a cursor' if unknown else error['msg'].removeprefix('Value error, ')}"


def _view(cursor: CursorView, edit: Edit, follows: list[str], *, connector_id: UUID, edit_id: UUID) -> CursorEditView:
    after = None if edit.cursor is None else dict(edit.cursor)
    same = after == cursor.cursor and (after is not None or not cursor.done)
    return CursorEditView(
        id=edit_id,
        connector_id=connector_id,
        task=cursor.task,
        ref=cursor.ref,
        descriptor=cursor.descriptor,
        action=RESET if after is None else SET,
        status=UNCHANGED if same else PENDING,
        reason="",
        differences=[] if same else _differences(cursor.cursor, after, done=cursor.done),
        before=cursor.cursor,
        after=after,
        follows=[] if same else follows,
        note=edit.note,
        requested_by=edit.by,
        requested_at=datetime.now(UTC),
        ended_at=None,
        worker="",
    )


# asyncpg's records are mappings of anything
def _read(row: Mapping[str, Any]) -> CursorEditView:
    before = None if row["before"] is None else json.loads(row["before"])
    after = None if row["after"] is None else json.loads(row["after"])
    return CursorEditView(
        id=row["id"],
        connector_id=row["connector_id"],
        task=row["task"],
        ref=ref_of(row["task"]),
        descriptor=row["descriptor"],
        action=row["action"],
        status=row["status"],
        reason=row["reason"],
        differences=_differences(before, after, done=row["was_done"]),
        before=before,
        after=after,
        follows=json.loads(row["follows"]),
        note=row["note"],
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        ended_at=row["ended_at"],
        worker=row["worker"],
    )


# a source's own
def _differences(before: dict[str, Any] | None, after: dict[str, Any] | None, *, done: bool) -> list[Difference]:
    found = list(differences(before or {}, after or {}, "cursor", hide=lambda cursor: cursor))
    return [*found, Difference("done", before=True, after=False)] if done else found


# a source's own
def _json(cursor: Mapping[str, Any] | None) -> str | None:
    return None if cursor is None else json.dumps(dict(cursor))
