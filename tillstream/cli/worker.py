"""`till worker` and `till migrate`: what production runs."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tillstream.cli import context
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data


class WorkerRole(StrEnum):
    """As `tillstream.config.Role`, which is not imported for the help; a test holds them equal."""

    SINK = "sink"
    CONNECTOR = "connector"
    LETTERS = "letters"
    MONITOR = "monitor"
    API = "api"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("worker")(worker)
    app.command("migrate")(migrate)


def worker(role: Annotated[WorkerRole, typer.Argument(help="What this process does.")]) -> None:
    """
    Run one worker until SIGTERM or Ctrl-C.

    It waits for Kafka and PostgreSQL, and serves /metrics, /livez and /readyz.
    """
    from tillstream import wiring
    from tillstream.config import Role

    raise typer.Exit(wiring.work(Role(role.value), context.load().settings))


def migrate(dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """Bring PostgreSQL and Kafka to what this version expects. Safe to run twice."""
    from tillstream import wiring

    work = wiring.lacking if dry_run else wiring.prepare
    applied, created = context.run(work(context.settings()))
    if output is not Output.TABLE:
        print_data(output, {"migrations": applied, "topics": created, "dry_run": dry_run})
        return
    for each in applied:
        note(f"{'would apply' if dry_run else 'applied'} migration {each}")
    for each in created:
        note(f"{'would create' if dry_run else 'created'} topic {each}")
    if not applied and not created:
        note("nothing to do: database and topics are up to date")
