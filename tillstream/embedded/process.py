"""
One child process: started so that it cannot outlive us, and ended together with everything it started.

A child leads a session of its own: a Ctrl-C in the terminal reaches the supervisor alone, and the order of stopping is
ours.
PostgreSQL's backends make sessions of their own too, so a child's family is found by parentage, not by group.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from schemas.errors import StackError

logger = logging.getLogger(__name__)

LAUNCHER = Path(__file__).with_name("launch.py")
KEEP_USER = -1
POLL_S = 0.02
# The kernel ends a killed process as soon as it leaves the system call it is in; a disk may hold it for a moment.
REAP_S = 10.0
LOG_TAIL_LINES = 12
LOG_ROTATE_BYTES = 16 * 2**20
# Two clocks of the same boot, read by different programs: psutil's create_time is exact to a clock tick.
SAME_START_S = 1.0
# What a child needs to find its way; settings and secrets reach it only when they are put into its command.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Identity:
    """The user a child runs under."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """
    How to start a child: its program by absolute path, its complete environment, where its output goes.

    `stop_signal` asks it to end in order; `death_signal` is what the kernel sends it when we die.
    """

    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = Path("/")
    identity: Identity | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL


class Process:
    """A running child. What ends it returns when it and its family are gone, not when they were asked to go."""

    def __init__(self, command: Command, *, pid_file: Path | None = None) -> None:
        """
        Start the child.

        Raises:
            StackError: the program cannot be started.
        """
        self.command = command
        self._pid_file = pid_file
        command.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(command.log)
        try:
            with command.log.open("ab") as log:
                self._log_start = log.tell()
                self._popen = subprocess.Popen(
                    _launched(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=command.directory,
                    env=dict(command.environment),
                    start_new_session=True,
                )
        except OSError as exc:
            raise StackError(f"{command.argv[0]} cannot be started: {exc.strerror}") from exc
        if pid_file is not None:
            _note(self._popen.pid, pid_file)

    @property
    def pid(self) -> int:
        """The child's process id; it is the program's own, nothing stands between."""
        return self._popen.pid

    @property
    def exit_status(self) -> int | None:
        """None while the child lives, else its status, or minus the signal that ended it."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        """Whether the child has not ended; a frozen one is alive."""
        return self.exit_status is None

    async def ended(self, *, within_s: float) -> bool:
        """Whether the child ends within the time."""
        return await holds(lambda: not self.alive, within_s=within_s)

    async def stop(self, *, grace_s: float) -> bool:
        """
        Ask the child to end, and end it by force after `grace_s`; afterwards it and its family are gone.

        Returns whether it went by itself.
        """
        family = self.family()
        self.thaw()
        self.signal(self.command.stop_signal)
        orderly = await self.ended(within_s=grace_s)
        if not orderly:
            logger.warning(
                "child killed", extra={"facts": {"program": self.command.argv[0], "pid": self.pid, "grace-s": grace_s}}
            )
            self.kill()
        end_all(family)
        self._forget()
        return orderly

    def kill(self) -> None:
        """SIGKILL for the child and its family; they are gone when this returns."""
        # The head is held still first, so that it cannot start another while the others are counted.
        self.signal(signal.SIGSTOP)
        family = self.family()
        self.signal(signal.SIGKILL)
        end_all(family)
        self._popen.wait(REAP_S)
        self._forget()

    def freeze(self) -> None:
        """SIGSTOP for the child and its family: alive, holding its sockets, answering nobody."""
        self.signal(signal.SIGSTOP)
        for relative in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                relative.suspend()

    def thaw(self) -> None:
        """SIGCONT for the child and its family."""
        for relative in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                relative.resume()
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """What the child started, without itself: its descendants, and orphans of its session once it has ended."""
        members = {process.pid: process for process in _descendants(self.pid)} if self.alive else {}
        members |= {process.pid: process for process in _session(self.pid)}
        members.pop(self.pid, None)
        return list(members.values())

    def log_tail(self) -> str:
        """The last lines that the child has written since it was started; a JVM's stack frames are left to the log."""
        with contextlib.suppress(OSError), self.command.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
            return "\n".join([line for line in lines if not line.startswith("\tat ")][-LOG_TAIL_LINES:])
        return ""

    def _forget(self) -> None:
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)


async def holds(condition: Callable[[], bool | Awaitable[bool]], *, within_s: float, poll_s: float = POLL_S) -> bool:
    """Whether the condition becomes true within the time; it is looked at once at least."""
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(poll_s)


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The little of our environment that every child gets, and the additions."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(additions)


def end_leftover(pid_file: Path) -> None:
    """End a child that a former run of ours noted in this file, and what it started; a stranger is left alone."""
    try:
        noted = json.loads(pid_file.read_text())
        leftovers = _leftovers(int(noted["pid"]), started=float(noted["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        leftovers = []
    for process in leftovers:
        logger.warning("leftover process ended", extra={"facts": {"pid": process.pid, "noted-in": str(pid_file)}})
    end_all(leftovers)
    pid_file.unlink(missing_ok=True)


def end_all(processes: list[psutil.Process]) -> None:
    """
    SIGKILL each process that still runs, and wait until it does not.

    Raises:
        StackError: one is still there after 10 s.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + REAP_S
    for process in processes:
        while still_runs(process):
            if time.monotonic() > deadline:
                raise StackError(f"process {process.pid} does not end, not even by SIGKILL")
            time.sleep(POLL_S / 4)


def still_runs(process: psutil.Process) -> bool:
    """Whether it exists as more than an entry that waits for its parent to read its status."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
    return False


def _launched(command: Command) -> list[str]:
    identity = command.identity or Identity(KEEP_USER, KEEP_USER)
    numbers = (int(command.death_signal), os.getpid(), identity.uid, identity.gid)
    return [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, numbers), "--", *command.argv]


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _leftovers(pid: int, *, started: float) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        is_ours = abs(process.create_time() - started) < SAME_START_S
    except psutil.NoSuchProcess:
        # No process gets this id as long as a session is named by it, so who is in that session is still ours.
        return _session(pid)
    return [process, *_descendants(pid)] if is_ours else []


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                members.append(psutil.Process(pid))
    return members


def _note(pid: int, pid_file: Path) -> None:
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        pid_file.write_text(json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def _rotate(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_ROTATE_BYTES:
            log.replace(log.with_suffix(log.suffix + ".1"))
