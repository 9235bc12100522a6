"""`till connector create|update|delete|pause|resume`: what an operator wants of a connector."""
# ruff: noqa: PLR0917  Typer reads options from the signature

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import change, complete
from tillstream.cli.confirm import YesOption, confirm
from tillstream.cli.file import located, object_of, warn_of_absence
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, cell, note, print_data
from tillstream.cli.path import connector_path
from tillstream.cli.remote import ask

if TYPE_CHECKING:
    from tillstream.cli.client import Answer, Client

NameArgument = Annotated[str, typer.Argument(help="Its name, id or number.", autocompletion=complete.connectors)]
ConfigurationOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", metavar="KEY=VALUE", help="A key of its configuration; JSON, or text. Repeatable."),
]
CronOption = Annotated[
    str | None,
    typer.Option(
        "--cron",
        help="Five fields. It does not poll then, and runs when it is asked to: nothing here starts it by the clock."
        " Empty: poll.",
    ),
]
ZoneOption = Annotated[str | None, typer.Option("--timezone", help="The zone of --cron.")]
line_of = change.line_of
_FOLDER = "directory"  # the usual kind, and its key


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("create")(create)
    group.command("update")(update)
    group.command("delete")(delete)
    group.command("pause")(pause)
    group.command("resume")(resume)


def create(
    name: Annotated[str, typer.Argument(help="A name of your choice; also the provider, unless one is given.")],
    kind: Annotated[
        str | None, typer.Option(help="The kind of source; else its template's.", autocompletion=complete.kinds)
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="What is filled in for a known provider: see `till connector templates`.")
    ] = None,
    set_: ConfigurationOption = None,
    file: Annotated[Path | None, typer.Option(help="JSON file of its configuration; options win over it.")] = None,
    provider: Annotated[str | None, typer.Option(help="Who moves the money; frozen by the first run.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create it, and let it wait to be resumed.")] = False,
    cron: CronOption = None,
    timezone: ZoneOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Create a connector; a worker starts it within seconds.

    Without a kind and a template it watches a directory.
    """
    given = {**(object_of(file) if file else {}), **from_options(set_ or [])}
    configuration = located(given, kind or (_FOLDER if template is None or _FOLDER in given else ""))
    body = {"name": name, "configuration": configuration, "by": user()}
    body |= {"template": template} if template else {}
    body |= {"kind": kind or _FOLDER} if kind or not template else {}
    body |= {"provider": provider} if provider else {}
    body |= {"status": "PAUSED"} if paused else {}
    body |= {"schedule": plan} if (plan := _schedule(cron, timezone)) else {}
    made = ask(lambda api: api.post("/connectors", body, params={"dry_run": dry_run}))
    if output is not Output.TABLE:
        print_data(output, made)
    else:
        note(f"connector {name} " + ("can be created" if dry_run else f"created, id {cell(made.get('id'))}"))
        _note_clock(made)
    warn_of_absence(configuration, str(made.get("kind")))


def update(
    connector: NameArgument,
    set_: ConfigurationOption = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON file of a whole new configuration; options win over it.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Who moves the money, until the first run.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Another name for it.")] = None,
    cron: CronOption = None,
    timezone: ZoneOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Change its configuration; the worker starts it anew within seconds, from where it stood.

    What no option names stays as it is; `KEY=null` brings a key's default back. Refused if somebody else changes it at
    the same time.
    """
    if not set_ and file is None and not any(each is not None for each in (provider, name, cron, timezone)):
        raise typer.BadParameter("nothing to change: name an option, a file or a provider", param_hint="--option")
    changed, whole = from_options(set_ or []), object_of(file) if file else None
    others = {"provider": provider, "name": name, "schedule": _schedule(cron, timezone)}
    patch = {key: value for key, value in others.items() if value}

    async def update_it(api: Client) -> tuple[Answer, dict[str, Any], Any]:
        now = await api.ask("GET", connector_path(connector))
        before = now.body["configuration"]
        merged = {**(before if whole is None else whole), **changed}
        wanted = located({key: value for key, value in merged.items() if value is not None}, now.body["kind"])
        different = change.patch_between(before, wanted)
        body = {**patch, **({"configuration": different} if different else {})}
        path = connector_path(now.body["id"])
        return now, different, await api.patch(path, body, etag=now.etag, params={"dry_run": dry_run})

    before, different, after = ask(update_it)
    if output is not Output.TABLE:
        print_data(output, after)
    else:
        told = cell(before.body.get("name"))
        note(f"connector {told} {'can be updated' if dry_run else 'updated; its worker starts it anew'}")
        if not dry_run and (advice := change.advice(told, different)):
            note(advice)
        _note_clock(after)
    warn_of_absence(after.get("configuration") or {}, str(after.get("kind")))


def delete(
    connector: NameArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Delete it: its worker stops it within seconds, and its name is free.

    Its runs, dead letters and payments stay: `till run list --connector NAME` goes on listing them. Prints with
    `-o json` what it was.
    """
    view = ask(lambda api: api.get(connector_path(connector)))
    name, kept = cell(view.get("name")), f"its {view.get('total_runs')} runs and its payments"
    if not dry_run:
        confirm(f"Delete connector {name}? {kept[0].upper()}{kept[1:]} stay.", yes=yes)
    ask(lambda api: api.delete(connector_path(str(view["id"])), params={"dry_run": dry_run}))
    if output is not Output.TABLE:
        print_data(output, view)
    elif dry_run:
        note(f"connector {name} would be deleted; {kept} would stay")
    else:
        note(f"connector {name} deleted; {kept} stay")


def pause(
    connector: NameArgument,
    why: Annotated[str, typer.Option("--note", help="Why; it is shown with it.")] = "",
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop it at a checkpoint, until it is resumed."""
    _switch(connector, "/pause", {"note": why, "by": user()}, output, dry_run=dry_run, now="paused")


def resume(connector: NameArgument, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """Let it go on where it stood."""
    _switch(connector, "/resume", {"by": user()}, output, dry_run=dry_run, now="active")


async def between(api: Client, wanted: str, from_: int | None, to: int | None) -> Any:  # a page of differences
    """What differs between two versions; else between the one in force and the one before."""
    view = await api.get(connector_path(wanted))
    last = int(view["version"]) if to is None else to
    first = max(0, last - 1) if from_ is None else from_
    return await api.get(connector_path(view["id"], "/versions/diff"), {"from": first, "to": last})


def user() -> str:
    """Who runs this command, as far as this machine knows."""
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError):  # a user without a name, as in a container
        return f"user {os.getuid()}"


def _switch(connector: str, below: str, body: dict[str, str], output: Output, *, dry_run: bool, now: str) -> None:
    view = ask(lambda api: api.post(connector_path(connector, below), body, params={"dry_run": dry_run}))
    if output is not Output.TABLE:
        print_data(output, view)
    else:
        note(f"connector {cell(view.get('name'))} {'would be' if dry_run else 'is'} {now}")


# an object of the API
def _note_clock(view: Mapping[str, Any]) -> None:
    if (view.get("schedule") or {}).get("cron"):
        name = cell(view.get("name"))
        note(f"it does not poll, and nothing here starts it by the clock: let yours call `till connector run {name!r}`")


def _schedule(cron: str | None, timezone: str | None) -> dict[str, Any]:
    """As far as it is named."""
    found: dict[str, Any] = {} if cron is None else {"cron": cron or None, "enabled": bool(cron)}
    return found if timezone is None else {**found, "timezone": timezone}


# JSON of any kind
def from_options(options: list[str]) -> dict[str, Any]:
    """The keys of `KEY=VALUE`s, whose values are JSON, or text."""
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
