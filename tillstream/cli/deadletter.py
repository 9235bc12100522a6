"""`till deadletter`: records that could not go on."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import DryRunOption, LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sinks.pool import Pool
    from tillstream.control.letter import Discarded, Filter, LetterView, Redriven, Refused

group = typer.Typer(help="Records that could not go on, whole and with the reason.", no_args_is_help=True)


class State(StrEnum):
    """As `tillstream.control.letter.LetterState`, which is not imported for the help; a test holds them equal."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ALL = "all"


LettersArgument = Annotated[list[str] | None, typer.Argument(help="Ids, or their beginnings.")]
StageOption = Annotated[str | None, typer.Option(help="Only letters of this stage: source or sink.")]
ReasonOption = Annotated[str | None, typer.Option(help="Only letters with this reason, such as invalid_amount.")]
ConnectorOption = Annotated[str | None, typer.Option(help="Only letters of this connector.")]
RunOption = Annotated[
    str | None, typer.Option(help="Only letters of this run: the beginning of its id, or its number.")
]
CorrectedOption = Annotated[
    bool, typer.Option("--corrected", help="Only letters of files that came again with other content since.")
]
MostOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only so many of them, the newest; else all of them.")
]
_SHOWN_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Letters by name, or else by what they are."""

    letters: Sequence[str] = ()
    stage: str | None = None
    reason: str | None = None
    connector: str | None = None
    run: str | None = None
    corrected: bool = False

    def __bool__(self) -> bool:
        return any((self.letters, self.stage, self.reason, self.connector, self.run, self.corrected))

    async def found(self, pool: Pool, limit: int, state: State = State.OPEN) -> list[LetterView]:
        from tillstream.control import letter

        if self.letters:
            return [await letter.show(pool, each) for each in self.letters]
        return await letter.list_letters(pool, await self._filter(pool, state), limit=limit)

    async def ids(self, pool: Pool, limit: int | None) -> list[str]:
        from tillstream.control import letter

        if self.letters:
            return [view.letter.id for view in await self.found(pool, len(self.letters))]
        return await letter.ids_of(pool, await self._filter(pool, State.OPEN), limit=limit)

    async def _filter(self, pool: Pool, state: State) -> Filter:
        from tillstream.control import letter, run

        if self.reason is not None:
            await _check_reason(pool, self.reason)
        return letter.Filter(
            stage=self.stage,
            reason=self.reason,
            connector=self.connector,
            state=None if state is State.ALL else letter.LetterState(state.value),
            run=None if self.run is None else (await run.find_run(pool, self.run)).id,
            corrected=self.corrected,
        )


async def _check_reason(pool: Pool, reason: str) -> None:
    """A reason that nobody gives is a slip; those of plugins and of foreign letters are known by their letters."""
    from tillstream.control import letter
    from tillstream.reason import reasons

    known = reasons()
    if reason not in known and not await letter.ids_of(pool, letter.Filter(reason=reason, state=None), limit=1):
        raise typer.BadParameter(f"{reason!r} is none of {', '.join(known)}", param_hint="--reason")


@group.command("list")
def list_(
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    state: Annotated[State, typer.Option(help="Only letters in this state.")] = State.OPEN,
    corrected: CorrectedOption = False,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List dead letters, the newest first; those that nobody has redriven or discarded, unless told otherwise."""
    views = context.run(_listed(_Wanted((), stage, reason, connector, run, corrected), limit, state))
    if output is not Output.TABLE:
        print_data(output, [_json(view, whole=False) for view in views])
        return
    rows = [
        (v.letter.id[:12], v.letter.stage, v.letter.reason, v.letter.connector, _place(v), v.letter.message, _state(v))
        for v in views
    ]
    print_table(("letter", "stage", "reason", "connector", "place", "message", "state"), rows, empty="no dead letters")


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
    elif output is not Output.TABLE:
        print_data(output, _json(view, whole=True))
    else:
        value = (view.letter.value_bytes() or b"")[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        fields = [(key, value) for key, value in _json(view, whole=False).items() if value not in (None, "", [])]
        print_fields([*fields, ("record", value)])


@group.command("redrive")
def redrive(
    letters: LettersArgument = None,
    stage: StageOption = None,
    reason: ReasonOption = None,
    connector: ConnectorOption = None,
    run: RunOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Every open letter.")] = False,
    limit: MostOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Send dead letters through again, as a run of its own.

    A letter is redriven once the sink has confirmed that run.
    """
    wanted = _Wanted(letters or (), stage, reason, connector, run)
    if not (wanted or all_):
        raise typer.BadParameter("name letters, or choose them by --stage, --reason, --connector, --run or --all")
    done = context.run(_redriven(wanted, limit, dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"run_id": done.run_id, "dry_run": dry_run, "sent": done.sent, "refused": done.refused})
    else:
        rows = [(each, "would be sent" if dry_run else "sent", "") for each in done.sent]
        print_table(("letter", "result", "why"), rows + _told(done.refused), empty="no such letters")
        if done.run_id is not None:
            note(f"run {done.run_id}: see `till run show {str(done.run_id)[:8]}`")
    if done.refused:
        raise typer.Exit(ExitStatus.PARTIAL if done.sent else ExitStatus.CONFLICT)


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
    wanted = _Wanted(letters or (), stage, reason, connector, run, corrected)
    if not wanted:
        raise typer.BadParameter("name letters, or choose them by --stage, --reason, --connector, --run or --corrected")
    done = context.run(_discarded(wanted, limit, note_, by or _user(), dry_run=dry_run))
    if output is not Output.TABLE:
        print_data(output, {"dry_run": dry_run, "discarded": done.done, "known": done.known, "refused": done.refused})
    else:
        rows = [(each, "would be discarded" if dry_run else "discarded", "") for each in done.done]
        rows += [(each, "was discarded before", "") for each in done.known]
        print_table(("letter", "result", "why"), rows + _told(done.refused), empty="no such letters")
    if done.refused:
        raise typer.Exit(ExitStatus.PARTIAL if done.done or done.known else ExitStatus.CONFLICT)


async def _listed(wanted: _Wanted, limit: int, state: State) -> list[LetterView]:
    async with context.pool(context.settings()) as pool:
        return await wanted.found(pool, limit, state)


async def _found(wanted: str) -> LetterView:
    from tillstream.control import letter

    async with context.pool(context.settings()) as pool:
        return await letter.show(pool, wanted)


async def _redriven(wanted: _Wanted, limit: int | None, *, dry_run: bool) -> Redriven:
    from tillstream.control import letter

    chosen = context.settings()
    async with context.pool(chosen) as pool, context.producer(chosen) as (producer, topics):
        ids = await wanted.ids(pool, limit)
        return await letter.redrive(pool, producer, topics, ids, triggered_by="CLI", dry_run=dry_run)


async def _discarded(wanted: _Wanted, limit: int | None, note_: str, by: str, *, dry_run: bool) -> Discarded:
    from tillstream.control import letter

    async with context.pool(context.settings()) as pool:
        ids = await wanted.ids(pool, limit)
        return await letter.discard(pool, ids, note=note_, by=by, dry_run=dry_run)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        import os

        return f"user {os.getuid()}"


def _told(refused: Sequence[Refused]) -> list[tuple[str, str, str]]:
    return [(each.id, each.code, each.message + (f"; {each.hint}" if each.hint else "")) for each in refused]


def _place(view: LetterView) -> str:
    letter = view.letter
    if letter.path and "://" not in letter.path:
        from pathlib import PurePath

        return f"{PurePath(letter.path).name}{f':{letter.line}' if letter.line else ''}"
    if letter.offset is None:  # it never was in a topic
        return f"{letter.source_object} {letter.position}".strip()
    return f"{letter.topic}/{letter.partition}@{letter.offset}"


def _state(view: LetterView) -> str:
    if view.discarded_at is not None:
        return f"{view.state} by {view.discarded_by}: {view.discard_note}"
    return (
        f"{view.state}, sent again {view.redrives} times" if view.redrives and view.redriven_at is None else view.state
    )


def _json(view: LetterView, *, whole: bool) -> dict[str, object]:
    body: dict[str, object] = view.letter.model_dump(mode="json")
    if not whole:
        for name in ("key", "value", "headers"):
            body.pop(name)
    names = ("state", "redrives", "redrive_run_id", "redriven_at", "discarded_at", "discarded_by", "discard_note")
    return body | {name: getattr(view, name) for name in names}
