"""`till version` and `till config show`."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from typing import Annotated

import typer

from tillstream.cli import context
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, print_data, print_fields, print_table

config_group = typer.Typer(help="The settings in force.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("version")(version)


def version(output: OutputOption = Output.TABLE) -> None:
    """Print the version of Tillstream and of what it stands on."""
    import platform
    from importlib.metadata import version as of

    packages = ("tillstream", "faust-streaming", "aiokafka", "asyncpg")
    facts = {name: of(name) for name in packages} | {"python": platform.python_version()}
    if output is not Output.TABLE:
        print_data(output, facts)
    else:
        print_fields(list(facts.items()))


@config_group.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Tell where each value comes from.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print every setting, secrets masked."""
    rows = list(context.load().shown())
    if output is not Output.TABLE:
        told = {key: {"value": value, "origin": place} if origin else value for key, value, place in rows}
        names = ("setting", "value", "origin") if origin else ("setting", "value")
        print_data(output, told, rows=[dict(zip(names, row, strict=False)) for row in rows], fields=names)
    elif origin:
        print_table(("setting", "value", "origin"), rows)
    else:
        print_table(("setting", "value"), [(key, value) for key, value, _ in rows])
