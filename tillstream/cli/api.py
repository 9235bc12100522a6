"""`till api`: the HTTP API's own description."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import typer

from tillstream.cli.option import DocumentOption
from tillstream.cli.output import DocumentOutput, Output, print_data

group = typer.Typer(help="The HTTP API, which `till up` and `till worker api` serve.", no_args_is_help=True)


@group.callback()
def options() -> None:
    """Hold the group together while it has one command."""


@group.command("openapi")
def openapi(output: DocumentOption = DocumentOutput.JSON) -> None:
    """Print its OpenAPI 3.1 document. Needs no server and no database."""
    from tillstream.api.app import document

    print_data(Output(output.value), document())
