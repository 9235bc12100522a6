"""`till connector`: configured sources."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import ConfigError, NotFound
from tillstream.cli import context
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table
from tillstream.escape import escaped

if TYPE_CHECKING:
    from uuid import UUID

    from connectors.spec import SourceSpec
    from tillstream.control.connector import ConnectorView

group = typer.Typer(help="Configured sources.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Its name, id or number.")]
_WATCHES_A_FOLDER = "directory"  # the kind whose key of the same name is a path of this machine
_CAUSE_WIDTH = 60  # characters of a cause in the list
ConfigurationOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", metavar="KEY=VALUE", help="A key of its configuration; JSON, or text. Repeatable."),
]


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """List connectors with their health."""
    views = context.run(_listed())
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
    """Show one connector."""
    view = context.run(_found(connector))
    if output is not Output.TABLE:
        print_data(output, view)
        return
    fields: list[tuple[str, object]] = [
        ("connector", view.name),
        ("id", view.id),
        ("number", view.number),
        ("kind", view.kind),
        ("provider", f"{view.provider}{' (frozen)' if view.provider_frozen else ''}"),
        ("status", view.status),
        ("health", view.health),
        ("cause", view.cause),
        ("runs", view.total_runs),
        ("success rate", f"{view.success_rate} %"),
        ("last run", view.last_run_status),
        ("at", view.last_run_at),
        ("created", view.created_at),
    ]
    print_fields([*fields, *((f"  {key}", value) for key, value in sorted(view.configuration.items()))])


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
    configuration = _located({**(_from_file(file) if file else {}), **_from_options(set_ or [])}, kind)
    identifier = context.run(_created(name, _spec(kind), configuration, provider, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"id": None if dry_run else identifier, "name": name, "kind": kind, "dry_run": dry_run})
    else:
        note(f"connector {name} {'can be created' if dry_run else f'created, id {identifier}'}")
    _warn_of_absence(configuration, kind)


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
    if not set_ and file is None and provider is None:
        raise typer.BadParameter("nothing to change: name an option, a file or a provider", param_hint="--option")
    changed = _from_options(set_ or [])
    view, configuration = context.run(
        _updated(connector, changed, _from_file(file) if file else None, provider, dry_run=dry_run)
    )
    if output is not Output.TABLE:
        print_data(output, {"id": view.id, "name": view.name, "configuration": configuration, "dry_run": dry_run})
    else:
        note(f"connector {view.name} {'can be updated' if dry_run else 'updated; its worker starts it anew'}")
    _warn_of_absence(configuration, view.kind)


@group.command("delete")
def delete(connector: NameArgument, dry_run: DryRunOption = False) -> None:
    """
    Delete it: its worker stops it within seconds, and its name is free.

    Its runs, dead letters and payments stay: `till run list --connector NAME` goes on listing them.
    """
    view = context.run(_deleted(connector, dry_run=dry_run))
    if dry_run:
        note(f"connector {view.name} would be deleted; its {view.total_runs} runs and its payments would stay")
    else:
        note(f"connector {view.name} deleted; its {view.total_runs} runs and its payments stay")


@group.command("pause")
def pause(connector: NameArgument) -> None:
    """Stop it at a checkpoint, until it is resumed."""
    context.run(_set(connector, active=False))
    note(f"connector {connector} is paused")


@group.command("resume")
def resume(connector: NameArgument) -> None:
    """Let it go on where it stood."""
    context.run(_set(connector, active=True))
    note(f"connector {connector} is active")


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


async def _updated(
    wanted: str, changed: dict[str, Any], whole: dict[str, Any] | None, provider: str | None, *, dry_run: bool
) -> tuple[ConnectorView, dict[str, Any]]:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        merged = {**(view.configuration if whole is None else whole), **changed}
        configuration = _located({key: value for key, value in merged.items() if value is not None}, view.kind)
        await connectors.configure(
            pool, view, spec=_spec(view.kind), configuration=configuration, provider=provider, dry_run=dry_run
        )
        return view, configuration


async def _deleted(wanted: str, *, dry_run: bool) -> ConnectorView:
    from tillstream.control import connector as connectors

    async with context.pool(context.settings()) as pool:
        view = await connectors.find(pool, wanted)
        if not dry_run:
            await connectors.delete(pool, view)
        return view


async def _set(wanted: str, *, active: bool) -> None:
    from tillstream.control import connector as connectors

    status = connectors.ConnectorStatus.ACTIVE if active else connectors.ConnectorStatus.PAUSED
    async with context.pool(context.settings()) as pool:
        await connectors.set_status(pool, (await connectors.find(pool, wanted)).id, status)


def _spec(kind: str) -> SourceSpec:
    from connectors.registry import specs

    known = specs()
    if kind not in known:
        raise NotFound(f"there is no source of kind {kind!r}", hint=f"there are: {', '.join(sorted(known))}")
    return known[kind]


def _located(configuration: dict[str, Any], kind: str) -> dict[str, Any]:
    """A watched folder as an absolute path: what is relative here would be another folder to the worker."""
    folder = configuration.get("directory")
    if kind != _WATCHES_A_FOLDER or not isinstance(folder, str) or not folder:
        return configuration
    # not `resolve`: a link may point elsewhere tomorrow; not `Path.expanduser`: a stranger's `~name` is no error here
    return {**configuration, "directory": os.path.abspath(os.path.expanduser(folder))}  # noqa: PTH100, PTH111


def _warn_of_absence(configuration: Mapping[str, object], kind: str) -> None:
    folder = configuration.get("directory")
    if kind == _WATCHES_A_FOLDER and isinstance(folder, str) and not Path(folder).is_dir():
        note(f"warning: there is no folder {escaped(folder)} here yet; its files are read once it is there")


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


def _from_file(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file}: cannot be read as JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise ConfigError(f"{file}: must hold one JSON object, holds {type(body).__name__}")
    return body
