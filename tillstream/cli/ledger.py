"""`till ledger`: the proof, over the API."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, note, print_data
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing

if TYPE_CHECKING:
    from tillstream.cli.client import Client

group = typer.Typer(help="The proof that every record has exactly one fate.", no_args_is_help=True)

FINDINGS = Columns(
    {"hop": "hop", "run": "run", "subject": "subject", "problem": "problem", "awaiting": "awaiting"},
    ("hop", "run", "subject", "problem", "awaiting"),
)
_EVERY_S = 0.5


@group.callback()
def _group() -> None:
    """The proof that every record has exactly one fate."""


@group.command("verify")
def verify(
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for the sink and the letters, if they alone are missing."),
    ] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Check every run and hop: read, published, confirmed, stored, folded; rejected or dead, and listed.

    Ends with 0 if all balances, 8 if only the sink or the list of letters is awaited, 1 if something is wrong. JSON
    lines and CSV have the findings alone.
    """
    report = ask(lambda api: _checked(api, wait))
    findings = report["findings"]
    if output in {Output.JSON, Output.YAML}:
        print_data(output, report)
    elif findings or output is not Output.TABLE:
        listing = Listing(output, FINDINGS)
        listing.add(findings)
        listing.end()
    if output is Output.TABLE:
        note("the ledger balances" if report["balanced"] else f"{len(findings)} findings")
    if not report["balanced"]:
        raise typer.Exit(ExitStatus.FAILED if report["wrong"] else ExitStatus.PARTIAL)


# an object of the API
async def _checked(api: Client, wait_s: float) -> dict[str, Any]:
    until = time.monotonic() + wait_s
    while True:
        report: dict[str, Any] = await api.get("/ledger")
        if report["balanced"] or report["wrong"] or time.monotonic() >= until:
            return report
        await asyncio.sleep(_EVERY_S)
