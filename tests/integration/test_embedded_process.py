"""Children that do not want to end, and children whose parent ends first. Real programs, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.errors import StackError
from tests.services import open_directory
from tillstream.embedded.port import LOOPBACK, PortBook, find_free, is_free, outgoing_from
from tillstream.embedded.process import Command, Identity, Process, child_environment, end_leftover, holds, still_runs

SHELL = "/bin/sh"
SOON_S = 10.0
# A grandchild in a session of its own, as PostgreSQL's backends are; its process id goes to the log.
GRANDCHILD = "setsid sleep 600 & echo $! ; "


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_directory() as path:
        yield path


def shell(script: str, folder: Path, **options: object) -> Command:
    return Command((SHELL, "-c", script), log=folder / "log", environment=child_environment({}), **options)


async def first_line(process: Process) -> str:
    assert await holds(lambda: "\n" in process.log_tail() + "\n" and process.log_tail() != "", within_s=SOON_S)
    return process.log_tail().splitlines()[0]


async def test_a_child_that_ends_on_request_ends_in_order(folder: Path):
    process = Process(shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done", folder))
    await first_line(process)

    orderly = await process.stop(grace_s=SOON_S)

    assert orderly
    assert process.exit_status == 0
    assert "bye" in process.log_tail()


async def test_a_child_that_ignores_the_request_is_killed_with_all_it_started(folder: Path):
    process = Process(shell(f"trap '' TERM; {GRANDCHILD} while :; do sleep 0.01; done", folder))
    grandchild = psutil.Process(int(await first_line(process)))

    orderly = await process.stop(grace_s=0.2)

    assert not orderly
    assert process.exit_status == -signal.SIGKILL
    assert not still_runs(grandchild)


async def test_kill_takes_grandchildren_in_sessions_of_their_own_too(folder: Path):
    process = Process(shell(f"{GRANDCHILD} wait", folder))
    grandchild = psutil.Process(int(await first_line(process)))
    assert os.getsid(grandchild.pid) != process.pid

    process.kill()

    assert not still_runs(grandchild)
    assert not process.alive


async def test_what_a_dead_child_left_in_its_session_is_still_found(folder: Path):
    process = Process(shell("sleep 600 & echo $!", folder))
    orphan = psutil.Process(int(await first_line(process)))
    assert await process.ended(within_s=SOON_S)
    assert still_runs(orphan)

    process.kill()

    assert not still_runs(orphan)


async def test_a_frozen_child_can_be_stopped(folder: Path):
    process = Process(shell("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", folder))
    await first_line(process)
    process.freeze()
    assert await holds(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, within_s=SOON_S)

    assert await process.stop(grace_s=SOON_S)


async def test_a_child_dies_with_a_parent_that_was_killed(folder: Path):
    """SIGKILL leaves the parent no time to stop anything, so the kernel must do it."""
    script = f"""
import time
from pathlib import Path
from tillstream.embedded.process import Command, Process
child = Process(Command(("/bin/sleep", "600"), log=Path({str(folder)!r}) / "log"))
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert await holds(lambda: child.name() == "sleep", within_s=SOON_S)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert await holds(lambda: not still_runs(child), within_s=SOON_S)


async def test_a_child_gets_no_secret_of_our_environment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TILL_POSTGRES_DSN", "postgresql://ada:secret@db/till")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    process = Process(shell("env; echo done", folder))
    await process.ended(within_s=SOON_S)

    assert "PATH=" in process.log_tail()
    assert "secret" not in process.log_tail()


async def test_a_child_runs_under_the_user_it_was_given(folder: Path):
    """Only root can give another; everybody can give themselves."""
    identity = Identity(54_321, 54_321) if os.geteuid() == 0 else Identity(os.getuid(), os.getgid())

    process = Process(shell("id -u; id -g; id -G", folder, identity=identity if os.geteuid() == 0 else None))
    await process.ended(within_s=SOON_S)

    assert process.log_tail().split()[:2] == [str(identity.uid), str(identity.gid)]


async def test_a_program_that_does_not_exist_ends_at_once_and_says_so(folder: Path):
    process = Process(Command((str(folder / "nothing"),), log=folder / "log"))

    assert await process.ended(within_s=SOON_S)
    assert process.exit_status != 0
    assert "No such file" in process.log_tail()


def test_a_directory_that_does_not_exist_is_a_stack_error(folder: Path):
    with pytest.raises(StackError, match="cannot be started"):
        Process(Command(("/bin/true",), log=folder / "log", directory=folder / "nowhere"))


async def test_a_leftover_of_a_former_run_is_ended_with_its_children(folder: Path):
    leftover = subprocess.Popen([SHELL, "-c", f"{GRANDCHILD} wait"], stdout=subprocess.PIPE, text=True)
    assert leftover.stdout is not None
    grandchild = psutil.Process(int(leftover.stdout.readline()))
    note = folder / "pid"
    note.write_text(json.dumps({"pid": leftover.pid, "started": psutil.Process(leftover.pid).create_time()}))

    end_leftover(note)

    assert leftover.wait(SOON_S) == -signal.SIGKILL
    leftover.stdout.close()
    assert not still_runs(grandchild)
    assert not note.exists()


async def test_orphans_of_a_former_runs_child_are_ended_too(folder: Path):
    parent = subprocess.Popen(
        [SHELL, "-c", "sleep 600 > /dev/null & echo $!"], stdout=subprocess.PIPE, start_new_session=True
    )
    created = psutil.Process(parent.pid).create_time()
    output, _ = parent.communicate()
    orphan = psutil.Process(int(output))
    note = folder / "pid"
    note.write_text(json.dumps({"pid": parent.pid, "started": created}))

    end_leftover(note)

    assert not still_runs(orphan)


def test_a_stranger_with_the_noted_process_id_is_left_alone(folder: Path):
    """Process ids come round: the time of the start tells who it is."""
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    note = folder / "pid"
    note.write_text(json.dumps({"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 3_600}))

    end_leftover(note)

    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_ports_stay_the_same_from_one_start_to_the_next(folder: Path):
    first = PortBook(folder / "ports.json").reserve(["a", "b"])

    assert PortBook(folder / "ports.json").reserve(["a", "b"]) == first
    assert len(set(first.values())) == 2


def test_a_port_that_somebody_else_has_taken_is_replaced_and_the_others_stay(folder: Path):
    book = PortBook(folder / "ports.json")
    first = book.reserve(["a", "b"])
    with socket.create_server((LOOPBACK, first["a"])):
        second = book.reserve(["a", "b"])

    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert book.noted() == second


def test_a_damaged_note_of_ports_costs_only_the_ports(folder: Path):
    (folder / "ports.json").write_text("{")

    assert is_free(PortBook(folder / "ports.json").reserve(["a"])["a"])


def test_new_ports_lie_below_those_of_outgoing_connections():
    """A client that keeps dialling a closed port of that range reaches itself in the end, and holds the port."""
    assert all(find_free() < outgoing_from() for _ in range(20))
