"""`till connector`: configured sources, and how they fare. `connector_edit` changes them, `connector_run` runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from tillstream.cli import complete, connector_edit, connector_run, happening, run
from tillstream.cli.connector_columns import CONNECTORS, CURSORS, TASKS, TEMPLATES, VERSIONS, plain
from tillstream.cli.exit import ExitStatus
from tillstream.cli.instant import seconds
from tillstream.cli.option import AfterOption, LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_lines, print_table
from tillstream.cli.path import connector_path
from tillstream.cli.remote import ask
from tillstream.cli.rows import Listing, list_rows, page_of

group = typer.Typer(help="Configured sources.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Its name, id or number.", autocompletion=complete.connectors)]
_MOST_TASKS = 1_000
_SICK = ("down", "failed", "degraded")  # the worst first
_WELL = len(_SICK)

# a connector as the API tells it
View = Mapping[str, Any]


class Status(StrEnum):
    """As `control.connector.Standing`, which is not imported for the help; a test holds them equal."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    FAILED = "FAILED"


@group.command("list")
def list_(  # noqa: PLR0917  Typer reads options from the signature
    q: Annotated[str | None, typer.Option("--search", help="Only those with this in their name or provider.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that are so.", case_sensitive=False)] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only those of this kind of source.", autocompletion=complete.kinds)
    ] = None,
    health: Annotated[str | None, typer.Option(help="Only those that fare so, such as degraded.")] = None,
    after: AfterOption = None,
    limit: LimitOption = 10_000,
    output: OutputOption = Output.TABLE,
) -> None:
    """List connectors with their health."""
    wanted = {"q": q, "status": status, "kind": kind, "health": health}
    is_all = not any(wanted.values())
    nothing = "no connectors yet: `till connector create --help`" if is_all else "no connectors match"
    listing = Listing(output, CONNECTORS, empty=nothing)
    ask(lambda api: list_rows(api, "/connectors", wanted, listing, limit=limit, after=after))


