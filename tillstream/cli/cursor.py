"""`till connector cursor`: where a connector's tasks stand, and setting that by hand, over the API."""
# ruff: noqa: PLR0917  Typer reads options from the signature

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import Conflict, NotFound, TimedOut
from tillstream.cli import complete
from tillstream.cli.change import line_of
from tillstream.cli.connector_edit import from_options, user
from tillstream.cli.exit import ExitStatus
from tillstream.cli.file import object_of
from tillstream.cli.instant import seconds
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, cell, note, print_lines
from tillstream.cli.path import connector_path, part
from tillstream.cli.problem import ApiProblem
from tillstream.cli.remote import ask
from tillstream.cli.rows import print_one

if TYPE_CHECKING:
    from tillstream.cli.client import Client

group = typer.Typer(help="Where its tasks stand; set by hand while it is paused.", no_args_is_help=True)

CURSOR_FIELDS = (
    *("id", "ref", "task", "descriptor", "cursor", "done", "run", "epoch", "seq", "revision_at", "updated_at"),
    *("pending", "etag"),
)
EDIT_FIELDS = (
    *("id", "connector_id", "task", "ref", "descriptor", "action", "status", "reason", "differences"),
    *("before", "after", "follows", "note", "requested_by", "requested_at", "ended_at", "worker"),
)
_EVERY_S = 0.3
_MOST_NAMED = 5
_STATUSES = {"refused": ExitStatus.CONFLICT}

ConnectorArgument = Annotated[
    str, typer.Argument(help="The connector's name, id or number.", autocompletion=complete.connectors)
]
TaskArgument = Annotated[str, typer.Argument(help="Its ref, key or descriptor, as `till connector cursors` shows.")]
NoteOption = Annotated[str, typer.Option("--note", help="Why; kept with the edit.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until its worker has applied it, or refused to.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds to wait, also for a worker that still stops.", min=1)]


@group.command("show")
def show(connector: ConnectorArgument, task: TaskArgument, output: OutputOption = Output.TABLE) -> None:
    """Show where one task stands. What `cursor` is in `-o json`, `edit --file` takes."""

    # an object of the API, here and below
    async def work(api: Client) -> dict[str, Any]:
        return (await _found(api, connector_path(connector), task))[1]

    found = ask(work)
    shown = [
        (name, found[name]) for name in ("task", "descriptor", "done", "ref", "pending") if found[name] is not None
    ]
    lines = [*shown, ("updated", seconds(found["updated_at"])), ("run", found["run"])]
    cursor = [(f"  {key}", json.dumps(value, ensure_ascii=False)) for key, value in (found["cursor"] or {}).items()]
    print_one(output, found, CURSOR_FIELDS, [*lines, *(cursor or [("cursor", "none: nothing is read yet")])])


@group.command("edit")
def edit(
    connector: ConnectorArgument,
    task: TaskArgument,
    set_: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", metavar="KEY=VALUE", help="A key of the cursor; JSON, or text. Repeatable."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file of a whole new cursor, - for standard input; options win over it.")
    ] = None,
    note_: NoteOption = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = 60.0,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Set where a task of a paused connector goes on.

    Reading again doubles nothing; going ahead loses what is passed over. What no option names stays as it is;
    `KEY=null` takes a key away. With --wait: 0 if it is applied, 5 if it is refused, 7 not within the timeout.
    """
    if not set_ and file is None:
        raise typer.BadParameter("nothing to change: name an option or a file", param_hint="--option")
    changes = from_options(set_ or [])
    given = None if file is None else object_of(file)

    def wanted(now: Mapping[str, Any]) -> dict[str, Any]:
        held = {**((now["cursor"] or {}) if given is None else given), **changes}
        return {key: value for key, value in held.items() if value is not None or key not in changes}

    async def put(api: Client, path: str, now: Mapping[str, Any]) -> dict[str, Any]:
        body = {"cursor": wanted(now), "note": note_, "by": user()}
        answer = await api.put(path, body, etag=now["etag"], params=_dry(dry_run=dry_run))
        return dict(answer)

    _edited(connector, task, put, wait=wait and not dry_run, timeout_s=timeout, dry_run=dry_run, output=output)


@group.command("reset")
def reset(
    connector: ConnectorArgument,
    task: TaskArgument,
    note_: NoteOption = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = 60.0,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Forget where a task of a paused connector stands: it is read from its beginning, and nothing is doubled.

    With --wait as `edit`.
    """

    async def delete(api: Client, path: str, now: Mapping[str, Any]) -> dict[str, Any]:
        params = {"note": note_, "by": user(), **(_dry(dry_run=dry_run) or {})}
        return dict((await api.ask("DELETE", path, params=params, headers={"If-Match": now["etag"]})).body)

    _edited(connector, task, delete, wait=wait and not dry_run, timeout_s=timeout, dry_run=dry_run, output=output)


