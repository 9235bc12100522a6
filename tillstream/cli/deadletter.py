"""`till deadletter`: records that could not go on, over the API."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import complete, wait
from tillstream.cli.connector_edit import user
from tillstream.cli.exit import ExitStatus
from tillstream.cli.instant import seconds
from tillstream.cli.letters import Wanted, act
from tillstream.cli.option import AfterOption, DryRunOption, LimitOption, OutputOption
from tillstream.cli.output import Output, cell, note, print_data, print_table
from tillstream.cli.place import place_of
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing, list_rows, page_of, print_one
from tillstream.cli.wait import TimeoutOption, WaitOption

if TYPE_CHECKING:
    from tillstream.cli.client import Client

group = typer.Typer(help="Records that could not go on, whole and with the reason.", no_args_is_help=True)


class State(StrEnum):
    """As `tillstream.control.letter.LetterState`, which is not imported for the help; a test holds them equal."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ALL = "all"


LettersArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids, or their beginnings.", autocompletion=complete.letters)
]
StageOption = Annotated[str | None, typer.Option(help="Only letters of this stage: source or sink.")]
ReasonOption = Annotated[str | None, typer.Option(help="Only letters with this reason, such as invalid_amount.")]
ConnectorOption = Annotated[
    str | None, typer.Option(help="Only letters of this connector.", autocompletion=complete.connectors)
]
RunOption = Annotated[
    str | None,
    typer.Option(
        help="Only letters of this run: the beginning of its id, or its number.", autocompletion=complete.runs
    ),
]
StateOption = Annotated[State, typer.Option(help="Only letters in this state.")]
CorrectedOption = Annotated[
    bool, typer.Option("--corrected", help="Only letters of files that came again with other content since.")
]
MostOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only so many of them, the newest; else all of them.")
]
_SHOWN_BYTES = 2_000

_FIELDS = (
    *("id", "stage", "reason", "message", "hint", "attempts", "failed_at", "event_id", "run_id", "connector_id"),
    *("connector", "topic", "partition", "offset", "path", "position", "line", "source_object", "size_bytes"),
    *("truncated", "sqlstate", "state", "redrives", "redrive_run_id", "redriven_at", "discarded_at", "discarded_by"),
    "discard_note",
)


# an object of the API
def _state(row: Mapping[str, Any]) -> str:
    if row["discarded_at"] is not None:
        return f"{row['state']} by {row['discarded_by']}: {row['discard_note']}"
    if row["redrives"] and row["redriven_at"] is None:
        return f"{row['state']}, sent again {row['redrives']} times"
    return str(row["state"])


LETTERS = Columns(
    {
        "letter": lambda row: row["id"][:12],
        "stage": "stage",
        "reason": "reason",
        "connector": "connector",
        "place": place_of,
        "message": "message",
        "state": _state,
    },
    _FIELDS,
)
WHOLE = (*_FIELDS, "key", "value", "headers", "sha256")
GROUPS = Columns(
    {
        "letters": "letters",
        "stage": "stage",
        "reason": "reason",
        "connector": "connector",
        "since": lambda row: seconds(row["first_at"]),
        "last": lambda row: seconds(row["last_at"]),
        "newest": lambda row: row["last_id"][:12],
        "message": "message",
    },
    (
        *("stage", "reason", "connector", "connector_id", "letters", "first_at", "last_at", "last_id"),
        *("message", "hint"),
    ),
)