@group.command("show")
def show(connector: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """
    Show one connector: how it fares, what its worker is at, and its options.

    Those that were set, and the others with the value that holds.
    """
    view = ask(lambda api: api.get(connector_path(connector)))
    if output is not Output.TABLE:
        print_data(output, view)
        return
    plan, options = view.get("schedule") or {}, view.get("options") or {}
    report, configuration = view.get("report"), view.get("configuration") or {}
    fields: list[tuple[str, object]] = [
        ("connector", view.get("name")),
        ("id", view.get("id")),
        ("number", view.get("number")),
        ("kind", view.get("kind")),
        ("provider", f"{view.get('provider')}{' (frozen)' if view.get('provider_frozen') else ''}"),
        ("status", view.get("status")),
        *([("paused because", view["pause_note"])] if view.get("pause_note") else []),
        ("version", view.get("version")),
        ("health", view.get("health")),
        ("cause", view.get("cause")),
        ("runs", view.get("total_runs")),
        ("success rate", f"{view.get('success_rate')} %"),
        ("last run", view.get("last_run_status")),
        ("at", seconds(view.get("last_run_at"))),
        ("created", seconds(view.get("created_at"))),
        *([("schedule", f"{plan['cron']} {plan.get('timezone')}")] if plan.get("cron") else []),
        *(_reported(report) if report else [("worker", "none has told of it yet")]),
    ]
    fields += [(f"  {key}", plain(value)) for key, value in sorted(configuration.items())]
    unset = [name for name in options if name not in configuration]
    print_fields([*fields, *((f"  {name}", f"{json.dumps(options[name])} (default)") for name in unset)])


@group.command("health")
def health(
    connector: Annotated[
        str | None, typer.Argument(help="Its name, id or number; else all of them.", autocompletion=complete.connectors)
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Tell how connectors fare, those that are not well first.

    Ends with 1 if one is down or degraded, or FAILED: it stopped itself, or its last runs failed.
    """
    if connector is None:
        views = ask(lambda api: api.rows("/connectors"))
    else:
        views = [ask(lambda api: api.get(connector_path(connector)))]
    views.sort(key=_wellness)
    names = ("name", "status", "health", "cause", "success_rate", "last_run_status", "last_run_at")
    if output is not Output.TABLE:
        told = [{name: view.get(name) for name in names} for view in views]
        print_data(output, {"data": told, "next": None}, fields=names)
    else:
        rows = [(*(view.get(name) for name in names[:-1]), seconds(view.get("last_run_at"))) for view in views]
        columns = ("connector", "status", "health", "cause", "success %", "last run", "at")
        print_table(columns, rows, empty="no connectors yet")
    if any(_wellness(view) < _WELL for view in views):
        raise typer.Exit(ExitStatus.FAILED)


# an object of the API
def _wellness(view: Mapping[str, Any]) -> int:
    """The lower, the worse."""
    health = view.get("health")
    word = "failed" if view.get("status") == "FAILED" and health != "down" else health
    return _SICK.index(word) if word in _SICK else _WELL


@group.command("history")
def history(connector: NameArgument, limit: LimitOption = 30, output: OutputOption = Output.TABLE) -> None:
    """List its runs, the newest first; `till run list` has filters."""
    listing = Listing(output, run.RUNS, empty="no runs yet")
    ask(lambda api: list_rows(api, "/runs", {"connector": connector}, listing, limit=limit))


@group.command("events")
def events(
    connector: NameArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, the newest last.")] = False,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what happened to it and its runs, the newest first."""
    if not follow:
        happening.print_events(connector_path(connector, "/events"), output, limit=limit)
        return
    happening.insist_on_lines(output)
    ask(lambda api: happening.follow_connector(api, connector, output, limit=limit), left="")


@group.command("tasks")
def tasks(
    connector: NameArgument,
    limit: Annotated[
        int, typer.Option(help="Tasks at most; the newest, and those at work.", min=1, max=_MOST_TASKS)
    ] = 200,
    output: OutputOption = Output.TABLE,
) -> None:
    """List its tasks: the listing, what is read or waits, what was read."""
    found, _ = ask(lambda api: page_of(api, connector_path(connector, "/tasks"), {"limit": limit}))
    listing = Listing(output, TASKS, empty="no tasks yet: no worker has run it")
    listing.add(found)
    listing.end()


@group.command("cursors")
def cursors(connector: NameArgument, limit: LimitOption = 200, output: OutputOption = Output.TABLE) -> None:
    """List where its tasks stand, as their newest checkpoints say."""
    listing = Listing(output, CURSORS, empty="no checkpoints yet")
    ask(lambda api: list_rows(api, connector_path(connector, "/cursors"), {}, listing, limit=limit))


@group.command("versions")
def versions(
    connector: NameArgument,
    version: Annotated[int | None, typer.Argument(min=0, help="Only this one, with its configuration.")] = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List every configuration that it ever had, the newest first; or show one."""
    if version is not None:
        one = ask(lambda api: api.get(connector_path(connector, f"/versions/{version}")))
        if output is not Output.TABLE:
            print_data(output, one)
        else:
            configuration = one.get("configuration") or {}
            print_fields([*_made(one), *((f"  {key}", plain(value)) for key, value in sorted(configuration.items()))])
        return
    listing = Listing(output, VERSIONS)
    ask(lambda api: list_rows(api, connector_path(connector, "/versions"), {}, listing, limit=limit))


@group.command("templates")
def templates(output: OutputOption = Output.TABLE) -> None:
    """List what is filled in for known providers, and what is asked for; `connector create --template` takes one."""
    listing = Listing(output, TEMPLATES, empty="no templates")
    rows, more = ask(lambda api: page_of(api, "/templates", {}))
    listing.add(rows)
    listing.end(more)


@group.command("diff")
def diff(
    connector: NameArgument,
    from_: Annotated[int | None, typer.Argument(metavar="[FROM]", min=0, help="Else the version before TO.")] = None,
    to: Annotated[int | None, typer.Argument(metavar="[TO]", min=0, help="Else the version in force.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what changed from one version of its configuration to another; `till diff -f` compares with a file."""
    page = ask(lambda api: connector_edit.between(api, connector, from_, to))
    if output is not Output.TABLE:
        print_data(output, page, fields=("key", "before", "after"))
        return
    found = _data(page)
    print_lines([connector_edit.line_of(each).strip() for each in found])
    if not found:
        note("nothing is other than it was")


# a page as the API tells it
def _data(page: Mapping[str, Any]) -> list[Any]:
    found = page.get("data")
    return found if isinstance(found, list) else []


# as above
def _made(version: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("version", version.get("version")),
        ("provider", version.get("provider")),
        ("made", seconds(version.get("made_at"))),
        ("by", version.get("made_by")),
    ]


# as above
def _reported(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    skipped = ", ".join(f"{count} {reason}" for reason, count in (report.get("skipped") or {}).items())
    fields: list[tuple[str, object]] = [
        ("worker", report.get("worker")),
        ("state", report.get("state")),
        ("told", seconds(report.get("reported_at"))),
        ("listed", seconds(report.get("listed_at"))),
        ("open runs", report.get("open_runs")),
        ("tasks", f"{report.get('active')} at work, {report.get('pending')} pending"),
        ("skipped", skipped),
        ("left behind", report.get("left_behind")),
    ]
    at: Sequence[Mapping[str, Any]] = report.get("progress") or ()
    fields += [("  at", f"{each['descriptor']} {each['done_bytes']} of {each['size_bytes']} bytes") for each in at]
    return [(name, value) for name, value in fields if value not in ("", 0, None)]


connector_edit.register(group)
connector_run.register(group)
