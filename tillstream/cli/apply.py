"""`till apply|diff|export`: connectors as files."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import change, complete
from tillstream.cli.connector_run import FileOption, described_body
from tillstream.cli.exit import ExitStatus
from tillstream.cli.file import documents_of, warn_of_absence
from tillstream.cli.option import DocumentOption, DryRunOption, OutputOption
from tillstream.cli.output import DocumentOutput, Output, note, print_data, print_lines
from tillstream.cli.path import connector_path
from tillstream.cli.problem import ApiProblem, FieldProblem
from tillstream.cli.remote import ask

if TYPE_CHECKING:
    from tillstream.cli.client import Client
    from tillstream.control.document import Document

_PLACE = re.compile(r"connectors\.([0-9]+)", re.ASCII)
_MASK = "***"

# what the API tells of one described connector
Applied = Mapping[str, Any]


def register(app: typer.Typer, connector: typer.Typer) -> None:
    """Add the commands, and `till connector apply`, which is the same as `till apply`."""
    app.command("apply")(apply)
    app.command("diff")(diff)
    app.command("export")(export)
    connector.command("apply")(apply)


def apply(files: FileOption, dry_run: DryRunOption = False, output: OutputOption = Output.TABLE) -> None:
    """
    Bring connectors to what files describe: create, change, pause or resume them; all or none.

    Prints what is other than before, key by key. Of a folder, every `*.yaml`, `*.yml` and `*.json` in it is read. A
    watched folder's path is relative to the file that names it.
    """
    described = documents_of(files)
    done = _applied(described, dry_run=dry_run)
    if output is not Output.TABLE:
        print_data(output, done, rows=done.get("connectors", ()))
    else:
        for each in done.get("connectors", ()):
            print_lines(change.lines_of(each, dry_run=dry_run))
            if not dry_run and (advice := change.advice(str(each.get("name")), change.keys_of(each))):
                note(advice)
    for document in described:
        warn_of_absence(document.configuration, document.kind)


def diff(files: FileOption, output: OutputOption = Output.TABLE) -> None:
    """
    Tell what `till apply` would change, key by key, and change nothing.

    Ends with 0 if all is as described, with 1 if something is not.
    """
    done = _applied(documents_of(files), dry_run=True)
    other = [each for each in done.get("connectors", ()) if each.get("change") != "unchanged"]
    if output is not Output.TABLE:
        print_data(output, done, rows=done.get("connectors", ()))
    else:
        for each in other:
            print_lines(change.lines_of(each, dry_run=True))
        if not other:
            note("all is as described")
    if other:
        raise typer.Exit(ExitStatus.FAILED)


def export(
    connectors: Annotated[
        list[str] | None,
        typer.Argument(help="Their names, ids or numbers; else all.", autocompletion=complete.connectors),
    ] = None,
    output: DocumentOption = DocumentOutput.YAML,
) -> None:
    """
    Print connectors as `till apply -f -` takes them. Applied where they come from, they change nothing.

    Secrets are references, `${file:…}` or `${env:…}`: what they stand for is brought by other means.
    """
    from tillstream.control.document import dumped

    views = ask(lambda api: _found(api, connectors or []))
    told = [_described(view) for view in views]
    if output is DocumentOutput.YAML:
        print_lines(dumped(told).splitlines())
    else:
        print_data(Output(output.value), told)
    for each in told:
        if _is_masked(each["configuration"]):
            note(
                f"warning: the configuration of {each['name']} spells a secret, which is left out here as {_MASK}: "
                "put a reference in its place"
            )


def _applied(described: Sequence[Document], *, dry_run: bool) -> Applied:
    body = {"connectors": [described_body(each) for each in described]}
    try:
        found: Applied = ask(lambda api: api.post("/connectors:apply", body, params={"dry_run": dry_run}))
    except ApiProblem as exc:
        raise _placed(exc, described) from exc
    return found


def _placed(problem: ApiProblem, described: Sequence[Document]) -> ApiProblem:
    """The same, with the places of files instead of those of what was sent."""

    def place(match: re.Match[str]) -> str:
        number = int(match[1]) if len(match[1]) < 6 else len(described)
        return described[number].place if number < len(described) else match[0]

    return ApiProblem(
        _PLACE.sub(place, str(problem)),
        status=problem.status,
        code=problem.code,
        hint=problem.hint,
        is_retryable=problem.is_retryable,
        fields=[FieldProblem(_PLACE.sub(place, each.field), each.message) for each in problem.fields],
    )


async def _found(api: Client, wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    if not wanted:
        return list(await api.rows("/connectors"))
    return [await api.get(connector_path(each)) for each in wanted]


# a connector as the API tells it, and as a file describes it
def _described(view: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "kind", "provider", "status", "schedule", "configuration")
    found = {name: view[name] for name in names if view.get(name) is not None}
    # FAILED is how one fares that is wanted active
    return found | ({"status": "ACTIVE"} if found.get("status") == "FAILED" else {})


# any JSON
def _is_masked(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_masked(each) for each in value.values())
    if isinstance(value, list):
        return any(_is_masked(each) for each in value)
    return isinstance(value, str) and value == _MASK