@group.command("list")
def list_(
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    state: StateOption = State.OPEN,
    corrected: CorrectedOption = False,
    after: AfterOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List dead letters, the newest first; those that nobody has redriven or discarded, unless told otherwise."""
    wanted, listing = (
        Wanted((), stage, reason, connector, run, corrected),
        Listing(output, LETTERS, empty="no dead letters"),
    )

    async def work(api: Client) -> None:
        params = {**await wanted.filters(api), "state": state.value}
        await list_rows(api, "/dead-letters", params, listing, limit=limit, after=after)

    ask(work)


@group.command("groups")
def groups(
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    state: StateOption = State.OPEN,
    corrected: CorrectedOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Count dead letters by what they died of, the most first: stage, reason and connector; 200 groups at most."""
    wanted = Wanted((), stage, reason, connector, run, corrected)

    # rows of the API
    async def work(api: Client) -> list[dict[str, Any]]:
        params = {**await wanted.filters(api), "state": state.value}
        return (await page_of(api, "/dead-letters/groups", params))[0]

    listing = Listing(output, GROUPS, empty="no dead letters")
    listing.add(ask(work))
    listing.end()


@group.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="The beginning of its id.", autocompletion=complete.letters)],
    raw: Annotated[bool, typer.Option("--raw", help="Write the record's bytes, and nothing else.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one dead letter, with its record; as JSON its bytes are base64."""
    from tillstream.cli.path import part

    found = ask(lambda api: api.get(f"/dead-letters/{part(letter)}"))
    value = base64.b64decode(found["value"] or "")
    if raw:
        sys.stdout.buffer.write(value)
        sys.stdout.flush()
        return
    fields = [(name, found[name]) for name in _FIELDS if found[name] not in (None, "", [])]
    record = value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    print_one(output, found, WHOLE, [*fields, ("record", record)])


@group.command("redrive")
def redrive(
    letters: LettersArgument = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Every open letter.")] = False,
    limit: MostOption = None,
    wait_: WaitOption = False,
    timeout: TimeoutOption = wait.PATIENCE_S,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Send dead letters through again, as a run of its own.

    A letter is redriven once the sink has confirmed that run. More than 10 000 are several runs: `run_ids` in JSON.
    With --wait: 0 SUCCESS, 8 PARTIAL_SUCCESS or some refused, 1 FAILED, 7 not within the timeout; it goes on then.
    """
    wanted = Wanted(letters or (), stage, reason, connector, run)
    if not (wanted or all_):
        raise typer.BadParameter("name letters, or choose them by --stage, --reason, --connector, --run or --all")
    done = ask(lambda api: act(api, "redrive", wanted, {"triggered_by": "CLI"}, limit=limit, dry_run=dry_run))
    runs = done.get("run_ids", [done["run_id"]] if done["run_id"] else [])
    if output is not Output.TABLE:
        print_data(output, done)
    else:
        rows = [(each, "would be sent" if dry_run else "sent", "") for each in done["sent"]]
        print_table(("letter", "result", "why"), rows + _told(done["refused"]), empty="no such letters")
        for each in () if wait_ else runs:
            note(f"run {cell(each)}: see `till run show {cell(each[:8])}`")
    for each in runs if wait_ else ():
        wait.to_its_end(each, timeout_s=timeout, output=Output.TABLE)  # which prints no data
    if done["refused"]:
        raise typer.Exit(ExitStatus.PARTIAL if done["sent"] else ExitStatus.CONFLICT)


@group.command("discard")
def discard(
    note_: Annotated[str, typer.Option("--note", help="Why nothing more is to be done about them.")],
    letters: LettersArgument = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    corrected: CorrectedOption = False,
    by: Annotated[str, typer.Option(help="Who says so; else whoever runs this command.")] = "",
    limit: MostOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Let dead letters go, for good, with a note: such as rows that a corrected file has mended.

    They stay listed as discarded, and no count changes. Discarding one again changes nothing.
    """
    wanted = Wanted(letters or (), stage, reason, connector, run, corrected)
    if not wanted:
        raise typer.BadParameter("name letters, or choose them by --stage, --reason, --connector, --run or --corrected")
    more = {"note": note_, "by": by or user()}
    done = ask(lambda api: act(api, "discard", wanted, more, limit=limit, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, done)
    else:
        rows = [(each, "would be discarded" if dry_run else "discarded", "") for each in done["discarded"]]
        rows += [(each, "was discarded before", "") for each in done["known"]]
        print_table(("letter", "result", "why"), rows + _told(done["refused"]), empty="no such letters")
    if done["refused"]:
        raise typer.Exit(ExitStatus.PARTIAL if done["discarded"] or done["known"] else ExitStatus.CONFLICT)


# objects of the API, here and below
def _told(refused: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (each["id"], each["code"], each["message"] + (f"; {each['hint']}" if each["hint"] else "")) for each in refused
    ]
