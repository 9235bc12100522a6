"""The options of every command that prints rows, `--columns` and `--no-headers`, added to the tree of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import typer.main

from tillstream.cli.layout import LAYOUT
from tillstream.cli.option import ColumnsOption, NoHeadersOption
from tillstream.cli.output import Output

_HEEDED = (Output.TABLE, Output.CSV)


# Typer's commands are Click's, which it hides
def with_layout(root: Any) -> Any:
    """
    `root`, whose commands that print rows have the two options.

    A command that changes something has none: it would have changed it before it knew of a column that is not there.
    """
    for _, command in commands(root):
        defaults = {parameter.name: parameter.default for parameter in command.params}
        if isinstance(defaults.get("output"), Output) and "dry_run" not in defaults:
            command.params += _options()
            command.callback = _laid_out(command.callback)
    return root


def commands(group: Any, prefix: str = "till") -> Iterator[tuple[str, Any]]:
    """Every command below the group by its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _options() -> list[Any]:
    made = typer.Typer(add_completion=False)
    made.command()(_placeholder)
    found: list[Any] = [each for each in typer.main.get_command(made).params if each.name in {"columns", "no_headers"}]
    return found


def _placeholder(columns: ColumnsOption = None, no_headers: NoHeadersOption = False) -> None:
    """Never called: Typer makes the options from it."""


def _laid_out(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def run(*arguments: Any, columns: str | None, no_headers: bool, **options: Any) -> Any:
        if (columns is not None or no_headers) and Output(options["output"]) not in _HEEDED:
            raise typer.BadParameter("only a table and CSV have columns", param_hint="--columns, --no-headers")
        LAYOUT.columns = () if columns is None else tuple(name for name in columns.split(",") if name.strip())
        LAYOUT.headers = not no_headers
        return command(*arguments, **options)

    return run
