"""`till replay`: the log against the tables, over the API."""
# ruff: noqa: PLR0917  Typer reads options from the signature

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from schemas.errors import TimedOut
from tillstream.cli import complete, instant
from tillstream.cli.exit import ExitStatus
from tillstream.cli.instant import instant_of, seconds
from tillstream.cli.option import AfterOption, DryRunOption, LimitOption, OutputOption
from tillstream.cli.output import Output, cell, note, print_table
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing, list_rows, print_one

if TYPE_CHECKING:
    from tillstream.cli.client import Client

group = typer.Typer(help="The log, read again and held against the tables.", no_args_is_help=True)

REPLAYS = Columns(
    {
        "replay": "id",
        "status": "status",
        "since": lambda row: seconds(row["since"]),
        "until": lambda row: seconds(row["until"]),
        "apply": "apply",
        "started": lambda row: seconds(row["started_at"]),
        "ended": lambda row: seconds(row["ended_at"]),
        "by": "requested_by",
        "error": "error",
    },
    ("id", "since", "until", "apply", "requested_by", "started_at", "ended_at", "status", "report", "error"),
)
_EVERY_S = 0.5
_WELL = ("equal", "mended")
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with how it ended.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds to wait.", min=1)]


@group.command("create")
def create(
    since: Annotated[str, typer.Option("--from", help=f"The first instant, {instant.HELP}.")] = "",
    until: Annotated[str, typer.Option("--to", help="The instant after the last.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Insert what is missing, and fold again.")] = False,
    deadline: Annotated[float, typer.Option(min=0, help="Seconds to wait for the live sink to pass the range.")] = 300,
    wait: WaitOption = False,
    timeout: TimeoutOption = 3600.0,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Read the log again beside the live sink, and compare the result with the tables; one at a time.

    Publishes nothing, deletes nothing, and changes nothing without --apply. With --wait: 0 if they agree, or agree
    after --apply, 1 if not, 7 not within the timeout; it goes on by itself then.
    """
    body = {
        "since": _text(instant_of(since, "--from")),
        "until": _text(instant_of(until, "--to")),
        "apply": apply,
        "deadline_s": deadline,
        "requested_by": "CLI",
    }
    begun = ask(lambda api: api.post("/replays", body, params={"dry_run": True} if dry_run else None))
    if dry_run:
        if output is Output.TABLE:
            note(f"the log would be read again{', and what is missing inserted' if apply else ''}")
        else:
            print_one(output, begun, REPLAYS.fields, [])
    elif wait:
        _end(_ended(begun["id"], timeout), output)
    elif output is Output.TABLE:
        note(f"replay {cell(begun['id'])} is under way: `till replay show {cell(begun['id'])}` tells how it ended")
    else:
        print_one(output, begun, REPLAYS.fields, [])


@group.command("list")
def list_(
    after: AfterOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List replays, the newest first."""
    listing = Listing(output, REPLAYS, empty="no replays yet")
    ask(lambda api: list_rows(api, "/replays", {}, listing, limit=limit, after=after))


@group.command("show")
def show(
    replay: Annotated[UUID, typer.Argument(help="Its id.", autocompletion=complete.replays)],
    wait: WaitOption = False,
    timeout: TimeoutOption = 3600.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one replay: what it read, and what differed."""
    if wait:
        _end(_ended(str(replay), timeout), output)
    else:
        _print(ask(lambda api: api.get(f"/replays/{replay}")), output)


# objects of the API, here and below
def _ended(replay: str, timeout_s: float) -> dict[str, Any]:
    """
    The replay once it has ended.

    Raises:
        TimedOut: not in time; it goes on.
    """
    again = f"`till replay show {cell(replay)} --wait` waits again"

    async def work(api: Client) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        while True:
            found: dict[str, Any] = await api.get(f"/replays/{replay}")
            if found["status"] != "running":
                return found
            if time.monotonic() >= until:
                raise TimedOut(f"replay {replay} has not ended within {timeout_s:.0f} s", hint=f"it goes on; {again}")
            await asyncio.sleep(_EVERY_S)

    note(f"waiting for replay {cell(replay)}; it goes on without this command: {again}")
    return ask(work)


def _end(found: Mapping[str, Any], output: Output) -> None:
    _print(found, output)
    if found["status"] not in _WELL:
        raise typer.Exit(ExitStatus.FAILED)


def _print(found: Mapping[str, Any], output: Output) -> None:
    report = found["report"]
    shown = [
        ("replay", found["id"]),
        ("status", found["status"]),
        ("since", seconds(found["since"])),
        ("until", seconds(found["until"])),
        ("apply", found["apply"]),
        ("by", found["requested_by"]),
        ("started", seconds(found["started_at"])),
        ("ended", seconds(found["ended_at"])),
        ("error", found["error"]),
    ]
    print_one(output, found, REPLAYS.fields, [each for each in shown if each[1] not in (None, "")])
    if output is not Output.TABLE or report is None:
        return
    if report["differences"]:
        note("")
        rows = [(each["problem"], each["subject"], each["run"]) for each in report["differences"]]
        print_table(("difference", "subject", "run"), rows)
    differences = len(report["differences"]) if report["mended"] is not None else report["left"]  # a thousand are told
    note(f"read {report['records']} records again: {differences} differences")
    if report["mended"] is not None:
        done = report["mended"]
        note(f"mended: {done['events']} events, {done['payments']} payments; {report['left']} differences left")
    elif report["differences"]:
        note("mend them with `till replay create --apply`")


def _text(at: Any) -> str | None:  # an instant or nothing
    return None if at is None else at.isoformat()
