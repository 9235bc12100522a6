"""`till connector run|test|check|validate`: what a connector is made to do, or would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import complete, wait
from tillstream.cli import run as runs
from tillstream.cli.exit import ExitStatus
from tillstream.cli.file import documents_of
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_table
from tillstream.cli.path import connector_path
from tillstream.cli.remote import ask
from tillstream.cli.wait import TimeoutOption, WaitOption

if TYPE_CHECKING:
    from tillstream.cli.client import Client
    from tillstream.control.document import Document

NameArgument = Annotated[str, typer.Argument(help="Its name, id or number.", autocompletion=complete.connectors)]
FileOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="`connector.yaml`, a folder of them, or `-` for stdin. Repeatable.")
]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("run")(run)
    group.command("test")(try_out)
    group.command("check")(check)
    group.command("validate")(validate)


def run(  # noqa: PLR0917  Typer reads options from the signature
    connector: NameArgument,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", help="First day, in its zone.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], metavar="DAY", help="Last day, included.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Read again what is done; its events stay the same.")] = False,
    wait_: WaitOption = False,
    timeout: TimeoutOption = wait.PATIENCE_S,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Ask for a run, now; days make it a backfill. A worker begins it within seconds.

    With --wait: 0 SUCCESS, 8 PARTIAL_SUCCESS, 1 FAILED, 7 not within the timeout; it goes on by itself then, as it does
    after Ctrl-C. How it goes is told meanwhile, with `-o jsonl` a line for each change.
    """
    days = {name: each.date().isoformat() for name, each in (("since", since), ("until", until)) if each}
    body = {**days, "force": force}
    made = ask(lambda api: api.post(connector_path(connector, "/run"), body, params={"dry_run": dry_run}))
    runs.tell_asked(made, output, wait_s=timeout if wait_ and not dry_run else None, dry_run=dry_run)


def try_out(connector: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """
    Try its source for real, step by step, from where the API is: a TEST run, which publishes nothing.

    Exits with 1 if a step failed. Its status stays as it is.
    """
    tried = ask(lambda api: api.post(connector_path(connector, "/test")))
    if output is not Output.TABLE:
        print_data(output, tried)
    else:
        _print_steps([(connector, tried)])
        if tried.get("found"):
            note(f"found: {len(tried['found'])}")
    if not tried.get("ok"):
        raise typer.Exit(ExitStatus.FAILED)


def check(files: FileOption, output: OutputOption = Output.TABLE) -> None:
    """
    Try sources that files describe, step by step, from where the API is; nothing is saved and nothing published.

    Exits with 1 if a step failed. `till source check -f` tries from this machine.
    """
    described = documents_of(files)
    tried = ask(lambda api: _each(api, "/connectors:check", described))
    if output is not Output.TABLE:
        print_data(output, [{"connector": name, **each} for name, each in tried])
    else:
        _print_steps(tried)
    if not all(each.get("ok") for _, each in tried):
        raise typer.Exit(ExitStatus.FAILED)


def validate(files: FileOption, output: OutputOption = Output.TABLE) -> None:
    """
    See whether what files describe can be: every problem at once. No source is asked.

    Exits with 9 if something is wrong.
    """
    described = documents_of(files)
    judged = ask(lambda api: _each(api, "/connectors:validate", described))
    if output is not Output.TABLE:
        print_data(output, [{"connector": name, **each} for name, each in judged])
    else:
        rows = [
            (name, problem.get("field"), problem.get("message"))
            for name, each in judged
            for problem in each.get("problems", ())
        ]
        print_table(("connector", "key", "problem"), rows, empty="all of it can be")
    if not all(each.get("valid") for _, each in judged):
        raise typer.Exit(ExitStatus.CONFIG)


def described_body(document: Document) -> dict[str, Any]:
    """A described connector as the API takes it."""
    body = {"name": document.name, "kind": document.kind, "configuration": dict(document.configuration)}
    body |= {"provider": document.provider} if document.provider is not None else {}
    body |= {"status": document.status.value} if document.status is not None else {}
    return body | ({"schedule": asdict(document.schedule)} if document.schedule is not None else {})


async def _each(api: Client, path: str, described: Sequence[Document]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(document.name, await api.post(path, described_body(document))) for document in described]


# trials as the API tells them
def _print_steps(tried: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    rows = [
        (
            name,
            "ok" if step.get("ok") else "failed",
            step.get("name"),
            f"{step.get('duration_s', 0):.3f} s",
            step.get("detail") if step.get("ok") or not step.get("hint") else f"{step['detail']}; {step['hint']}",
        )
        for name, each in tried
        for step in each.get("steps", ())
    ]
    print_table(("connector", "", "step", "took", "detail"), rows)
