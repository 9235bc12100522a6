"""`till replay`: the log against the tables."""
# ruff: noqa: PLC0415  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, note, print_data, print_table

if TYPE_CHECKING:
    from tillstream.control.replay import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    since: Annotated[str, typer.Option("--from", help="First instant, ISO 8601 with offset, or a date (UTC).")] = "",
    until: Annotated[str, typer.Option("--to", help="The instant after the last.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Insert what is missing, and fold again.")] = False,
    deadline: Annotated[float, typer.Option(min=0, help="Seconds to wait for the live sink to pass the range.")] = 300,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Read the log again beside the live sink, and compare the result with the tables.

    Deletes nothing and publishes nothing. Ends with 0 if they agree, or agree after --apply.
    """
    report = context.run(_replayed(_instant(since, "--from"), _instant(until, "--to"), deadline, apply=apply))
    if output is not Output.TABLE:
        print_data(output, _json(report))
    else:
        _print(report)
    if report.left:
        raise typer.Exit(ExitStatus.FAILED)


async def _replayed(since: datetime | None, until: datetime | None, deadline_s: float, *, apply: bool) -> Report:
    from tillstream.control import replay as service
    from tillstream.wiring import topics_of

    chosen = context.settings()
    dsn = chosen.postgres.dsn.get_secret_value()
    source = service.Source(chosen.kafka.bootstrap, topics_of(chosen).events.name, dsn)
    return await service.replay(source, since=since, until=until, apply=apply, deadline_s=deadline_s)


def _instant(text: str, option: str) -> datetime | None:
    if not text:
        return None
    try:
        if len(text) == len("2025-01-10"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 instant, such as 2025-01-10T12:00:00Z", param_hint=option
        ) from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} names no offset; add Z for UTC", param_hint=option)
    return at


def _json(report: Report) -> dict[str, object]:
    replayed = report.replayed
    return {
        "topic": report.range.topic,
        "starts": report.range.starts,
        "ends": report.range.ends,
        "records": replayed.records,
        "dead": replayed.dead,
        "equal": not report.differences,
        "differences": report.differences,
        "mended": report.mended,
        "left": report.left,
    }


def _print(report: Report) -> None:
    if report.differences:
        rows = [(each.problem, each.subject, each.run) for each in report.differences]
        print_table(("difference", "subject", "run"), rows)
    note(f"read {report.replayed.records} records again: {len(report.differences)} differences")
    if report.mended is not None:
        done = report.mended
        note(f"mended: {done.events} events, {done.payments} payments; {len(report.left)} differences left")
    elif report.differences:
        note("mend them with --apply")