# a function that asks, given the client, the cursor's path and the cursor
def _edited(
    connector: str, task: str, send: Any, *, wait: bool, timeout_s: float, dry_run: bool, output: Output
) -> None:
    """Ask for the edit once the connector's worker has let go of it, and print what becomes of it."""

    async def work(api: Client) -> dict[str, Any]:
        until_s = time.monotonic() + timeout_s
        base = connector_path(connector)
        told = False
        while True:
            path, now = await _found(api, base, task)
            try:
                asked: dict[str, Any] = await send(api, path, now)
                break
            except ApiProblem as exc:
                if exc.code != Conflict.code or exc.retry_after_s <= 0 or time.monotonic() >= until_s:
                    raise  # waiting helps only where a worker still stops
                if not told:
                    note(f"waiting: {exc}")
                    told = True
                await asyncio.sleep(min(exc.retry_after_s, max(0.0, until_s - time.monotonic())))
        while wait and asked["status"] == "pending":
            if time.monotonic() >= until_s:
                raise TimedOut(
                    f"no worker has seen to edit {asked['id']} within {timeout_s:.0f} s",
                    hint="it waits for one: `till connector cursor show` tells",
                )
            await asyncio.sleep(_EVERY_S)
            asked = await api.get(f"/connectors/{asked['connector_id']}/cursor-edits/{asked['id']}")
        return asked

    _print(ask(work), output, dry_run=dry_run)


def _print(found: Mapping[str, Any], output: Output, *, dry_run: bool) -> None:
    if output is Output.TABLE:
        print_lines([f"  {line_of(each)}" for each in found["differences"]])
        for sentence in found["follows"]:
            note(sentence)
        note(_word(found, dry_run=dry_run))
    else:
        print_one(output, found, EDIT_FIELDS, [])
    if found["status"] in _STATUSES:
        raise typer.Exit(_STATUSES[found["status"]])


def _word(found: Mapping[str, Any], *, dry_run: bool) -> str:
    match found["status"]:
        case "unchanged":
            return "the cursor is so already"
        case "applied":
            return f"edit {found['id']} is applied: resume the connector to go on from there"
        case "refused":
            return f"edit {found['id']} is refused: {cell(found['reason'])}"
    if dry_run:
        return "the cursor can be edited so"
    return f"edit {found['id']} is asked for: the connector's worker applies it"


async def _found(api: Client, base: str, task: str) -> tuple[str, dict[str, Any]]:
    """
    The cursor of the task of this ref, key or descriptor, and its path.

    Raises:
        NotFound: there is none. Conflict: several have the descriptor. As the client's methods.
    """
    for ref in (task, base64.urlsafe_b64encode(task.encode("utf-8", "replace")).decode().rstrip("=")):
        path = f"{base}/cursors/{part(ref)}"
        try:
            return path, await api.get(path)
        except ApiProblem as exc:
            if exc.code != NotFound.code:
                raise
    rows = [row async for row in api.pages(f"{base}/cursors") if task in (row["descriptor"], row["id"])]
    if not rows:
        raise NotFound(f"there is no task {task!r}", hint="`till connector cursors` shows all that have begun")
    if len(rows) > 1:
        refs = ", ".join(str(row["ref"]) for row in rows[:_MOST_NAMED])
        raise Conflict(f"{len(rows)} tasks are called {task!r}", hint=f"name one by its ref: {refs}")
    return f"{base}/cursors/{part(rows[0]['ref'])}", rows[0]


def _dry(*, dry_run: bool) -> dict[str, bool] | None:
    return {"dry_run": True} if dry_run else None
