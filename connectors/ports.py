"""What the runner needs from the world, as protocols that `streams/` and `tillstream/` implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import NamedTuple, Protocol
from uuid import UUID

from connectors.adapter import Adapters
from connectors.secret import GivenSecrets, Secrets
from schemas.checkpoint import Checkpoint, Counts
from schemas.letter import DeadLetter
from schemas.metric import Meter, NullMeter


class Message(NamedTuple):
    """One encoded event: the Kafka key decides the partition, and so the order."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class Publisher(Protocol):
    """Puts events on the events topic."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """
        Return once the broker acknowledged every message (`acks=all`), in order within a key.

        Raises:
            BrokerUnavailable: retry; some of the messages may be in the log.
            RecordRejected: `too_large`; nothing was sent.
        """
        ...


class DeadLetters(Protocol):
    """Puts letters on the dead-letter topic."""

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """
        Return once the broker acknowledged every letter.

        Raises:
            DeadLetterUnavailable: retry.
        """
        ...


class CheckpointStore(Protocol):
    """Where tasks stand. Fed through the state topic; `load` shows what was saved before it."""

    async def load(self, connector_id: UUID) -> Mapping[str, Checkpoint]:
        """The newest checkpoint of every task of the connector, by task key."""
        ...

    async def save(self, checkpoint: Checkpoint) -> None:
        """
        Return once the broker acknowledged the checkpoint.

        Raises:
            BrokerUnavailable: retry. Fenced: a newer epoch owns the connector.
        """
        ...


class RunLog(Protocol):
    """
    Run rows, as operators see them. Raises SinkUnavailable (retry) while the database is away, and Fenced once a newer
    epoch has claimed the connector.

    The runner names the run and goes on reading while the database is away, so every call may come late, and again:
    each is idempotent. The first of `finish_reading` and `fail` holds; a later one changes nothing.
    """

    async def open(self, run_id: UUID, connector_id: UUID, *, triggered_by: str, run_type: str) -> None:
        """Start a run; it is RUNNING until the monitor closes it, or `fail` does."""
        ...

    async def progress(self, run_id: UUID, counts: Counts) -> None:
        """Store what was read so far; also the run's heartbeat."""
        ...

    async def finish_reading(
        self, run_id: UUID, counts: Counts, *, problems: Sequence[str] = (), note: str = ""
    ) -> None:
        """
        The source side is through; the monitor ends the run once the sink has confirmed the balance.

        With `problems` (objects that could not be read, work left over at a stop) it ends PARTIAL_SUCCESS at best.
        A `note` tells an operator what became of the request, such as what was skipped.
        """
        ...

    async def fail(self, run_id: UUID, counts: Counts, *, reason: str) -> None:
        """
        End the run FAILED: it could not read or publish, was cancelled, or crashed.

        A successor calls it for a crashed run, with the counts of its last checkpoints.
        """
        ...


class Clock(Protocol):
    """Time, so that tests can drive it."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The world, as a runner needs it."""

    publisher: Publisher
    dead_letters: DeadLetters
    checkpoints: CheckpointStore
    runs: RunLog
    clock: Clock
    meter: Meter = field(default_factory=NullMeter)
    secrets: Secrets = field(default_factory=GivenSecrets)
    # each connector has a folder of its own below it
    staging: Path = field(default_factory=lambda: Path(gettempdir()) / "tillstream-staging")
    adapters: Adapters = field(default_factory=Adapters)
    # takes secrets out of what operators are told
    redact: Callable[[str], str] = str
