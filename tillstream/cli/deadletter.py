"""`till deadletter`: records that could not go on."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import DryRunOption, LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from tillstream.control.letter import LetterView, Redriven

group = typer.Typer(help="Records that could not go on, whole and with the reason.", no_args_is_help=True)

StageOption = Annotated[str | None, typer.Option(help="Only letters of this stage: source or sink.")]
ReasonOption = Annotated[str | None, typer.Option(help="Only letters with this reason, such as invalid_amount.")]
ConnectorOption = Annotated[str | None, typer.Option(help="Only letters of this connector.")]
_SHOWN_BYTES = 2_000


@group.command("list")
def list_(
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Redriven ones too.")] = False,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List dead letters, the newest first."""
    views = context.run(_listed(stage, reason, connector, limit, all_states=all_))
    if output is Output.JSON:
        print_json([_json(view, whole=False) for view in views])
        return
    rows = [
        (v.letter.id[:12], v.letter.stage, v.letter.reason, v.letter.connector, _place(v), v.letter.message, v.redrives)
        for v in views
    ]
    print_table(
        ("letter", "stage", "reason", "connector", "place", "message", "redrives"), rows, empty="no dead letters"
    )


@group.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="The beginning of its id.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the record's bytes, and nothing else.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one dead letter, with its record."""
    view = context.run(_found(letter))
    if raw:
        import sys

        sys.stdout.buffer.write(view.letter.value_bytes() or b"")
    elif output is Output.JSON:
        print_json(_json(view, whole=True))
    else:
        value = (view.letter.value_bytes() or b"")[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        fields = [(key, value) for key, value in _json(view, whole=False).items() if value not in (None, "", [])]
        print_fields([*fields, ("record", value)])


@group.command("redrive")
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(help="Ids, or their beginnings.")] = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Every letter that was not redriven yet.")] = False,
    limit: LimitOption = 1_000,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Send dead letters through again, as a run of its own.

    A letter is redriven once the sink has confirmed that run.
    """
    if not (letters or stage or reason or connector or all_):
        raise typer.BadParameter("name letters, or choose them by --stage, --reason, --connector or --all")
    done = context.run(_redriven(letters or [], stage, reason, connector, limit, dry_run=dry_run))
    if output is Output.JSON:
        print_json({"run_id": done.run_id, "dry_run": dry_run, "sent": done.sent, "refused": done.refused})
    else:
        rows = [(each, "would be sent" if dry_run else "sent", "") for each in done.sent]
        rows += [(each.id, each.code, each.message + (f"; {each.hint}" if each.hint else "")) for each in done.refused]
        print_table(("letter", "result", "why"), rows, empty="no such letters")
        if done.run_id is not None:
            note(f"run {done.run_id}: see `till run show {str(done.run_id)[:8]}`")
    if done.refused:
        raise typer.Exit(ExitStatus.PARTIAL if done.sent else ExitStatus.CONFLICT)


async def _listed(
    stage: str | None, reason: str | None, connector: str | None, limit: int, *, all_states: bool
) -> list[LetterView]:
    from tillstream.control import letter as letters

    wanted = letters.Filter(stage=stage, reason=reason, connector=connector, all_states=all_states)
    async with context.pool(context.settings()) as pool:
        return await letters.list_letters(pool, wanted, limit=limit)


async def _found(wanted: str) -> LetterView:
    from tillstream.control import letter as letters

    async with context.pool(context.settings()) as pool:
        return await letters.show(pool, wanted)


async def _redriven(
    named: list[str], stage: str | None, reason: str | None, connector: str | None, limit: int, *, dry_run: bool
) -> Redriven:
    from tillstream.control import letter as letters

    chosen = context.settings()
    async with context.pool(chosen) as pool, context.producer(chosen) as (producer, topics):
        if named:
            ids = [(await letters.show(pool, each)).letter.id for each in named]
        else:
            wanted = letters.Filter(stage=stage, reason=reason, connector=connector)
            ids = [view.letter.id for view in await letters.list_letters(pool, wanted, limit=limit)]
        return await letters.redrive(pool, producer, topics, ids, triggered_by="CLI", dry_run=dry_run)


def _place(view: LetterView) -> str:
    letter = view.letter
    if letter.path:
        from pathlib import PurePath

        return f"{PurePath(letter.path).name}{f':{letter.line}' if letter.line else ''}"
    return f"{letter.topic}/{letter.partition}@{letter.offset}"


def _json(view: LetterView, *, whole: bool) -> dict[str, object]:
    body: dict[str, object] = view.letter.model_dump(mode="json")
    if not whole:
        for name in ("key", "value", "headers"):
            body.pop(name)
    return body | {"redriven": view.redriven, "redrives": view.redrives, "redrive_run_id": view.redrive_run_id}
