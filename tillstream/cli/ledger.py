"""`till ledger`: the proof, over the API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli.exit import ExitStatus
from tillstream.cli.instant import seconds
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
    _print(ask(lambda api: _checked(api, wait)), output)


@group.command("show")
def show(output: OutputOption = Output.TABLE) -> None:
    """
    Show the last proof that was made, and when; `verify` makes a new one.

    Ends as `verify` does, and with 8 if nobody ever verified.
    """
    _print(ask(lambda api: api.get("/ledger")), output)


# objects of the API, here and below
def _print(report: Mapping[str, Any], output: Output) -> None:
    findings = report["findings"]
    if output in {Output.JSON, Output.YAML}:
        print_data(output, report)
    elif findings or output is not Output.TABLE:
        listing = Listing(output, FINDINGS)
        listing.add(findings)
        listing.end()
    if output is Output.TABLE:
        note(_verdict(report))
    if not report["balanced"]:
        raise typer.Exit(ExitStatus.FAILED if report["wrong"] else ExitStatus.PARTIAL)


def _verdict(report: Mapping[str, Any]) -> str:
    if report["balanced"] is None:
        return "nobody has verified the ledger yet: `till ledger verify`"
    told = "the ledger balances" if report["balanced"] else f"{len(report['findings'])} findings"
    return f"{told}, as of {seconds(report['began_at'])}"


async def _checked(api: Client, wait_s: float) -> dict[str, Any]:
    until = time.monotonic() + wait_s
    while True:
        report: dict[str, Any] = await api.post("/ledger:verify")
        if report["balanced"] or report["wrong"] or time.monotonic() >= until:
            return report
        await asyncio.sleep(_EVERY_S)
