"""`till run`: executions of connectors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from tillstream.cli import complete, happening, wait
from tillstream.cli.instant import instant_of, seconds
from tillstream.cli.option import AfterOption, DryRunOption, LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields
from tillstream.cli.path import run_path
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing, list_rows
from tillstream.cli.wait import TimeoutOption, WaitOption

group = typer.Typer(help="Executions of connectors, and what became of their records.", no_args_is_help=True)

RunArgument = Annotated[
    str, typer.Argument(help="The beginning of its id, or its number.", autocompletion=complete.runs)
]
_COUNTS = ("read", "published", "rejected", "filtered", "applied", "duplicate", "dead")


# a run as the API tells it
def _status(run: Mapping[str, Any]) -> str:
    waits = "awaiting sink" if run.get("awaiting_sink") else "awaiting a worker" if run.get("waiting") else ""
    return f"{run.get('status')} ({waits})" if waits else str(run.get("status"))


RUNS = Columns(
    {
        "run": lambda run: str(run.get("id"))[:8],
        "connector": "connector",
        "type": "type",
        "status": _status,
        "started": lambda run: seconds(run.get("started_at")),
        **{name: name for name in _COUNTS},
        "reason": "reason",
    },
    (
        *("id", "number", "connector", "connector_id", "type", "status", "triggered_by", "read", "published"),
        *("rejected", "filtered", "skipped", "applied", "duplicate", "dead", "started_at", "completed_at"),
        *("duration_s", "awaiting_sink", "reason", "note", "waiting", "cancelled", "asked", "since", "until"),
        *("force", "details"),
    ),
)
FILES = Columns(
    {
        "file": "filename",
        "state": "state",
        "cycle": "cycle_date",
        "records": "records",
        "rejected": "rejected",
        "bytes": "size_bytes",
        "error": "error",
        "at": lambda file: seconds(file.get("updated_at")),
    },
    (
        *("id", "connector_id", "connector", "run_id", "task", "provider", "cycle_date", "filename", "path", "sha256"),
        *("size_bytes", "state", "records", "rejected", "error", "discovered_at", "downloaded_at", "normalized_at"),
        "updated_at",
    ),
)


class Status(StrEnum):
    """As `tillstream.control.run.RunStatus`, which is not imported for the help; a test holds them equal."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    PARTIAL_SUCCESS = "PARTIAL_SUCCESS"
    FAILED = "FAILED"


class Type(StrEnum):
    """Seed 003's words."""

    SCHEDULED = "SCHEDULED"
    MANUAL = "MANUAL"
    TEST = "TEST"
    BACKFILL = "BACKFILL"


