"""
How fast a large file comes from an SFTP server: ours, and OpenSSH's `sftp`, from the same server in turn.

Ours is measured from the first look at the server to the task that is offered: address, host key, login, listing, the
download, its SHA-256. OpenSSH's is measured from its start to its end, with the options it has by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.openssh import Sshd, running_sshd
from bench.watch import Measured
from tillstream.embedded.port import LOOPBACK

MIB = 1_048_576
SIZE_MIB = 500
NAME = "large.bin"


@dataclass(frozen=True, slots=True)
class Downloads:
    """The contest: a server, a large file on it, and its hash."""

    home: Path
    sshd: Sshd
    served: Path
    sha256: str
    size_mib: int

    async def ours(self) -> Measured:
        """A connector's download, in a process of its own."""
        order = {
            "port": self.sshd.port,
            "username": self.sshd.username,
            "host_key": self.sshd.host_key,
            "key": str(self.sshd.key),
            "folder": str(self.served),
            "name": NAME,
            "staging": str(self.home / "staging"),
        }
        command = [sys.executable, "-m", "bench.contenders.sftp_download", json.dumps(order)]

        def told(output: bytes, _: float) -> tuple[float, float]:
            found = json.loads(output)
            if found["sha256"] != self.sha256:
                raise ValueError("what was downloaded is not the file")
            return found["seconds"], found["rss_mib"]

        return await asyncio.to_thread(self._run, command, told)

    async def openssh(self) -> Measured:
        """OpenSSH's client, writing to the same disk."""
        target = self.home / "openssh.bin"
        options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "IdentitiesOnly": "yes"}
        command = ["sftp", "-q", "-F", "none", "-i", str(self.sshd.key), "-P", str(self.sshd.port)]
        command += [f"-o{name}={value}" for name, value in options.items()]
        command += [f"{self.sshd.username}@{LOOPBACK}:{self.served / NAME}", str(target)]

        def told(_: bytes, seconds: float) -> tuple[float, float]:
            if target.stat().st_size != self.size_mib * MIB:
                raise ValueError("what was downloaded is not the file")
            target.unlink()
            return seconds, 0.0

        return await asyncio.to_thread(self._run, command, told)

    def _run(self, command: list[str], told: Callable[[bytes, float], tuple[float, float]]) -> Measured:
        before, busy_before, server_before = _children_s(), _machine_s(), self._server_s()
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=False)
        elapsed = time.perf_counter() - began
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with status {done.returncode}: {done.stderr.decode()[-2_000:]}")
        seconds, rss_mib = told(done.stdout, elapsed)
        client_s, server_s = _children_s() - before, self._server_s() - server_before
        busy_s, all_s = (after - earlier for after, earlier in zip(_machine_s(), busy_before, strict=True))
        return Measured(
            per_second=self.size_mib / seconds,
            events=self.size_mib,
            seconds=seconds,
            rss_mib=rss_mib,
            cpu_us={"contender": client_s / self.size_mib * 1e6, "server": server_s / self.size_mib * 1e6},
            others=max(0.0, busy_s - client_s - server_s) / all_s,
        )

    def _server_s(self) -> float:
        """CPU of the server, which answers each client in a child that it waits for."""
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self.sshd.pid).cpu_times()
            return float(times.user + times.system + times.children_user + times.children_system)
        return 0.0


@contextlib.asynccontextmanager
async def running_downloads(home: Path, *, size_mib: int = SIZE_MIB) -> AsyncIterator[Downloads]:
    """A server with a file of random bytes, which no compression makes smaller."""
    home.mkdir(mode=0o755)
    served = home / "served"
    served.mkdir(mode=0o755)
    digest = hashlib.sha256()
    with (served / NAME).open("wb") as file:
        for _ in range(size_mib):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    with running_sshd(home / "sshd") as sshd:
        yield Downloads(home, sshd, served, digest.hexdigest(), size_mib)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine_s() -> tuple[float, float]:
    times = psutil.cpu_times()
    everything = float(sum(times[: len(times._fields) - 2]))  # what guests take is in user already
    return everything - times.idle - getattr(times, "iowait", 0.0), everything
