"""`till context`: the APIs that commands may ask, by names of one's own."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from schemas.errors import ConfigError, Conflict
from tillstream.cli import address, complete, contextfile
from tillstream.cli.contextfile import Contexts
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table
from tillstream.cli.problem import ApiUnavailable
from tillstream.cli.url import checked_url, is_plain

group = typer.Typer(help="The APIs that commands may ask, by names of one's own.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="A name of your choice.")]
_FIELDS = ("name", "url", "current")
KnownArgument = Annotated[str, typer.Argument(help="Its name.", autocompletion=complete.contexts)]


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """List the contexts; the current one is meant where no flag, no variable and no home says otherwise."""
    found = contextfile.read(contextfile.path_of(os.environ))
    told = [{"name": name, "url": url, "current": name == found.current} for name, url in found.urls.items()]
    if output is not Output.TABLE:
        print_data(output, told, fields=_FIELDS)
        return
    rows = [(each["name"], each["url"], "yes" if each["current"] else "") for each in told]
    print_table(("context", "url", "current"), rows, empty="no contexts yet: `till context add --help`")


@group.command("show")
def show(output: OutputOption = Output.TABLE) -> None:
    """Show which API commands ask, and why that one. Asks nothing itself."""
    path = contextfile.path_of(os.environ)
    try:
        meant = address.finder()()
    except ApiUnavailable as exc:
        told = {"url": None, "origin": str(exc), "file": str(path)}
    else:
        told = {"url": meant.url, "origin": meant.origin, "file": str(path)}
    if output is not Output.TABLE:
        print_data(output, told)
    else:
        print_fields(list(told.items()))


@group.command("add")
def add(
    name: NameArgument,
    url: Annotated[str, typer.Argument(help="Its address, such as https://till.example; no user, no password.")],
    use_: Annotated[bool, typer.Option("--use", help="Make it the current one; the first is by itself.")] = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Add a context. Asks nothing of its API."""
    if problem := contextfile.name_problem(name):
        raise ConfigError(f"a context's name {problem}", hint="choose another name")
    wanted = checked_url(url, place="URL")

    def change(now: Contexts) -> Contexts:
        if now.urls.get(name, wanted) != wanted:
            raise Conflict(
                f"context {name!r} is {now.urls[name]} already", hint=f"remove it first: `till context remove {name}`"
            )
        return Contexts({**now.urls, name: wanted}, name if use_ or not now.urls else now.current)

    now = _changed(change, dry_run=dry_run)
    if is_plain(wanted):
        note(f"warning: {wanted} is neither https nor this machine: what is sent can be read on the way")
    _tell(now, name, "would be added" if dry_run else "added", output)


@group.command("use")
def use(name: KnownArgument, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """Make a context the current one."""

    def change(now: Contexts) -> Contexts:
        now.url_of(name)
        return replace(now, current=name)

    _tell(_changed(change, dry_run=dry_run), name, "would be the current one" if dry_run else "is current", output)


@group.command("remove")
def remove(name: KnownArgument, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """Forget a context; if it was the current one there is none then."""

    def change(now: Contexts) -> Contexts:
        now.url_of(name)
        left = {each: url for each, url in now.urls.items() if each != name}
        return Contexts(left, "" if now.current == name else now.current)

    _tell(_changed(change, dry_run=dry_run), name, "would be removed" if dry_run else "removed", output)


def _changed(change: contextfile.Change, *, dry_run: bool) -> Contexts:
    path = contextfile.path_of(os.environ)
    return change(contextfile.read(path)) if dry_run else contextfile.changed(path, change)


def _tell(now: Contexts, name: str, done: str, output: Output) -> None:
    if output is not Output.TABLE:
        print_data(output, {"name": name, "url": now.urls.get(name), "current": now.current == name})
    else:
        note(f"context {name} {done}")
