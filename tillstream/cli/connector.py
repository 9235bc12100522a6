"""`till connector`: configured sources."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TillError
from tillstream.cli import change, context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.file import documents_of, located, object_of, warn_of_absence
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_lines, print_table
from tillstream.cli.source import spec_of

if TYPE_CHECKING:
    from uuid import UUID

    from connectors.spec import SourceSpec
    from tillstream.control.apply import Applied
    from tillstream.control.connector import ConnectorView, ReportView
    from tillstream.control.document import Document
    from tillstream.control.report import TaskRow
    from tillstream.control.run import RunView

group = typer.Typer(help="Configured sources.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Its name, id or number.")]
_CAUSE_WIDTH = 60  # characters of a cause in the list
ConfigurationOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", metavar="KEY=VALUE", help="A key of its configuration; JSON, or text. Repeatable."),
]
_STATUSES = {"SUCCESS": ExitStatus.OK, "PARTIAL_SUCCESS": ExitStatus.PARTIAL, "FAILED": ExitStatus.FAILED}


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """List connectors with their health."""
    views = [_shown(view) for view in context.run(_listed())]
    if output is not Output.TABLE:
        print_data(output, views)
        return
    rows = [
        (v.name, v.kind, v.status, v.health, _short(v.cause), v.last_run_status, v.last_run_at, v.total_runs)
        for v in views
    ]
    columns = ("connector", "kind", "status", "health", "cause", "last run", "at", "runs")
    print_table(columns, rows, empty="no connectors yet: `till connector create --help`")


@group.command("show")
def show(connector: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """
    Show one connector: how it fares, what its worker is at, and its options.

    Those that were set, and the others that hold for every connector.
    """
    from connectors.spec import ConnectorConfig
    from tillstream.control.connector import in_force

    view = context.run(_found(connector))
    options = in_force(spec_of(view.kind), view.configuration)
    view = _shown(view)
    if output is not Output.TABLE:
        print_data(output, {**asdict(view), "options": options})
        return
    fields: list[tuple[str, object]] = [
        ("connector", view.name),
        ("id", view.id),
        ("number", view.number),
        ("kind", view.kind),
        ("provider", f"{view.provider}{' (frozen)' if view.provider_frozen else ''}"),
        ("status", view.status),
        ("version", view.version),
        ("health", view.health),
        ("cause", view.cause),
        ("runs", view.total_runs),
        ("success rate", f"{view.success_rate} %"),
        ("last run", view.last_run_status),
        ("at", view.last_run_at),
        ("created", view.created_at),
        *(_reported(view.report) if view.report else [("worker", "none has told of it yet")]),
    ]
    fields += [(f"  {key}", value) for key, value in sorted(view.configuration.items())]
    unset = [name for name in ConnectorConfig.model_fields if name not in view.configuration]
    print_fields([*fields, *((f"  {name}", f"{json.dumps(options.get(name))} (default)") for name in unset)])


@group.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A name of your choice; also the provider, unless one is given.")],
    kind: Annotated[str, typer.Option(help="The kind of source.")] = "directory",
    set_: ConfigurationOption = None,
    file: Annotated[Path | None, typer.Option(help="JSON file of its configuration; options win over it.")] = None,
    provider: Annotated[str | None, typer.Option(help="Who moves the money; frozen at the first publish.")] = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a connector; a worker starts it within seconds."""
    configuration = located({**(object_of(file) if file else {}), **_from_options(set_ or [])}, kind)
    identifier = context.run(_created(name, spec_of(kind), configuration, provider, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"id": None if dry_run else identifier, "name": name, "kind": kind, "dry_run": dry_run})
    else:
        note(f"connector {name} {'can be created' if dry_run else f'created, id {identifier}'}")
    warn_of_absence(configuration, kind)


