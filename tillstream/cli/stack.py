"""`till up|down|status|doctor|demo`: the embedded stack."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tillstream.cli import context
from tillstream.cli.exit import ExitStatus
from tillstream.cli.option import DryRunOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tillstream.control.worker import WorkerView
    from tillstream.doctor import Finding
    from tillstream.embedded.state import StackState

PATIENCE_S = 30.0  # a worker that joins its group after one that was killed waits for the other's session to end
ASK_EVERY_S = 0.2
_COLUMNS = ("process", "state", "pid", "restarts", "readiness", "metrics")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("doctor")(doctor)


def up() -> None:
    """
    Run Kafka, PostgreSQL and one worker of each role until Ctrl-C.

    What dies is started again. Data stays in the home.
    """
    from tillstream.embedded import supervisor
    from tillstream.stack import options

    loaded = context.load()
    context.quieten()
    chosen = options(loaded)
    note(f"starting in {loaded.settings.home} (Ctrl-C stops everything)")
    supervisor.up(chosen, observer=Teller(loaded.settings.home))
    note("stopped; the data stays")


def down(dry_run: DryRunOption = False) -> None:
    """Stop the stack of this home; its data stays."""
    from tillstream.embedded import supervisor
    from tillstream.embedded.home import Home

    home = context.settings().home
    if dry_run and (state := supervisor.status(Home(home))) is not None:
        names = ", ".join(child.name for child in state.children)
        note(f"would stop the stack in {home}: process {state.pid}, and its {names}")
    elif not dry_run and supervisor.down(Home(home)):
        note(f"stopped the stack in {home}")
    else:
        note(f"no stack runs in {home}")


def status(output: OutputOption = Output.TABLE) -> None:
    """Show the stack of this home: its processes, and whether the workers are ready."""
    from tillstream.control import worker
    from tillstream.embedded import supervisor
    from tillstream.embedded.home import Home

    settings = context.settings()
    state = supervisor.status(Home(settings.home))
    workers = context.run(worker.look(settings.home / "run"))
    well = state is not None and state.ready and bool(workers) and all(each.ready for each in workers)
    if output is not Output.TABLE:
        rows = [dict(zip(_COLUMNS, row, strict=True)) for row in _processes(state, workers)]
        print_data(output, _as_json(state, workers, well=well), rows=rows, fields=_COLUMNS)
    else:
        _print(str(settings.home), state, workers)
    if not well:
        raise typer.Exit(ExitStatus.FAILED)


def doctor(
    output: OutputOption = Output.TABLE,
    strict: Annotated[bool, typer.Option("--strict", help="End with 8 if something is warned of.")] = False,
) -> None:
    """
    Name what is wrong with this machine, this home or the servers, and how to mend it.

    Each connector that is not well is warned of, with the cause: a partner's wrong file is no fault of the stack.
    Changes nothing. Ends with 1 if something is wrong; with 0 if there are only warnings, unless it is strict.
    """
    from tillstream import doctor as examination
    from tillstream.embedded.home import Home
    from tillstream.stack import own_servers

    loaded = context.load()
    context.quieten()
    kafka, postgres = own_servers(loaded)
    findings = context.run(
        examination.examine(Home(loaded.settings.home), kafka_bootstrap=kafka, postgres_dsn=postgres)
    )
    if output is not Output.TABLE:
        told = {"well": all(each.ok for each in findings), "findings": findings}
        print_data(output, told, rows=findings)
    else:
        rows = [
            (
                "warning" if each.warning else "ok" if each.ok else "WRONG",
                each.name,
                each.what,
                each.fix if each.warning or not each.ok else "",
            )
            for each in findings
        ]
        print_table(("", "looked at", "found", "how to mend it"), rows)
    if status := told_by(findings, strict=strict):
        raise typer.Exit(status)


def told_by(findings: Sequence[Finding], *, strict: bool) -> ExitStatus:
    """What a script is told of findings."""
    if not all(each.ok for each in findings):
        return ExitStatus.FAILED
    warned = strict and any(each.warning for each in findings)
    return ExitStatus.PARTIAL if warned else ExitStatus.OK


class Changes:
    """Tells on standard error what becomes of a stack's parts."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def __call__(self, state: StackState) -> None:
        """Tell what is new in `state`."""
        for child in state.children:
            if self._told.get(child.name, "stopped") != child.state.value:
                again = f" (status {child.last_exit})" if child.state.value == "restarting" else ""
                note(f"  {child.name}: {child.state.value}{again}")
            self._told[child.name] = child.state.value


class Teller:
    """
    Tells what changes while a stack comes up, and where to find it once its workers are ready.

    To be called in a running event loop: it asks the workers in a task of its own.
    """

    def __init__(self, home: Path, *, patience_s: float = PATIENCE_S) -> None:
        """After `patience_s` it tells which workers are not ready yet, once, and goes on asking."""
        self._run = home / "run"
        self._patience_s = patience_s
        self._changes = Changes()
        self.asking: asyncio.Task[None] | None = None

    def __call__(self, state: StackState) -> None:
        """Tell what is new in `state`."""
        self._changes(state)
        if state.ready and self.asking is None:
            self.asking = asyncio.get_running_loop().create_task(self._tell_ready(state), name="readiness")

    async def _tell_ready(self, state: StackState) -> None:
        from tillstream.dsn import mask_url

        until_s: float | None = time.monotonic() + self._patience_s
        while problems := self._problems(views := await self._look()):
            if until_s is not None and time.monotonic() > until_s:
                until_s = None
                note(f"not ready after {self._patience_s:.0f} s: {'; '.join(problems)}")
            await asyncio.sleep(ASK_EVERY_S)
        apis = ", ".join(each.url for each in views if each.role == "api")
        note(f"ready: Kafka {state.endpoints.kafka}, PostgreSQL {mask_url(state.endpoints.postgres_dsn)}, API {apis}")

    async def _look(self) -> list[WorkerView]:
        from tillstream.control import worker

        return await worker.look(self._run)

    @staticmethod
    def _problems(views: list[WorkerView]) -> list[str]:
        """Why workers are not ready, a line each; empty when all are."""
        from tillstream.config import Role

        silent = {role.value for role in Role} - {each.role for each in views}
        return [
            *(f"worker {role} has not announced itself" for role in sorted(silent)),
            *(each.problem for each in views if each.problem),
        ]


def _as_json(state: StackState | None, workers: list[WorkerView], *, well: bool) -> dict[str, object]:
    children = [] if state is None else state.children
    return {
        "running": state is not None,
        "ready": well,
        "pid": None if state is None else state.pid,
        "kafka": "" if state is None else state.endpoints.kafka,
        "processes": children,
        "workers": workers,
    }


def _print(home: str, state: StackState | None, workers: list[WorkerView]) -> None:
    print_fields([("home", home), ("stack", "not running" if state is None else f"running, process {state.pid}")])
    print_table(_COLUMNS, _processes(state, workers))


def _processes(state: StackState | None, workers: list[WorkerView]) -> list[tuple[object, ...]]:
    by_role = {each.role: each for each in workers}
    rows: list[tuple[object, ...]] = []
    for child in () if state is None else state.children:
        view = by_role.pop(child.name, None)
        ready = "" if view is None else ("ready" if view.ready else view.problem)
        rows.append((child.name, child.state, child.pid, child.restarts, ready, "" if view is None else view.url))
    rows += [
        (each.role, "", None, None, "ready" if each.ready else each.problem, each.url) for each in by_role.values()
    ]
    return rows
