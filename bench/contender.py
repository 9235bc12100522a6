"""
A contender: a process of its own; told where Kafka and PostgreSQL are, it works until it is stopped.

What it does is measured from outside (`bench/watch.py`), so that every contender is measured by the same instrument.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

STOP_S = 15.0
FAILED_TAIL_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Order:
    """What a contender is to do. `events` bounds those that end by themselves; `path` is a file or folder to read."""

    bootstrap: str
    topic: str
    prefix: str
    group: str
    dsn: str = ""
    events: int = 0
    connections: int = 1
    path: str = ""

    def argument(self) -> str:
        """The order as one argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def given(cls) -> Order:
        """The order in this process's arguments."""
        return cls(**json.loads(sys.argv[1]))


class ContenderFailed(Exception):
    """A contender ended although nobody stopped it."""


class Contender:
    """A running contender."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log
        self._seen = psutil.Process(process.pid)
        self.peak_rss_mib = 0.0
        self._cpu_s = 0.0

    def look(self) -> float:
        """
        CPU seconds so far; notes the peak RSS.

        Raises:
            ContenderFailed: it is not there any more, and its status is not 0.
        """
        if self.process.poll() not in (None, 0):
            tail = self._log.read_bytes()[-FAILED_TAIL_BYTES:].decode(errors="replace")
            raise ContenderFailed(f"{self.name} ended with status {self.process.returncode}:\n{tail}")
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            self.peak_rss_mib = max(self.peak_rss_mib, peak_rss_mib(self.process.pid))
            times = self._seen.cpu_times()
            self._cpu_s = times.user + times.system
        return self._cpu_s

    async def stop(self) -> None:
        """End it, by force if it takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.asynccontextmanager
async def running(
    name: str, commands: Sequence[Sequence[str]], *, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[list[Contender]]:
    """Start each command as a contender of this name; all are stopped afterwards."""
    started: list[Contender] = []
    try:
        with log.open("wb") as out:
            for command in commands:
                process = subprocess.Popen(  # noqa: ASYNC220  starting takes a moment, and nothing else runs then
                    command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
                )
                started.append(Contender(name, process, log))
            yield started
    finally:
        for contender in started:
            await contender.stop()


def module(name: str, order: Order) -> list[str]:
    """The command of a module of `bench.contenders`."""
    return [sys.executable, "-m", f"bench.contenders.{name}", order.argument()]


def peak_rss_mib(pid: int) -> float:
    """The most memory that the process has held, in MiB."""
    # VmHWM is the kernel's own peak, so nothing between two looks is missed: proc(5). Elsewhere: what is seen now.
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1_024
    return float(psutil.Process(pid).memory_info().rss) / 2**20