@group.command("update")
def update(
    connector: NameArgument,
    set_: ConfigurationOption = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file of a whole new configuration; options win over it.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Who moves the money, until the first publish.")] = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Change its configuration; the worker starts it anew within seconds, from where it stood.

    What no option names stays as it is; `KEY=null` brings a key's default back.
    """
    from connectors.secret_text import masked

    if not set_ and file is None and provider is None:
        raise typer.BadParameter("nothing to change: name an option, a file or a provider", param_hint="--option")
    changed = _from_options(set_ or [])
    view, configuration = context.run(
        _updated(connector, changed, object_of(file) if file else None, provider, dry_run=dry_run)
    )
    if output is not Output.TABLE:
        told = masked(configuration, spec_of(view.kind).config)
        print_data(output, {"id": view.id, "name": view.name, "configuration": told, "dry_run": dry_run})
    else:
        note(f"connector {view.name} {'can be updated' if dry_run else 'updated; its worker starts it anew'}")
        before, now = view.configuration, configuration
        _advise(view.name, [key for key in {*before, *now} if before.get(key) != now.get(key)], dry_run=dry_run)
    warn_of_absence(configuration, view.kind)


@group.command("apply")
def apply(
    files: Annotated[
        list[Path],
        typer.Option("--file", "-f", help="`connector.yaml`, or `-` for stdin. Repeatable."),
    ],
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Bring connectors to what files describe: create, change, pause or resume them; all or none.

    Prints what is other than before, key by key. A folder's path is relative to the file that names it.
    """
    described = documents_of(files)
    done = context.run(_applied(described, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"dry_run": dry_run, "connectors": done})
    else:
        for each in done:
            print_lines(change.lines_of(each, dry_run=dry_run))
            _advise(each.name, change.keys_of(each), dry_run=dry_run)
    for document in described:
        warn_of_absence(document.configuration, document.kind)


@group.command("run")
def run(
    connector: NameArgument,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", help="First day, in its zone.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], metavar="DAY", help="Last day, included.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Read again what is done; its events stay the same.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with its status.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=1)] = 300.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Ask for a run, now; days make it a backfill. A worker begins it within seconds.

    With --wait: 0 SUCCESS, 8 PARTIAL_SUCCESS, 1 FAILED, 7 not within the timeout; it goes on by itself then.
    """
    first, last = (each.date() if each else None for each in (since, until))
    run_id, view = context.run(_asked(connector, first, last, force=force, wait_s=timeout if wait else None))
    if output is not Output.TABLE:
        print_data(output, view if view is not None else {"id": run_id})
    elif view is None:
        note(f"run {run_id} is asked for: `till run show {str(run_id)[:8]}` tells how it goes")
    else:
        note(f"run {run_id}: {'; '.join(filter(None, [view.status.value, _counted(view), view.note, view.reason]))}")
    if view is not None and _STATUSES[view.status.value]:
        raise typer.Exit(_STATUSES[view.status.value])


@group.command("tasks")
def tasks(
    connector: NameArgument,
    limit: Annotated[int, typer.Option(help="Tasks at most; the newest, and those at work.", min=1, max=10_000)] = 200,
    output: OutputOption = Output.TABLE,
) -> None:
    """List its tasks: the listing, what is read or waits, what was read."""
    found = context.run(_tasks(connector, limit))
    if output is not Output.TABLE:
        print_data(output, found)
        return
    rows = [(each.descriptor, each.status, each.created_at, _short(each.error), each.id) for each in found]
    print_table(("task", "status", "since", "error", "id"), rows, empty="no tasks yet: no worker has run it")


@group.command("delete")
def delete(connector: NameArgument, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """
    Delete it: its worker stops it within seconds, and its name is free.

    Its runs, dead letters and payments stay: `till run list --connector NAME` goes on listing them.
    """
    view = context.run(_deleted(connector, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"id": view.id, "name": view.name, "dry_run": dry_run})
    elif dry_run:
        note(f"connector {view.name} would be deleted; its {view.total_runs} runs and its payments would stay")
    else:
        note(f"connector {view.name} deleted; its {view.total_runs} runs and its payments stay")


@group.command("pause")
def pause(connector: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Stop it at a checkpoint, until it is resumed."""
    _tell_status(context.run(_set(connector, active=False)), output, "is paused")


@group.command("resume")
def resume(connector: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Let it go on where it stood."""
    _tell_status(context.run(_set(connector, active=True)), output, "is active")


def _tell_status(view: ConnectorView, output: Output, now: str) -> None:
    if output is not Output.TABLE:
        print_data(output, _shown(view))
    else:
        note(f"connector {view.name} {now}")


def _reported(report: ReportView) -> list[tuple[str, object]]:
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.skipped.items())
    fields: list[tuple[str, object]] = [
        ("worker", report.worker),
        ("state", report.state),
        ("told", report.reported_at),
        ("listed", report.listed_at),
        ("open runs", report.open_runs),
        ("tasks", f"{report.active} at work, {report.pending} pending"),
        ("skipped", skipped),
        ("left behind", report.left_behind),
    ]
    fields += [("  at", f"{each.descriptor} {each.done_bytes} of {each.size_bytes} bytes") for each in report.progress]
    return [(name, value) for name, value in fields if value not in ("", 0, None)]


def _counted(view: RunView) -> str:
    return f"{view.read} read, {view.published} published, {view.rejected} rejected, {view.skipped} skipped"


def _shown(view: ConnectorView) -> ConnectorView:
    """Without the secrets that an old configuration spells."""
    from tillstream.control.connector import shown

    try:
        spec = spec_of(view.kind)
    except TillError:  # a plugin that is not here
        spec = None
    return shown(view, spec)


def _short(cause: str) -> str:
    """As much of it as a table has room for; `show` has all of it."""
    return cause if len(cause) <= _CAUSE_WIDTH else f"{cause[: _CAUSE_WIDTH - 1]}…"


async def _listed() -> list[ConnectorView]:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        return await connectors.list_connectors(pool)


async def _found(wanted: str) -> ConnectorView:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        return await connectors.find(pool, wanted)


async def _created(
    name: str, spec: SourceSpec, configuration: dict[str, Any], provider: str | None, *, dry_run: bool
) -> UUID:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        return await connectors.create(
            pool, name=name, spec=spec, configuration=configuration, provider=provider, dry_run=dry_run
        )


def _advise(name: str, changed: Iterable[str], *, dry_run: bool) -> None:
    if not dry_run and (advice := change.advice(name, changed)):
        note(advice)


async def _updated(
    wanted: str, changed: dict[str, Any], whole: dict[str, Any] | None, provider: str | None, *, dry_run: bool
) -> tuple[ConnectorView, dict[str, Any]]:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        merged = {**(view.configuration if whole is None else whole), **changed}
        configuration = located({key: value for key, value in merged.items() if value is not None}, view.kind)
        await connectors.configure(
            pool, view, spec=spec_of(view.kind), configuration=configuration, provider=provider, dry_run=dry_run
        )
        return view, configuration


async def _deleted(wanted: str, *, dry_run: bool) -> ConnectorView:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        if not dry_run:
            await connectors.delete(pool, view)
        return view


async def _set(wanted: str, *, active: bool) -> ConnectorView:
    from tillstream.control import connector as connectors

    status = connectors.ConnectorStatus.ACTIVE if active else connectors.ConnectorStatus.PAUSED
    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        await connectors.set_status(pool, view.id, status)
        return await connectors.find(pool, str(view.id))


async def _applied(described: Sequence[Document], *, dry_run: bool) -> list[Applied]:
    from connectors.registry import specs
    from tillstream.control import apply as applying

    async with context.pool(context.settings()) as pool:
        return await applying.apply(pool, described, specs(), dry_run=dry_run)


async def _asked(
    wanted: str, since: date | None, until: date | None, *, force: bool, wait_s: float | None
) -> tuple[UUID, RunView | None]:
    from tillstream.control import connector as connectors
    from tillstream.control import request as requests

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        spec = spec_of(view.kind)
        run_id = await requests.ask(pool, view, spec, since=since, until=until, force=force)
        return run_id, None if wait_s is None else await requests.ended(pool, run_id, within_s=wait_s)


async def _tasks(wanted: str, limit: int) -> list[TaskRow]:
    from tillstream.control import connector as connectors
    from tillstream.control import report

    async with context.pool(context.settings()) as pool:
        return await report.tasks_of(pool, (await connectors.find(pool, wanted)).id, limit=limit)


def _from_options(options: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in options:
        key, equals, value = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--option")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
