"""
The Source contract. A source is one file: a pydantic config, a class with three verbs, a spec.

    validate   the config model: no I/O
    check      I/O once, changes nothing
    tasks/read the work: tasks are found, each is read from where it stood

A source knows no Kafka, no sink, no run: it yields records, and the runner makes events of them.

One that can also be asked for the past (a backfill of some days, a file once more) is a `RequestedSource`. All others
can be asked to run now, and with `force` to read again what is done: the runner sees to that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from connectors.record import PaymentFacts

# a source's own JSON object; only the source reads it
Cursor = Mapping[str, Any]

WHOLE_OBJECT = "object"  # the position of an object that is rejected as one

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class File(NamedTuple):
    """
    A file of a task. `day` is the one it is about: of its name, else of its last change, in the connector's zone.

    `downloaded`: it came from elsewhere, and is here whole.
    """

    size_bytes: int
    day: date
    downloaded: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """
    One piece of work, such as a file.

    `descriptor` is what an operator reads (seed 000: the file's name); `key` is its identity for checkpoints (the
    content's SHA-256); `source_object` goes into event ids. All are immutable, and valid UTF-8.

    A task is read once, unless it is `recurring`: a stream of changes, an API that is polled. Such a task goes on where
    its cursor stands each time it is listed. Its end is only a pause, which lets its run be counted and confirmed; a
    run of recurring tasks that find nothing to read is no run. Its records name their `revision` themselves.

    `is_set`: an operator put its cursor where it is, and nothing was read since. A source that can tell whether its
    records are named there as they are when it comes to them by itself, does so before it reads on.
    """

    descriptor: str
    key: str
    source_object: str
    path: str = ""
    recurring: bool = False
    # what it reads, where that is a file: `key` is its SHA-256
    file: File | None = None
    # what the source needs to read it and may forget: never persisted
    context: Any = None
    is_set: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """
    Something the listing met and made no task of. The runner counts and logs it once while it stays so.

    With `problem` it should have become a task and could not, such as a file that may not be opened.
    """

    descriptor: str
    reason: str
    problem: str = ""


class Revision(NamedTuple):
    """
    When a source object came to be as it is (aware, UTC), and its place among those of the same instant.

    It must follow from the source alone, such as a commit's time and position: reading again must give it again.
    """

    at: datetime
    seq: int = 0


class SourceRecord(NamedTuple):
    """
    One record that became a payment fact. `position` is unique in the source object and stable between readings.

    Without a `revision` of its own it has its task's: the instant at which the runner first met the object.
    """

    position: str
    payment: PaymentFacts
    line: int | None = None
    headers: Mapping[str, str] = NO_HEADERS
    revision: Revision | None = None


class Rejection(NamedTuple):
    """
    One record that did not, with its raw bytes, whole.

    Only where a record is too large to be held, `raw` is its head; then `size_bytes` and `sha256` are the whole's.
    """

    position: str
    reason: str
    message: str
    raw: bytes
    line: int | None = None
    size_bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Records in source order, and the cursor that holds once all of them are durable.

    An empty batch is welcome: it tells that the source is alive.
    """

    records: Sequence[SourceRecord]
    rejections: Sequence[Rejection]
    cursor: Cursor
    filtered: int = 0
    # what an operator should know of the object though its records can be used, such as a column that it lacks
    note: str = ""

    @property
    def read(self) -> int:
        """How many records this batch accounts for."""
        return len(self.records) + len(self.rejections) + self.filtered


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of a check: what was tried, how long it took, what to do if it failed."""

    name: str
    ok: bool
    duration_s: float
    detail: str = ""
    hint: str = ""
    # names of what the source holds, such as files, as far as the step met them
    found: tuple[str, ...] = ()


class Source(Protocol):
    """What every source offers. The runner makes one per connector, and calls `close` when it is through with it."""

    async def check(self) -> Sequence[CheckStep]:
        """Try the source once, step by step, changing nothing. Raises nothing: a failure is a step."""
        ...

    def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        """
        Every task there is to do now, oldest first, known ones included: the runner skips what is done.

        They come in pages, so that a hundred thousand known files cost little. An empty page says "still listing":
        between two no more than the connector's `deadline_s` may pass. `known` has the last cursor of every task key
        that was ever begun.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured: pause.
        """
        ...

    def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        The task's records after `since`, in order, in batches of bounded size; its end is the task's end.

        Raises:
            SourceUnavailable, SourceChanged: retry. SourceMisconfigured: pause. RecordRejected: the whole object cannot
                be used, and its bytes are not worth keeping; otherwise yield a Rejection.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """
    What an operator asked of one run, beside running now.

    `since` and `until` are the first and the last day wanted, in the connector's own zone; None: no bound. With `force`
    what is done is read again; its records have the same event ids again, so that only what is new has an effect.
    `id` is the run's: it stays the same when another worker takes the run over.
    """

    id: str
    since: date | None = None
    until: date | None = None
    force: bool = False


@runtime_checkable
class RequestedSource(Source, Protocol):
    """
    A source that heeds a request's days, or must know of `force` to find again what it knows.

    Its spec says `takes_dates=True` where it heeds days; a request that names days is refused for any other source.
    """

    def requested(self, known: Mapping[str, Cursor], request: Request) -> AsyncIterator[Sequence[Task | Skipped]]:
        """
        As `tasks`, for this request: called instead of it, once for each request, and again after a crash.

        A backfill of days that `tasks` would never list is a task of its own, with a key of its own (made of the days,
        or of `request.id` where the same days should be asked for anew each time), and not recurring. Its
        `source_object` and positions are those that `tasks` would give the same records: their event ids are the same.
        With `force` the runner reads every task that comes, from its beginning if it is done; a recurring task is never
        done, and goes on where it stands.
        """
        ...


@runtime_checkable
class FinishingSource(Source, Protocol):
    """A source that has something left to do once an object is done with, such as moving a file away."""

    async def finish(self, task: Task) -> None:
        """
        The task's last checkpoint is durable; nothing of it is read again unless an operator asks for it.

        This is not called again after a crash, so `tasks` must make up for what was left undone. Raises nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Something slow that a source is at, such as a download."""

    descriptor: str
    done_bytes: int
    size_bytes: int


@runtime_checkable
class ProgressingSource(Source, Protocol):
    """A source that can tell how far it is with what takes long."""

    @property
    def progress(self) -> Sequence[Progress]:
        """What is under way now."""
        ...


@runtime_checkable
class HoldingSource(Source, Protocol):
    """A source at which something is kept for us until we have read it, such as a database's log for a slot."""

    async def look(self) -> None:
        """
        Measure how much that is, and change nothing: called now and then while the connector is paused.

        Raises:
            TillError: it cannot be seen.
        """
        ...


@runtime_checkable
class CheckpointedSource(Source, Protocol):
    """A source that lets go of something step by step, such as the log of changes that a replication slot holds."""

    def checkpointed(self, task: Task, cursor: Cursor) -> None:
        """
        A checkpoint of the task with this cursor is durable; the task is not read from before it any more.

        Called often, and while `read` waits to go on: it notes it, does no I/O and raises nothing. What it notes it
        acts upon in `read`. Not called for checkpoints of an earlier life: the first cursor that `read` gets is one.
        """
        ...
