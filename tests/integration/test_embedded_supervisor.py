"""
Stacks that come up, lose parts, and go down. Most consist of small programs; two hold the real broker and database.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import asyncpg
import psutil
import pytest

from schemas.errors import StackBusy, StackError
from tillstream.embedded import kafka, postgres, supervisor
from tillstream.embedded.home import Home
from tillstream.embedded.process import holds, still_runs
from tillstream.embedded.state import ChildState, StackState, stack_lock
from tillstream.embedded.supervisor import StackOptions, down, running, status
from tillstream.embedded.worker import WorkerCommand

SOON_S = 10.0
START_S = 60.0
# What a stack has from the signal to its last process' end.
STOP_S = 15.0
# Servers of one's own that nobody asks anything: the stack then consists of its workers.
ELSEWHERE = {"kafka": "127.0.0.1:1", "postgres_dsn": "postgresql://ada:secret@127.0.0.1:1/till"}
OBEDIENT = "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"
DEAF = "trap '' TERM INT; echo up; while :; do sleep 0.01; done"
STUBBORN = "trap '' TERM INT; echo up; setsid sleep 600 & while :; do sleep 0.01; done"


@pytest.fixture
def home(till_home: Path) -> Home:
    return Home(till_home)


def shell(name: str, script: str, **options: object) -> WorkerCommand:
    return WorkerCommand(name, ("/bin/sh", "-c", script), directory=Path("/"), **options)


def options(home: Home, *workers: WorkerCommand, **more: object) -> StackOptions:
    return StackOptions(home, workers=workers, **{**ELSEWHERE, **more})


def pids(state: StackState) -> dict[str, int]:
    return {child.name: child.pid for child in state.children if child.pid is not None}


def processes(state: StackState) -> list[psutil.Process]:
    """Every process of a foreground stack: its supervisor, the children, and all they started."""
    return [psutil.Process(state.pid), *family(state.pid)]


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def runs_child(pid: int, argument: str) -> bool:
    for each in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if argument in each.cmdline():
                return True
    return False


@contextlib.contextmanager
def foreground(home: Home, body: str) -> Iterator[subprocess.Popen[str]]:
    """`till up` in a process of its own; `body` is the argument list of StackOptions after the home."""
    script = f"""
    from pathlib import Path
    from tillstream.embedded.home import Home
    from tillstream.embedded.supervisor import StackOptions, up
    from tillstream.embedded.worker import WorkerCommand

    def shell(name, script, **options):
        return WorkerCommand(name, ("/bin/sh", "-c", script), directory=Path("/"), **options)

    up(StackOptions(Home(Path({str(home.root)!r})), {body}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ready(home: Home, process: subprocess.Popen[str]) -> StackState:
    """The stack when it is up and its programs have set their traps."""

    def is_up() -> bool:
        state = status(home)
        assert process.poll() is None, "it ended"
        return state is not None and state.ready

    assert await holds(is_up, within_s=START_S)
    state = status(home)
    assert state is not None
    logs = [Path(child.log) for child in state.children if child.name in {"sink", "monitor"}]
    assert await holds(lambda: all("up" in log.read_text() for log in logs), within_s=SOON_S)
    return state


async def gone(those: list[psutil.Process], *, within_s: float = SOON_S) -> bool:
    return await holds(lambda: not any(still_runs(process) for process in those), within_s=within_s)


class Observed:
    """Every state that a supervisor told."""

    def __init__(self) -> None:
        self.states: list[StackState] = []

    def __call__(self, state: StackState) -> None:
        self.states.append(state)

    def child(self, name: str) -> object:
        return next(child for child in self.states[-1].children if child.name == name)


# --- workers alone -------------------------------------------------------------------------------------------------


async def test_a_worker_is_told_where_kafka_and_postgresql_are_and_nothing_of_our_environment(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOME_TOKEN", "hush")
    worker = shell("sink", "env; echo end; exec sleep 600", environment={"TILL_LOG_LEVEL": "debug"})

    async with running(options(home, worker)):
        log = home.logs / "sink.log"
        assert await holds(lambda: "end" in log.read_text(), within_s=SOON_S)
        environment = dict(line.split("=", 1) for line in log.read_text().splitlines() if "=" in line)

    assert environment["TILL_KAFKA_BOOTSTRAP"] == ELSEWHERE["kafka"]
    assert environment["TILL_POSTGRES_DSN"] == ELSEWHERE["postgres_dsn"]
    assert environment["TILL_HOME"] == str(home.root)
    assert environment["TILL_LOG_LEVEL"] == "debug"
    assert "SOME_TOKEN" not in environment


async def test_workers_start_after_what_must_be_true_before_them(home: Home):
    seen: list[str] = []

    async def provision(endpoints: object) -> None:
        seen.append("provisioned")
        assert not (home.logs / "sink.log").exists()

    async with running(options(home, shell("sink", OBEDIENT), before_workers=provision)):
        seen.append("running")

    assert seen == ["provisioned", "running"]


async def test_a_worker_with_a_role_is_ready_when_it_has_announced_itself(home: Home):
    """A file that a predecessor left under the same name counts for nothing: the process id is another."""
    home.create()
    (home.run / "sink.json").write_text('{"pid": 1}')
    script = f"sleep 0.3; echo '{{\"pid\": '$$'}}' > {home.run}/sink-$$.json; exec sleep 600"
    began = time.monotonic()

    async with running(options(home, shell("sink", script, role="sink"))):
        assert time.monotonic() - began > 0.3


async def test_a_worker_that_dies_is_started_again_and_the_state_tells_it(home: Home):
    observed = Observed()
    async with running(options(home, shell("sink", OBEDIENT)), observer=observed) as stack:
        first = pids(stack.state)["sink"]

        os.kill(first, signal.SIGKILL)

        assert await holds(lambda: observed.child("sink").state is ChildState.RESTARTING, within_s=SOON_S)
        assert await holds(lambda: observed.child("sink").state is ChildState.RUNNING, within_s=SOON_S)
        child = observed.child("sink")
        assert (child.restarts, child.last_exit) == (1, -signal.SIGKILL)
        assert child.pid != first
        assert status(home) == stack.state


async def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(home: Home):
    """It starts well, once, and then never again: a worker that cannot start at all would stop the stack."""
    observed = Observed()
    once = f"[ -e {home.run}/seen ] && exit 3; touch {home.run}/seen; exec sleep 600"
    async with running(options(home, shell("sink", once)), observer=observed) as stack:
        assert await holds((home.run / "seen").exists, within_s=SOON_S)
        os.kill(pids(stack.state)["sink"], signal.SIGKILL)
        assert await holds(lambda: observed.child("sink").restarts >= 4, within_s=SOON_S)

    ended = [
        (state.children[0].restarts, state.children[0].since)
        for state in observed.states
        if state.children and state.children[0].state is ChildState.RESTARTING
    ]
    instants = [datetime.fromisoformat(since) for _, since in sorted(dict(ended).items())]
    pauses_s = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(instants)]
    least_s = [supervisor.FIRST_BACKOFF_S * 2**step for step in range(3)]
    assert all(pause >= least for pause, least in zip(pauses_s, least_s, strict=False))


async def test_a_worker_that_cannot_start_stops_the_stack_and_tells_its_last_words(home: Home):
    doomed = shell("sink", "echo no such setting; exit 2", role="sink")
    before = set(family(os.getpid()))

    with pytest.raises(StackError, match=r"sink ended with status 2(?s:.*)no such setting"):
        async with running(options(home, shell("connector", OBEDIENT), doomed)):
            pytest.fail("it must not come up")

    assert status(home) is None
    assert not [each for each in family(os.getpid()) if each not in before and still_runs(each)]


async def test_a_second_stack_in_the_same_home_is_refused_and_told_by_whom(home: Home):
    async with running(options(home, shell("sink", OBEDIENT))) as first:
        with pytest.raises(StackBusy, match=f"process {os.getpid()}") as caught:
            async with running(options(home, shell("sink", OBEDIENT))):
                pytest.fail("it must not come up")

        assert "till down" in caught.value.hint
        assert status(home) == first.state
        assert psutil.pid_exists(pids(first.state)["sink"])


async def test_two_stacks_with_homes_of_their_own_run_side_by_side(home: Home):
    other = Home(home.root.with_name("other"))
    async with running(options(home, shell("sink", OBEDIENT))), running(options(other, shell("sink", OBEDIENT))):
        assert status(home) != status(other)


async def test_the_state_is_readable_by_its_owner_alone_and_hides_the_password_when_printed(home: Home):
    async with running(options(home)) as stack:
        assert stat.S_IMODE((home.run / "stack.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(home.run.stat().st_mode) == 0o700
        assert "secret" not in repr(status(home))
        assert dict(stack.state.settings()) == {
            "kafka.bootstrap": ELSEWHERE["kafka"],
            "postgres.dsn": ELSEWHERE["postgres_dsn"],
        }


async def test_workers_that_do_not_listen_are_ended_by_force_with_all_they_started(home: Home):
    observed = Observed()
    async with running(options(home, shell("sink", STUBBORN, grace_s=0.3)), observer=observed) as stack:
        sink = pids(stack.state)["sink"]
        assert await holds(lambda: runs_child(sink, "600"), within_s=SOON_S)
        those = [psutil.Process(sink), *family(sink)]

    assert not any(still_runs(process) for process in those)
    assert observed.child("sink").state is ChildState.STOPPED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_the_stack_in_order(home: Home, number: signal.Signals):
    with foreground(home, f"workers=(shell('sink', {OBEDIENT!r}),), **{ELSEWHERE!r}") as process:
        state = await ready(home, process)
        those = processes(state)

        os.kill(process.pid, number)

        assert process.wait(STOP_S) == 0
        assert await gone(those)
        assert status(home) is None


async def test_a_second_signal_does_not_wait_for_the_stubborn(home: Home):
    with foreground(home, f"workers=(shell('sink', {STUBBORN!r}, grace_s=600),), **{ELSEWHERE!r}") as process:
        those = processes(await ready(home, process))

        os.kill(process.pid, signal.SIGINT)
        await holds(lambda: False, within_s=0.3)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)

        assert process.wait(STOP_S) == 0
        assert await gone(those)


async def test_a_signal_during_the_start_ends_the_start(home: Home):
    with foreground(home, f"workers=(shell('sink', 'exec sleep 600', role='sink'),), **{ELSEWHERE!r}") as process:
        assert await holds((home.logs / "sink.log").exists, within_s=START_S)
        those = processes(StackState(process.pid, ""))

        os.kill(process.pid, signal.SIGINT)

        assert process.wait(STOP_S) == 0
        assert await gone(those)


async def test_down_stops_the_stack_of_another_process_even_a_frozen_one(home: Home):
    with foreground(home, f"workers=(shell('sink', {OBEDIENT!r}),), **{ELSEWHERE!r}") as process:
        those = processes(await ready(home, process))
        os.kill(process.pid, signal.SIGSTOP)

        assert await asyncio.to_thread(down, home)

        assert process.wait(STOP_S) == 0
        assert await gone(those)
        assert not await asyncio.to_thread(down, home)


async def test_a_stack_that_does_not_go_down_is_told_with_the_last_resort(home: Home):
    with foreground(home, f"workers=(shell('sink', {DEAF!r}, grace_s=600),), **{ELSEWHERE!r}") as process:
        state = await ready(home, process)

        with pytest.raises(StackError, match="has not stopped") as caught:
            await asyncio.to_thread(down, home, within_s=0.3)

        assert f"kill -9 {state.pid}" in caught.value.hint


async def test_a_killed_supervisor_leaves_no_child_running_not_even_a_frozen_one(home: Home):
    workers = f"(shell('sink', 'echo up; exec sleep 600'), shell('monitor', {OBEDIENT!r}))"
    with foreground(home, f"workers={workers}, **{ELSEWHERE!r}") as process:
        state = await ready(home, process)
        those = [psutil.Process(pid) for pid in pids(state).values()]
        os.kill(pids(state)["sink"], signal.SIGSTOP)

        process.kill()

        assert await gone(those)
        assert status(home) is None


async def test_what_a_killed_supervisor_left_is_ended_by_the_next_start(home: Home):
    """On systems whose kernel does not end the children of the dead; here the child's note is written by hand."""
    home.create()
    leftover = subprocess.Popen(["/bin/sleep", "600"])
    created = psutil.Process(leftover.pid).create_time()
    (home.run / "sink.pid").write_text(f'{{"pid": {leftover.pid}, "started": {created}}}')

    async with running(options(home)):
        assert leftover.wait(SOON_S) == -signal.SIGKILL


# --- with the real broker and database -----------------------------------------------------------------------------

REAL = f"workers=(shell('sink', {OBEDIENT!r}), shell('monitor', {DEAF!r}, grace_s=0.5))"


async def test_a_stack_survives_down_and_up_with_its_data_and_addresses_and_leaves_no_process(home: Home):
    with foreground(home, REAL) as process:
        first = await ready(home, process)
        those = processes(first)
        connection = await asyncpg.connect(first.endpoints.postgres_dsn)
        await connection.execute("CREATE TABLE payment AS SELECT 1 AS id")
        await connection.close()
        began = time.monotonic()
        assert await asyncio.to_thread(down, home)
        took_s = time.monotonic() - began
        assert await gone(those)
        assert process.wait(SOON_S) == 0

    with foreground(home, REAL) as process:
        second = await ready(home, process)
        connection = await asyncpg.connect(second.endpoints.postgres_dsn)
        rows = await connection.fetchval("SELECT count(*) FROM payment")
        await connection.close()
        # The hard end: nothing of the real servers may be left either.
        those = processes(second)
        process.kill()
        assert await gone(those, within_s=STOP_S)

    assert took_s < STOP_S
    assert second.endpoints == first.endpoints
    assert rows == 1


async def test_kafka_and_postgresql_are_started_again_when_they_are_killed(home: Home):
    observed = Observed()
    stack_options = StackOptions(home, workers=(shell("sink", OBEDIENT),))
    async with running(stack_options, observer=observed) as stack:
        endpoints, worker = stack.state.endpoints, pids(stack.state)["sink"]
        for name in ("kafka", "postgres"):
            os.kill(pids(stack.state)[name], signal.SIGKILL)

        def is_back(name: str) -> Callable[[], bool]:
            return lambda: observed.child(name).restarts == 1 and observed.child(name).state is ChildState.RUNNING

        assert await holds(is_back("postgres"), within_s=START_S)
        assert await holds(is_back("kafka"), within_s=START_S)
        assert await kafka.answers(endpoints.kafka)
        assert await postgres.answers(endpoints.postgres_dsn)
        assert stack.state.endpoints == endpoints
        assert pids(stack.state)["sink"] == worker

    stopped = [name for state in observed.states if state.ready for name in stopped_in(state)]
    assert stopped.index("sink") < min(stopped.index("kafka"), stopped.index("postgres"))
    assert stack_lock(home).owner() is None


def stopped_in(state: StackState) -> list[str]:
    return [child.name for child in state.children if child.state is ChildState.STOPPED and child.pid is None]
