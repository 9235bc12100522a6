"""
A run watched to its end. What counts is what GET tells of it; events only make that sooner.

The API may go and come back meanwhile: the run does not depend on it, and is asked for again. Whoever watches may
leave with Ctrl-C and come back, too.
"""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import TimedOut
from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.output import Output, cell, note, print_data, print_lines
from tillstream.cli.path import run_path
from tillstream.cli.problem import ApiForeign, ApiProblem, ApiUnavailable
from tillstream.cli.remote import ask

if TYPE_CHECKING:
    from tillstream.cli.client import Client

WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for its end, and exit with its status.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds to wait.", min=0.1)]
PATIENCE_S = 300.0
_LOOK_S = 1.0
_STATUSES = {"SUCCESS": ExitStatus.OK, "PARTIAL_SUCCESS": ExitStatus.PARTIAL}

# a run as the API tells it
Run = Mapping[str, Any]
Show = Callable[[Run], None]


def to_its_end(run_id: str, *, timeout_s: float, output: Output) -> None:
    """
    Watch a run, tell how it goes, print it as it ends, and exit as it did: 0 SUCCESS, 8 PARTIAL_SUCCESS, 1 FAILED.

    Raises:
        TimedOut: it has not ended in time; it goes on by itself. typer.Exit. As `remote.ask`.
    """
    till = context.invocation()
    again, ends = f"`{till} run wait {run_id}` attaches again", f"`{till} run cancel {run_id}` ends it"
    detached = f"detached; run {run_id} goes on: {again}, {ends}"
    with _showing(output) as show:
        ended = ask(lambda api: watched(api, run_id, timeout_s=timeout_s, show=show), left=detached)
    if output is Output.TABLE:
        told = (ended.get("status"), counted(ended), ended.get("note"), ended.get("reason"))
        note(f"run {run_id}: {'; '.join(cell(each) for each in told if each)}")
    elif output is not Output.JSONL:  # which has had it
        print_data(output, ended)
    if status := _STATUSES.get(ended["status"], ExitStatus.FAILED):
        raise typer.Exit(status)


async def watched(client: Client, run_id: str, *, timeout_s: float, show: Show) -> Run:
    """
    The run once it has ended, shown each time that it is looked at.

    Raises:
        TimedOut: it has not ended in time. As the client's methods; but while the API is away, it is waited for.
    """
    run: Run = await client.get(run_path(run_id))
    show(run)
    woken = asyncio.Event()
    listening = asyncio.create_task(_listen(client, run_id, woken))
    try:
        async with asyncio.timeout(timeout_s) as within:
            is_away = False
            while run.get("completed_at") is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await woken.wait()
                woken.clear()
                try:
                    run = await client.get(run_path(run_id))
                except (ApiUnavailable, ApiProblem) as exc:
                    if not exc.retryable:
                        raise
                    if not is_away:
                        note(f"{exc}; the run goes on, and is asked for again")
                    is_away = True
                else:
                    is_away = False
                    show(run)
            return run
    except TimeoutError:
        if not within.expired():
            raise
        again = f"it goes on by itself: `{context.invocation()} run wait {run_id}` waits again"
        raise TimedOut(f"run {run_id} has not ended within {timeout_s:g} s: it {at_what(run)}", hint=again) from None
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def at_what(run: Run) -> str:
    """What a run that has not ended does."""
    if run.get("waiting"):
        return "waits for a worker"
    return "waits for the sink" if run.get("awaiting_sink") else "still reads"


def counted(run: Run) -> str:
    """What became of its records, as the source tells."""
    return ", ".join(f"{run.get(name, 0)} {name}" for name in ("read", "published", "rejected", "skipped"))


async def _listen(client: Client, run_id: str, woken: asyncio.Event) -> None:
    """Wake who waits at each event of the run. Without events, looking now and then is enough."""
    with contextlib.suppress(ApiForeign, ApiProblem):
        async with contextlib.aclosing(client.events()) as events:
            async for event in events:
                if event.alive or event.data.get("run_id") == run_id:
                    woken.set()


@contextlib.contextmanager
def _showing(output: Output) -> Iterator[Show]:
    """How it goes: a line of JSON for each change, a bar on a terminal, or lines."""
    if output is Output.JSONL:
        yield _Changes(lambda run: print_lines([json.dumps(run, ensure_ascii=False)]), of_ends=True)
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Changes(lambda run: note(f"run {run.get('id')} {at_what(run)}: {_progress(run)}"), of_ends=False)


class _Changes:
    """Tells a run only where something is other than before."""

    def __init__(self, tell: Show, *, of_ends: bool) -> None:
        self._tell, self._of_ends, self._last = tell, of_ends, ""

    def __call__(self, run: Run) -> None:
        """Tell it, or not."""
        told = json.dumps(run, sort_keys=True)
        if told != self._last and (self._of_ends or run.get("completed_at") is None):
            self._tell(run)
        self._last = told


@contextlib.contextmanager
def _bar() -> Iterator[Show]:
    """A bar on standard error: of what the sink has confirmed, once it is known how much there is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asked for", total=None)

        def show(run: Run) -> None:
            told = f"{cell(run.get('connector'))} {at_what(run)}: {_progress(run)}"
            total = int(run.get("published") or 0) if run.get("awaiting_sink") else None
            progress.update(task, description=told, total=total, completed=_confirmed(run))

        yield show


def _progress(run: Run) -> str:
    return f"{counted(run)}, {_confirmed(run)} confirmed"


def _confirmed(run: Run) -> int:
    return sum(int(run.get(name) or 0) for name in ("applied", "duplicate", "dead"))
