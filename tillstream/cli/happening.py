"""What happened to connectors and runs: as rows, or line by line as it happens."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from tillstream.cli.instant import seconds
from tillstream.cli.output import Output, cell, print_lines
from tillstream.cli.path import connector_path, run_path
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing, list_rows, told

if TYPE_CHECKING:
    from tillstream.cli.client import Client

_ENDED = "run.ended"

# an event as the API tells it
Happening = Mapping[str, Any]


def _facts(each: Happening) -> str:
    return "; ".join(f"{key}: {_plain(value)}" for key, value in each.get("facts", {}).items())


EVENTS = Columns(
    {
        "at": lambda each: seconds(each.get("at")),
        "event": "kind",
        "connector": "connector",
        "run": lambda each: str(each.get("run_id") or "")[:8],
        "by": "actor",
        "facts": _facts,
    },
    ("id", "at", "kind", "connector_id", "connector", "run_id", "actor", "facts"),
)


def print_events(path: str, output: Output, *, limit: int) -> None:
    """Print the events of this list of the API, as rows."""
    listing = Listing(output, EVENTS, empty="nothing")
    ask(lambda api: list_rows(api, path, {}, listing, limit=limit))


def insist_on_lines(output: Output) -> None:
    """
    See that what goes on without end is told line by line.

    Raises:
        typer.BadParameter: it would not be.
    """
    if output not in {Output.TABLE, Output.JSONL}:
        raise typer.BadParameter("what goes on is told line by line: table or jsonl", param_hint="--output")


async def follow_run(client: Client, wanted: str, output: Output) -> None:
    """Tell what happened to the run, and go on until it ends."""
    run = await client.get(run_path(wanted))
    path, connector, run_id = run_path(str(run["id"]), "/events"), str(run["connector_id"]), run["id"]
    past = await client.rows(path)
    for each in past:
        _tell(each, output)
    if any(each.get("kind") == _ENDED for each in past) or (not past and run.get("completed_at")):
        return
    async for each in _coming(client, connector, past[-1]["id"] if past else None):
        if each.get("run_id") == run_id:
            _tell(each, output)
            if each.get("kind") == _ENDED:
                return


async def follow_connector(client: Client, wanted: str, output: Output, *, limit: int) -> None:
    """Tell what happened to the connector and its runs, the oldest first, and go on without end."""
    connector = await client.get(connector_path(wanted))
    path = connector_path(str(connector["id"]), "/events")
    past = (await client.rows(path, limit=limit))[::-1]
    for each in past:
        _tell(each, output)
    async for each in _coming(client, str(connector["id"]), past[-1]["id"] if past else None):
        _tell(each, output)


async def _coming(client: Client, connector: str, after: str | None) -> Any:  # an iterator of events
    async with contextlib.aclosing(client.events(params={"connector": connector}, last_event_id=after)) as events:
        async for event in events:
            if not event.alive:
                yield event.data


def _tell(each: Happening, output: Output) -> None:
    import sys

    if output is Output.JSONL:
        print_lines([json.dumps(each, ensure_ascii=False)])
    else:
        print_lines(["  ".join(shown for value in _row(each) if (shown := cell(value)))])
    sys.stdout.flush()


def _row(each: Happening) -> list[object]:
    return [told(each, column) for column in EVENTS.table.values()]


# any JSON
def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
