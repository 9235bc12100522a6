"""
A process of ours as a part of the stack: what to run is passed in as data, where Kafka and PostgreSQL are is added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tillstream.embedded.home import Home
from tillstream.embedded.process import Command, child_environment
from tillstream.embedded.service import Service
from tillstream.embedded.state import Endpoints

# A worker takes up to 9 s to stop at a checkpoint; PostgreSQL and Kafka get what is left of the 15 s of a whole stack.
WORKER_GRACE_S = 9.0


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """
    How to run one worker.

    `environment` is all it gets beside TILL_HOME, the addresses (TILL_KAFKA_BOOTSTRAP, TILL_POSTGRES_DSN) and the
    little that every program needs. With a `role` it is ready once it has announced itself in a file
    `run/<role>….json` of the home; without one, as soon as it runs.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=Path.cwd)
    role: str | None = None
    grace_s: float = WORKER_GRACE_S


class WorkerService(Service):
    """Runs one worker against wherever Kafka and PostgreSQL are at the time of its start."""

    def __init__(self, command: WorkerCommand, *, home: Home, endpoints: Callable[[], Endpoints]) -> None:
        super().__init__(command.name, directory=home.run, log=home.logs / f"{command.name}.log")
        self.grace_s = command.grace_s
        self._worker = command
        self._home = home
        self._endpoints = endpoints

    async def prepare(self) -> Command:
        """Nothing to make: the addresses of now, and the command."""
        endpoints = self._endpoints()
        addresses = {
            "TILL_HOME": str(self._home.root),
            "TILL_KAFKA_BOOTSTRAP": endpoints.kafka,
            "TILL_POSTGRES_DSN": endpoints.postgres_dsn,
        }
        return Command(
            self._worker.argv,
            log=self.log,
            environment=child_environment({**self._worker.environment, **addresses}),
            directory=self._worker.directory,
        )

    async def is_ready(self) -> bool:
        """Whether it has announced itself; the process id tells it from a predecessor."""
        if self._worker.role is None:
            return True
        return any(_announced_pid(file) == self.pid for file in self._home.run.glob(f"{self._worker.role}*.json"))


def _announced_pid(file: Path) -> int | None:
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