@group.command("list")
def list_(  # noqa: PLR0917  Typer reads options from the signature
    connector: Annotated[
        str | None,
        typer.Option(help="Only runs of this connector, also of a deleted one.", autocompletion=complete.connectors),
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only runs that stand so.", case_sensitive=False)] = None,
    type_: Annotated[Type | None, typer.Option("--type", help="Only runs of this type.", case_sensitive=False)] = None,
    since: Annotated[str, typer.Option("--from", help="Begun from then on: ISO 8601 with offset, or a date.")] = "",
    until: Annotated[str, typer.Option("--to", help="Begun before then.")] = "",
    after: AfterOption = None,
    limit: LimitOption = 30,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, the newest first."""
    wanted = {
        "connector": connector,
        "status": status,
        "type": type_,
        "since": instant_of(since, "--from"),
        "until": instant_of(until, "--to"),
    }
    listing = Listing(output, RUNS, empty="no runs yet")
    ask(lambda api: list_rows(api, "/runs", wanted, listing, limit=limit, after=after))


@group.command("show")
def show(run: RunArgument, output: OutputOption = Output.TABLE) -> None:
    """Show one run."""
    found = ask(lambda api: api.get(run_path(run)))
    if output is not Output.TABLE:
        print_data(output, found)
        return
    days = [str(found.get(name) or "…") for name in ("since", "until")]
    fields = [
        ("run", found.get("id")),
        ("number", found.get("number")),
        ("connector", found.get("connector")),
        ("type", found.get("type")),
        ("triggered by", found.get("triggered_by")),
        ("status", _status(found)),
        ("reason", found.get("reason")),
        ("note", found.get("note")),
        *([("days", " to ".join(days))] if days != ["…", "…"] else []),
        ("started", seconds(found.get("started_at"))),
        ("completed", seconds(found.get("completed_at"))),
        ("seconds", found.get("duration_s")),
        *((name, found.get(name)) for name in _COUNTS),
        ("skipped", found.get("skipped")),
    ]
    print_fields(fields)


@group.command("files")
def files(run: RunArgument, limit: LimitOption = 200, output: OutputOption = Output.TABLE) -> None:
    """List the files that the run had in hand last, the newest first, and what became of each."""
    listing = Listing(output, FILES, empty="the run had no file in hand")
    ask(lambda api: list_rows(api, run_path(run, "/files"), {}, listing, limit=limit))


@group.command("events")
def events(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, until the run ends.")] = False,
    limit: LimitOption = 200,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what happened to the run, in order."""
    if not follow:
        happening.print_events(run_path(run, "/events"), output, limit=limit)
        return
    happening.insist_on_lines(output)
    ask(lambda api: happening.follow_run(api, run, output), left="left; the run goes on")


@group.command("cancel")
def cancel(run: RunArgument, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """
    End a run that was asked for: FAILED, cancelled. What was published of it stays.

    A worker that reads it stops within seconds; its connector goes on.
    """
    found = ask(lambda api: api.post(run_path(run, "/cancel"), params={"dry_run": dry_run}))
    if output is not Output.TABLE:
        print_data(output, found)
    elif dry_run:
        note(f"run {found.get('id')} would be cancelled")
    else:
        at_once = found.get("completed_at") is not None
        done = "is cancelled" if at_once else "is being cancelled: its worker ends it within seconds"
        note(f"run {found.get('id')} {done}")


@group.command("retry")
def retry(
    run: RunArgument,
    wait_: WaitOption = False,
    timeout: TimeoutOption = wait.PATIENCE_S,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask for the same once more, of the same days, as a run of its own; with --wait see `till run wait`."""
    made = ask(lambda api: api.post(run_path(run, "/retry"), params={"dry_run": dry_run}))
    tell_asked(made, output, wait_s=timeout if wait_ and not dry_run else None, dry_run=dry_run)


@group.command("wait")
def wait_(run: RunArgument, timeout: TimeoutOption = wait.PATIENCE_S, output: OutputOption = Output.TABLE) -> None:
    """
    Wait for a run's end, and exit as it ended: 0 SUCCESS, 8 PARTIAL_SUCCESS, 1 FAILED, 7 not within the timeout.

    How it goes is told meanwhile, with `-o jsonl` a line for each change. Ctrl-C leaves it, and it goes on.
    """
    found = ask(lambda api: api.get(run_path(run)))
    wait.to_its_end(str(found.get("id")), timeout_s=timeout, output=output)


# a run as the API tells it
def tell_asked(made: Mapping[str, Any], output: Output, *, wait_s: float | None, dry_run: bool) -> None:
    """
    Tell of a run that was asked for, or with `wait_s` watch it to its end.

    Raises:
        typer.Exit: it was watched, and did not end SUCCESS. TimedOut: it has not ended in time.
    """
    run_id = str(made.get("id"))
    if wait_s is not None:
        if output is Output.TABLE:
            note(f"run {run_id} is asked for")
        wait.to_its_end(run_id, timeout_s=wait_s, output=output)
    elif output is not Output.TABLE:
        print_data(output, made)
    elif dry_run:
        note(f"a run of {made.get('connector')} can be asked for: {made.get('type')}")
    else:
        note(f"run {run_id} is asked for: `till run show {run_id[:8]}` tells how it goes")
