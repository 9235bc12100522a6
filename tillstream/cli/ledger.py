"""`till ledger`: the proof."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, note, print_data, print_table

if TYPE_CHECKING:
    from tillstream.control.ledger import Report

group = typer.Typer(help="The proof that every record has exactly one fate.", no_args_is_help=True)


@group.callback()
def _group() -> None:
    """A group even while it has one command."""


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

    Ends with 0 if all balances, 8 if only the sink or the list of letters is awaited, 1 if something is wrong.
    """
    report = context.run(_checked(wait))
    if output is not Output.TABLE:
        names = ("hop", "run", "subject", "problem", "awaiting")
        findings = [{name: getattr(each, name) for name in names} for each in report.findings]
        print_data(output, {"balanced": report.balanced, "findings": findings})
    else:
        rows = [(each.hop, each.run, each.subject, each.problem, each.awaiting) for each in report.findings]
        if rows:
            print_table(("hop", "run", "subject", "problem", "awaiting"), rows)
        note("the ledger balances" if report.balanced else f"{len(rows)} findings")
    if not report.balanced:
        raise typer.Exit(ExitStatus.FAILED if report.wrong else ExitStatus.PARTIAL)


async def _checked(wait_s: float) -> Report:
    from tillstream.control import ledger
    from tillstream.wiring import unlisted_of

    chosen = context.settings()
    async with context.pool(chosen) as pool:
        return await ledger.check(pool, wait_s=wait_s, unlisted=unlisted_of(chosen))
