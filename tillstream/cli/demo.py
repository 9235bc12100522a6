"""`till demo`: everything at once, on the samples."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, note, print_data, print_table

if TYPE_CHECKING:
    from sinks.read import PaymentDetail
    from tillstream.config import Loaded
    from tillstream.demo import Demonstration

_FATES = {
    "read": "read",
    "published": "published",
    "rejected": "rejected",
    "filtered": "filtered",
    "applied": "applied",
    "of which stale": "stale",
    "duplicate": "duplicate",
    "dead": "dead",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop everything once the samples are through.")] = False,
    samples: Annotated[Path | None, typer.Option(help="Folder of files to drop; else the project's samples.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Start the stack, let it read a folder, a bank, a gateway and a database, and show what became of every record.

    Without --once the partners go on, so that there is something to watch. Ends with 0 only if the ledger balances.
    """
    started_s = time.monotonic()
    loaded = context.load()
    context.quieten()
    note(f"home {loaded.settings.home}")
    balanced = context.run(_interruptible(_shown(loaded, samples, started_s, output, once=once)))
    if not balanced:
        raise typer.Exit(ExitStatus.FAILED)


async def _shown(loaded: Loaded, samples: Path | None, started_s: float, output: Output, *, once: bool) -> bool:
    from tillstream.cli.stack import Changes, Teller
    from tillstream.demo import demonstrate

    showing = demonstrate(
        loaded,
        samples=samples,
        started_s=started_s,
        once=once,
        tell=note,
        observer=Teller(loaded.settings.home),
        partner_observer=Changes(),
    )
    async with showing as shown:
        if output is not Output.TABLE:
            print_data(output, shown.counts)
        else:
            _print(shown, once=once)
        sys.stdout.flush()
        if not once:
            stays = "the partners go on, and so does the stack" if shown.joined else "the stack stays up"
            note(f"\n{stays}; Ctrl-C stops {'them' if shown.joined else 'it'}")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        note("stopping the partners" if shown.joined else "stopping")
    if shown.joined:
        goes_on = "" if once else f", and connector {shown.connector} watches {shown.folder}"
        note(f"the stack goes on{goes_on}")
    return shown.counts.balanced


def _print(shown: Demonstration, *, once: bool) -> None:
    counts = shown.counts
    sys.stdout.write("\nPayments\n")
    _print_payments(shown.payments)
    sys.stdout.write("\nDead letters\n")
    rows = [
        (each.id[:12], each.stage, each.reason, _place(each.path, each.line), each.message) for each in shown.letters
    ]
    print_table(("letter", "stage", "reason", "place", "message"), rows, empty="none")
    sys.stdout.write("\nEvery record has one fate\n")
    print_table(("source", *_FATES), [*_fates(shown), ("all", *(getattr(counts, name) for name in _FATES.values()))])
    verdict = "balances" if counts.balanced else "DOES NOT BALANCE"
    sys.stdout.write(
        f"\nThe ledger {verdict}: {counts.read} read = {counts.published} published + {counts.rejected} rejected"
        f" + {counts.filtered} filtered; {counts.published} published = {counts.applied} applied"
        f" + {counts.duplicate} duplicate + {counts.dead} dead.\n"
        f"The first payment was there after {counts.seconds_to_first_payment} s.\n"
    )
    if shown.findings:
        findings = [(each.hop, each.subject, each.problem) for each in shown.findings]
        print_table(("hop", "subject", "problem"), findings)
    sys.stdout.write(
        "\nTry next" + (" (after `till up`, which brings this stack back)" if once and not shown.joined else "") + ":\n"
    )
    for command in _next(shown):
        sys.stdout.write(f"  {command}\n")
    if not once:
        sys.stdout.write("\nThese go on meanwhile:\n")
        print_table(("connector", "reads"), list(shown.partners.items()))


def _print_payments(payments: Sequence[PaymentDetail]) -> None:
    from schemas.money import format_major

    rows = [
        (
            one.provider,
            one.reference,
            one.type,
            one.status,
            format_major(one.amount, one.asset),
            one.asset,
            one.adjustments,
            ", ".join(one.flags),
        )
        for one in (each.payment for each in payments)
    ]
    columns = ("provider", "reference", "type", "status", "amount", "asset", "adjustments", "flags")
    print_table(columns, rows, empty="no payments yet")


def _fates(shown: Demonstration) -> list[tuple[object, ...]]:
    return [
        (kind, *(getattr(each, name, None) for name in _FATES.values())) for kind, each in shown.counts.sources.items()
    ]


def _next(shown: Demonstration) -> list[str]:
    till = f"{_program()} --home {shlex.quote(str(shown.home))}"
    dropped = [each.payment.reference for each in shown.payments if each.payment.provider == shown.connector]
    oldest = dropped[-1] if dropped else "REFERENCE"
    return [
        f"{till} payment show {shlex.quote(oldest)} --provider {shlex.quote(shown.connector)}",
        f"{till} deadletter show {shown.letters[0].id[:12]}" if shown.letters else f"{till} deadletter list",
        f"{till} replay create --wait",
    ]


def _program() -> str:
    """How this `till` is called from here."""
    if shutil.which("till"):
        return "till"
    program = Path(sys.argv[0])
    try:
        return str(program.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(program)


def _place(path: str, line: int | None) -> str:
    return f"{Path(path).name}{f':{line}' if line else ''}"


async def _interruptible(work: Coroutine[Any, Any, bool]) -> bool:
    """SIGTERM ends it as Ctrl-C does: in order."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
