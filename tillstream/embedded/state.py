"""
What a running stack tells of itself: a file that its supervisor keeps and every `till` command reads.

The file holds the database's password, so it is readable by its owner alone.
It counts only while a supervisor holds the stack's lock: what a killed one left is no longer true.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from tillstream.embedded.home import Home
from tillstream.embedded.lock import OwnerLock


class ChildState(StrEnum):
    """Where a child stands."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the broker and the database are, embedded or not. The DSN holds a password."""

    kafka: str = ""
    postgres_dsn: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Child:
    """One part of the stack as its supervisor sees it. `restarts` counts since the stack came up."""

    name: str
    state: ChildState
    since: str
    log: str
    pid: int | None = None
    restarts: int = 0
    last_exit: int | None = None


@dataclass(frozen=True, slots=True)
class StackState:
    """A stack at one instant; `ready` once every part was ready for the first time."""

    pid: int
    started_at: str
    ready: bool = False
    endpoints: Endpoints = field(default_factory=Endpoints)
    children: tuple[Child, ...] = ()

    def settings(self) -> Mapping[str, str]:
        """What a command needs to reach this stack, under the names of the settings."""
        found = {"kafka.bootstrap": self.endpoints.kafka, "postgres.dsn": self.endpoints.postgres_dsn}
        return {key: value for key, value in found.items() if value}


def stack_lock(home: Home) -> OwnerLock:
    """The lock that a supervisor holds as long as it lives."""
    return OwnerLock(home.run / "stack.lock")


def read_state(home: Home) -> StackState | None:
    """The running stack of this home, or None when none runs."""
    owner = stack_lock(home).owner()
    if owner is None:
        return None
    try:
        raw = json.loads(_file(home).read_text(encoding="utf-8"))
        children = tuple(Child(**{**child, "state": ChildState(child["state"])}) for child in raw["children"])
        state = StackState(**{**raw, "children": children, "endpoints": Endpoints(**raw["endpoints"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        state = None
    # A predecessor's file lies there until the first write of the new owner.
    return state if state is not None and state.pid == owner else StackState(owner, started_at="")


def write_state(home: Home, state: StackState) -> None:
    """Replace the file; a reader sees the old or the new whole."""
    draft = _file(home).with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=1)
    draft.replace(_file(home))


def remove_state(home: Home) -> None:
    """The stack is down."""
    _file(home).unlink(missing_ok=True)


def now() -> str:
    """This instant, as the file tells instants."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _file(home: Home) -> Path:
    return home.run / "stack.json"
