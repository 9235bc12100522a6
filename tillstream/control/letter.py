"""
Dead letters: listed, shown, sent through again, let go.

A redrive is a run of its own (MANUAL): its counts are its own, and the closed run keeps its. A letter is marked
redriven only once the sink has confirmed that run, or, where the run failed midway, has counted the letter's own
attempt. A discard is an operator's word, with a note and a name, and changes
no count. Whoever redrives or discards a letter at the same moment as another waits for the letter's row.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from schemas.checkpoint import Counts
from schemas.errors import BrokerError, ConfigError, Conflict, NotFound, RecordRejected, SinkError
from schemas.failpoint import failpoint
from schemas.identity import digest_sum, event_digest
from schemas.letter import DeadLetter
from schemas.topic import Topics
from sinks.pool import Connection, Pool, connection
from sinks.prepared import storable
from streams.publisher import Producer
from streams.redrive import Again, again, why_not
from streams.redrive import redrive as publish
from tillstream.control import run
from tillstream.control.run import RunStatus
from tillstream.control.statement import statements

DEFAULT_LIMIT = 50
MAX_NOTE = 2_000  # characters; a person reads it
MAX_NAME = 200
_AT_ONCE = 50  # letters read and sent at once: they are whole, and one may have a megabyte
_HEARTBEAT_S = 5.0  # a broker may take longer for an answer than the monitor waits for a run's word
REDRIVE_CONNECTOR = uuid5(
    NAMESPACE_URL, "tillstream:redrive"
)  # for letters whose record no connector of ours published


class LetterState(StrEnum):
    """What became of a letter. One whose redrive is under way, or failed, is open."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class LetterView:
    """A listed letter, and what became of it: how often it was redriven, or who let it go and why."""

    letter: DeadLetter
    redrives: int
    redrive_run_id: UUID | None
    redriven_at: datetime | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_note: str | None

    @property
    def state(self) -> LetterState:
        """Redriven and discarded are ends."""
        if self.discarded_at is not None:
            return LetterState.DISCARDED
        return LetterState.OPEN if self.redriven_at is None else LetterState.REDRIVEN


