"""
The Source contract. A source is one file: a pydantic config, a class with three verbs, a spec.

    validate   the config model: no I/O
    check      I/O once, changes nothing
    tasks/read the work: tasks are found, each is read from where it stood

A source knows no Kafka, no sink, no run: it yields records, and the runner makes events of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from schemas.payment import PaymentPayload

# a source's own JSON object; only the source reads it
Cursor = Mapping[str, Any]

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Task:
    """
    One piece of work, such as a file.

    `descriptor` is what an operator reads (seed 000: the file's name); `key` is its identity for checkpoints (the content's SHA-256);
    `source_object` goes into event ids. All are immutable.
    """

    descriptor: str
    key: str
    source_object: str
    path: str = ""
    # what the source needs to read it and may forget: never persisted
    context: Any = None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record that became a payment fact. `position` is unique within the source object and stable between readings."""

    position: str
    payment: PaymentPayload
    line: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that did not, with its raw bytes, whole."""

    position: str
    reason: str
    message: str
    raw: bytes
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in source order, and the cursor that holds once all of them are durable. `read` counts every record of the batch."""

    records: Sequence[SourceRecord]
    rejections: Sequence[Rejection]
    cursor: Cursor
    filtered: int = 0

    @property
    def read(self) -> int:
        """How many records this batch accounts for."""
        return len(self.records) + len(self.rejections) + self.filtered


class Source(Protocol[Config]):
    """What every source offers. The runner opens it with `async with`."""

    config: Config

    async def check(self) -> Sequence[CheckStep]:
        """Try the source once, step by step, changing nothing. Raises nothing: a failure is a step."""
        ...

    def tasks(self) -> AsyncIterator[Task]:
        """
        Every task there is to do now, known ones included; the runner skips what is done.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured: pause.
        """
        ...

    def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        The task's records after `since`, in order, in batches of bounded size.

        Raises:
            SourceUnavailable, SourceChanged: retry. SourceMisconfigured: pause. RecordRejected: the whole object cannot be parsed.
        """
        ...


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of a check: what was tried, how long it took, what to do if it failed."""

    name: str
    ok: bool
    duration_s: float
    detail: str = ""
    hint: str = ""
