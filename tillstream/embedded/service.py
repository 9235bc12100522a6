"""
A part of the stack: a child process with what must be true before it starts and how one sees that it is ready.

The supervisor runs services; tests start, kill and freeze them by hand. A service object outlives its processes:
`start` after `kill` gives the same service on the same data and, where they are still free, the same ports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from pathlib import Path

from schemas.errors import StackError
from tillstream.embedded.lock import OwnerLock
from tillstream.embedded.process import POLL_S, Command, Process, end_leftover

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3


class Service(ABC):
    """One part of the stack. Not for use from several event loops or threads at once."""

    name: str
    # How long one waits for readiness, and for an orderly end. Generous: a start on a busy machine is slow, not wrong.
    start_s: float = 60.0
    grace_s: float = 6.0

    def __init__(self, name: str, *, directory: Path, log: Path | None = None) -> None:
        """No other process can start a service of this name in this directory while this one is started."""
        self.name = name
        self.directory = directory
        self.log = log or directory / f"{name}.log"
        self._lock = OwnerLock(directory / f"{name}.lock")
        self._pid_file = directory / f"{name}.pid"
        self._process: Process | None = None

    @abstractmethod
    async def prepare(self) -> Command:
        """
        Make true what the process needs, and tell how to start it. Safe to call again after any failure.

        Raises:
            StackError: it cannot run here; the hint says what to do. Disposition: pause.
        """

    @abstractmethod
    async def is_ready(self) -> bool:
        """Whether the running process does its work; never raises for one that does not answer yet."""

    async def after_start(self) -> None:  # noqa: B027 (most services have nothing to do)
        """What is to be done once after each start, when the process is ready."""

    async def start(self) -> None:
        """
        Return when the service is ready.

        Raises:
            StackBusy: another process runs the service of this directory.
            StackError: it ended or was not ready in time; the message holds its last log lines. Nothing is left over.
        """
        began = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._lock.held:
            self._lock.acquire(what=f"{self.name} in {self.directory}")
        try:
            self._clear()
            await self._start_prepared()
        except BaseException:
            self._lock.release()
            raise
        facts = {"service": self.name, "pid": self.pid, "seconds": round(time.monotonic() - began, 2)}
        logger.info("service ready", extra={"facts": facts})

    async def stop(self) -> None:
        """End the process in order, by force after `grace_s`; nothing of it is left. Safe when it does not run."""
        if self._process is not None:
            await self._process.stop(grace_s=self.grace_s)
            self._process = None
        self._lock.release()

    def kill(self) -> None:
        """SIGKILL for the process and all it started; they are gone when this returns."""
        self.process.kill()

    def freeze(self) -> None:
        """SIGSTOP: the process lives, holds its connections and answers nobody."""
        self.process.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.thaw()

    @property
    def process(self) -> Process:
        """
        The process of the last start.

        Raises:
            StackError: the service was not started.
        """
        if self._process is None:
            raise StackError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int | None:
        """The process id while it is started, else None."""
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether its process runs, ready or not."""
        return self._process is not None and self._process.alive

    @property
    def exit_status(self) -> int | None:
        """The status of the process that has ended, minus the signal that ended it; None while it lives."""
        return self._process.exit_status if self._process is not None else None

    async def _start_prepared(self) -> None:
        """Start, and once more when preparing again leads to another command: a lost race for a port does."""
        command = await self.prepare()
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                await self._start_once(command)
                return
            except StackError:
                again = await self.prepare()
                if again == command or attempt == START_ATTEMPTS:
                    raise
                command = again

    async def _start_once(self, command: Command) -> None:
        process = self._process = Process(command, pid_file=self._pid_file)
        try:
            await self._wait_ready(process)
            await self.after_start()
        except BaseException:
            process.kill()
            raise

    async def _wait_ready(self, process: Process) -> None:
        deadline = time.monotonic() + self.start_s
        while True:
            if not process.alive:
                raise StackError(
                    f"{self.name} ended with status {process.exit_status} before it was ready; "
                    f"its last lines, from {process.command.log}:\n{process.log_tail()}"
                )
            if await self.is_ready():
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.name} was not ready after {self.start_s:.0f} s; "
                    f"its last lines, from {process.command.log}:\n{process.log_tail()}"
                )
            await asyncio.sleep(POLL_S)

    def _clear(self) -> None:
        """Nothing of a former start is left: not of this object, nor of a former run of ours that was killed."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        end_leftover(self._pid_file)