@dataclass(frozen=True, slots=True)
class Refused:
    """A letter to which that cannot be done, and why."""

    id: str
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did, or with `dry_run` would do: letters under way again, letters refused, and its run."""

    run_id: UUID | None
    sent: Sequence[str]
    refused: Sequence[Refused]


@dataclass(frozen=True, slots=True)
class Discarded:
    """What a discard did, or with `dry_run` would do. `known` were discarded before, and keep their note."""

    done: Sequence[str]
    known: Sequence[str]
    refused: Sequence[Refused]


@dataclass(frozen=True, slots=True)
class Filter:
    """
    Which letters; None takes all.

    `run` takes a record that several runs rejected under each of them. `corrected` takes those of files that came again
    with other content, of which something was stored: most likely they are mended.
    """

    stage: str | None = None
    reason: str | None = None
    connector: str | None = None
    state: LetterState | None = LetterState.OPEN
    run: UUID | None = None
    corrected: bool = False


async def list_letters(pool: Pool, wanted: Filter | None = None, *, limit: int = DEFAULT_LIMIT) -> list[LetterView]:
    """
    Letters without their bytes, the newest first.

    Raises:
        SinkError: as `sinks/sqlstate.py` routes it.
    """
    async with connection(pool) as held:
        return [view_of(row) for row in await held.fetch(statements()["list_letters"], *_arguments(wanted), limit)]


def _arguments(wanted: Filter | None) -> tuple[object, ...]:
    chosen = wanted or Filter()
    return (chosen.stage, chosen.reason, chosen.connector, chosen.state, chosen.run, chosen.corrected)


async def show(pool: Pool, wanted: str) -> LetterView:
    """
    The letter whose id begins with `wanted`, whole.

    Raises:
        NotFound: there is none. Conflict: there are several. SinkError: as routed.
    """
    if not wanted.isalnum():
        raise NotFound(f"there is no dead letter {wanted!r}", hint="`till deadletter list` shows them")
    async with connection(pool) as held:
        rows = await held.fetch(statements()["show_letter"], wanted.lower())
    if not rows:
        raise NotFound(f"there is no dead letter {wanted!r}", hint="`till deadletter list` shows them")
    if len(rows) > 1:
        raise Conflict(f"several dead letters begin with {wanted!r}", hint="give more of the id")
    return view_of(rows[0])


async def redrive(
    pool: Pool,
    producer: Producer,
    topics: Topics,
    ids: Sequence[str],
    *,
    triggered_by: str = "CLI",
    dry_run: bool = False,
    run_id: UUID | None = None,
) -> Redriven:
    """
    Send the letters' records through again, as one run, some at a time; the run shows how far it is.

    With the id of a run that was begun before, tell of that.

    Returns once the broker acknowledged them; the sink's outcome comes later, with the run. `dry_run` changes nothing.

    Raises:
        BrokerUnavailable: retry; the run ended FAILED. Conflict: the run was ended meanwhile. SinkError: as routed. In
            each case what was sent is on its way, and becomes redriven once the sink has counted it; the rest is open.
    """
    if run_id is not None:
        async with connection(pool) as held:
            sent = await held.fetch(statements()["redriven_as"], run_id)
        if sent:
            return Redriven(run_id, [row["id"] for row in sent], [])
    wanted = list(dict.fromkeys(ids))
    work = _Redrive(pool, producer, topics, wanted, triggered_by, dry_run=dry_run, run_id=run_id or uuid4())
    for start in range(0, len(wanted), _AT_ONCE):
        await work.some(wanted[start : start + _AT_ONCE])
    return await work.done()


async def discard(pool: Pool, ids: Sequence[str], *, note: str, by: str, dry_run: bool = False) -> Discarded:
    """
    Let open letters go, for good: they are listed as discarded, with the note and who it was. Doing so again changes
    nothing; a letter that was or is being redriven is refused as a Conflict.

    Raises:
        ConfigError: there is no note or no name, or it is too long. SinkError: as routed.
    """
    note, by = _told("note", note, MAX_NOTE), _told("name", by, MAX_NAME)
    wanted = list(dict.fromkeys(ids))
    parts = [
        await _discard(pool, wanted[start : start + _AT_ONCE], note=note, by=by, dry_run=dry_run)
        for start in range(0, len(wanted), _AT_ONCE)
    ]
    return Discarded(
        [each for part in parts for each in part.done],
        [each for part in parts for each in part.known],
        [each for part in parts for each in part.refused],
    )


async def _discard(pool: Pool, ids: Sequence[str], *, note: str, by: str, dry_run: bool) -> Discarded:
    async with connection(pool) as held, held.transaction():
        await held.execute(statements()["lock_letters"], ids)
        rows = await held.fetch(statements()["locked_letters"], ids)
        views = {row["id"]: (view_of(row), row["under_way"]) for row in rows}
        known = [each for each, (view, _) in views.items() if view.state is LetterState.DISCARDED]
        refused = _missing(ids, views)
        done: list[str] = []
        for each, (view, under_way) in views.items():
            problem = None if each in known else _closed(view, under_way=under_way)
            if problem is not None:
                refused.append(Refused(each, problem.code, str(problem), problem.hint))
            elif each not in known:
                done.append(each)
        if done and not dry_run:
            await held.execute(statements()["discard_letters"], done, note, by)
        return Discarded(done, known, refused)


async def confirm(held: Connection) -> None:
    """Mark the letters whose redrive the sink has confirmed. Run by the monitor; safe to run at any time."""
    await held.execute(statements()["confirm_redrives"])


class _Redrive:
    """One redrive: what it has sent so far, and its run once there is one."""

    def __init__(
        self,
        pool: Pool,
        producer: Producer,
        topics: Topics,
        wanted: Sequence[str],
        triggered_by: str,
        *,
        dry_run: bool,
        run_id: UUID,
    ) -> None:
        self._wanted_run = run_id
        self._pool = pool
        self._producer = producer
        self._topics = topics
        self._wanted = wanted
        self._triggered_by = triggered_by
        self._dry_run = dry_run
        self._run_id: UUID | None = None
        self._sent: list[str] = []
        self._refused: list[Refused] = []
        self._counts = Counts()

    async def some(self, ids: Sequence[str]) -> None:
        """Mark those of the letters that can be redriven, and send them."""
        async with connection(self._pool) as held, held.transaction():
            await held.execute(statements()["lock_letters"], ids)
            rows = await held.fetch(statements()["locked_letters"], ids)
            chosen, refused = _sorted_out(rows, ids, self._topics)
            if chosen and not self._dry_run:
                run_id = await self._opened(held)
                await held.execute(statements()["start_redrive"], [view.letter.id for view in chosen], run_id)
        if chosen and not self._dry_run:
            failpoint("before_redrive_sent")
            records = [again(view.letter, self._topics, run_id=run_id, attempt=view.redrives + 1) for view in chosen]
            await self._send(run_id, records)
        self._refused += refused
        self._sent += [view.letter.id for view in chosen]

    async def done(self) -> Redriven:
        """The reading side of the run is through, if there was anything to do."""
        if self._run_id is not None:
            async with connection(self._pool) as held, held.transaction():
                await run.finish(held, self._run_id, self._counts)
        return Redriven(self._run_id, self._sent, self._refused)

    async def _opened(self, held: Connection) -> UUID:
        """The run, which must live: what is counted under an ended one would change what it was confirmed to be."""
        if self._run_id is None:
            await held.execute(statements()["letterless_connector"], REDRIVE_CONNECTOR)
            owner = await held.fetchval(statements()["owner_of_letters"], self._wanted) or REDRIVE_CONNECTOR
            self._run_id = self._wanted_run
            await held.execute(statements()["open_manual_run"], self._run_id, owner, self._triggered_by)
        elif not await held.fetchval(statements()["reads_still"], self._run_id):
            raise Conflict(
                f"run {self._run_id} was ended meanwhile",
                hint="see `till run show`: what was sent is counted; redrive the rest again",
            )
        return self._run_id

    async def _send(self, run_id: UUID, records: Sequence[Again]) -> None:
        sending = asyncio.ensure_future(publish(self._producer, self._topics, records))
        try:
            while not (await asyncio.wait({sending}, timeout=_HEARTBEAT_S))[0]:
                with contextlib.suppress(SinkError):  # the next one may go through
                    await self._record(run_id)
            await sending
        except BrokerError as exc:
            async with connection(self._pool) as held, held.transaction():
                await run.record(held, run_id, self._counts)
                await run.close(held, run_id, RunStatus.FAILED, reason=str(exc), only_while_reading=True)
            raise
        finally:
            sending.cancel()
        failpoint("after_redrive_sent")
        total = digest_sum((event_digest(record.event_id) for record in records), self._counts.published_sum)
        number = self._counts.published + len(records)
        self._counts = Counts(read=number, published=number, published_sum=total)
        await self._record(run_id)

    async def _record(self, run_id: UUID) -> None:
        async with connection(self._pool) as held:
            await run.record(held, run_id, self._counts)


def _sorted_out(
    # asyncpg's records are mappings of anything
    rows: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    topics: Topics,
) -> tuple[list[LetterView], list[Refused]]:
    refused = _missing(ids, {row["id"] for row in rows})
    chosen: list[LetterView] = []
    for row in rows:
        view = view_of(row)
        problem = _problem(view, under_way=row["under_way"], topics=topics)
        if problem is None:
            chosen.append(view)
        else:
            refused.append(Refused(view.letter.id, problem.code, str(problem), problem.hint))
    return chosen, refused


def _problem(view: LetterView, *, under_way: bool, topics: Topics) -> RecordRejected | Conflict | None:
    return _closed(view, under_way=under_way) or why_not(view.letter, topics)


def _closed(view: LetterView, *, under_way: bool) -> Conflict | None:
    """Why nothing more can be done with the letter; None if something can."""
    if view.state is LetterState.DISCARDED:
        return Conflict("it was discarded", hint=f"by {view.discarded_by}: {view.discard_note}")
    if view.state is LetterState.REDRIVEN:
        return Conflict("it was redriven already", hint=f"see run {view.redrive_run_id}")
    if under_way:
        return Conflict("it is being redriven", hint=f"see run {view.redrive_run_id}")
    return None


def _missing(ids: Sequence[str], found: Collection[str]) -> list[Refused]:
    return [
        Refused(each, NotFound.code, "there is no such letter", NotFound.hint)
        for each in dict.fromkeys(ids)
        if each not in found
    ]


def _told(name: str, text: str, most: int) -> str:
    """The text as it is kept."""
    text = storable(text.strip())
    if not text or len(text) > most:
        raise ConfigError(f"a {name} of 1 to {most} characters is needed, this has {len(text)}")
    return text


# asyncpg's records are mappings of anything
def view_of(row: Mapping[str, Any]) -> LetterView:
    """A letter from a row of its table, with or without its bytes."""
    fields = {name: row[name] for name in DeadLetter.model_fields if name in row and name not in _BYTES}
    letter = DeadLetter.model_validate(
        {
            **fields,
            "partition": row["log_partition"],
            "offset": row["log_offset"],
            "key": _base64(row.get("key")),
            "value": _base64(row.get("value")),
            "headers": json.loads(row.get("headers") or "[]"),
        }
    )
    return LetterView(
        letter,
        row["redrive_attempts"],
        row["redrive_run_id"],
        row["redriven_at"],
        row["discarded_at"],
        row["discarded_by"],
        row["discard_note"],
    )


_BYTES = ("key", "value", "headers", "partition", "offset", "version")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
