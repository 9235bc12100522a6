"""`till run`: executions of connectors."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.option import LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table

if TYPE_CHECKING:
    from tillstream.control.run import RunView

group = typer.Typer(help="Executions of connectors, and what became of their records.", no_args_is_help=True)

_COUNTS = ("read", "published", "rejected", "filtered", "applied", "duplicate", "dead")


@group.command("list")
def list_(
    connector: Annotated[str | None, typer.Option(help="Only runs of this connector.")] = None,
    limit: LimitOption = 30,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, the newest first."""
    runs = context.run(_listed(connector, limit))
    if output is not Output.TABLE:
        print_data(output, runs)
        return
    rows = [
        (str(each.id)[:8], each.connector, each.type, _status(each), each.started_at, *_counted(each), each.reason)
        for each in runs
    ]
    print_table(("run", "connector", "type", "status", "started", *_COUNTS, "reason"), rows, empty="no runs yet")


@group.command("show")
def show(
    run: Annotated[str, typer.Argument(help="The beginning of its id, or its number.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one run."""
    found = context.run(_found(run))
    if output is not Output.TABLE:
        print_data(output, found)
        return
    print_fields(
        [
            ("run", found.id),
            ("number", found.number),
            ("connector", found.connector),
            ("type", found.type),
            ("triggered by", found.triggered_by),
            ("status", _status(found)),
            ("reason", found.reason),
            ("note", found.note),
            ("started", found.started_at),
            ("completed", found.completed_at),
            ("seconds", found.duration_s),
            *zip(_COUNTS, _counted(found), strict=True),
            ("skipped", found.skipped),
        ]
    )


@group.command("cancel")
def cancel(
    run: Annotated[str, typer.Argument(help="The beginning of its id, or its number.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """
    End a run that was asked for: FAILED, cancelled. What was published of it stays.

    A worker that reads it stops within seconds; its connector goes on.
    """
    found, at_once = context.run(_cancelled(run))
    if output is not Output.TABLE:
        print_data(output, {"id": found.id, "ended": at_once})
    else:
        note(f"run {found.id} {'is cancelled' if at_once else 'is being cancelled: its worker ends it within seconds'}")


async def _cancelled(wanted: str) -> tuple[RunView, bool]:
    from tillstream.control import request as requests
    from tillstream.control import run as runs

    async with context.pool(context.settings()) as pool:
        found = await runs.find_run(pool, wanted)
        return found, await requests.cancel(pool, found)


async def _listed(connector: str | None, limit: int) -> list[RunView]:
    from tillstream.control import connector as connectors
    from tillstream.control import run as runs

    async with context.pool(context.settings()) as pool:
        wanted = (await connectors.find_ever(pool, connector)).id if connector else None
        return await runs.list_runs(pool, connector_id=wanted, limit=limit)


async def _found(wanted: str) -> RunView:
    from tillstream.control import run as runs

    async with context.pool(context.settings()) as pool:
        return await runs.find_run(pool, wanted)


def _status(view: RunView) -> str:
    waits = "awaiting sink" if view.awaiting_sink else "awaiting a worker" if view.waiting else ""
    return f"{view.status.value} ({waits})" if waits else view.status.value


def _counted(view: RunView) -> tuple[int, ...]:
    return tuple(getattr(view, name) for name in _COUNTS)
