"""
The delivery core: the raw records of a slice → outcomes that are durable. Knows no Faust and no consumer.

`apply` returns once every record of the slice is in PostgreSQL or in a dead letter that the broker acknowledged, and
counted; only
then may the offset move. It waits out every *retry* and *pause* itself, so that whatever escapes is a bug and ends
the process.

    decode ─┬─ poison ──────────────────────────▶ letter (acked) ─┐
            └─ records ─▶ one transaction ─┬─ stored ─────────────┴─▶ counted, next offset moves in the same transaction
                                           ├─ unavailable, misconfigured: hold, try the same again, for ever
                                           ├─ refused: halve until the record stands alone ─▶ letter
                                           └─ event id of another record ─▶ letter, the rest again
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol
from uuid import UUID

from aiokafka import ConsumerRecord

from schemas import metric
from schemas.codec import HEADER_ATTEMPT, HEADER_EVENT, HEADER_RUN, decode_payment_event
from schemas.errors import (
    DeadLetterUnavailable,
    EventIdReused,
    RecordRejected,
    SinkError,
    SinkMisconfigured,
    SinkRefused,
    SinkUnavailable,
    SinkUnclear,
)
from schemas.event import MAX_EVENT_ID
from schemas.failpoint import failpoint
from schemas.identity import content_hash, foreign_id
from schemas.letter import DeadLetter, Stage, is_text, payload, sink_letter_id
from schemas.metric import Meter
from schemas.topic import LETTER_MAX_BYTES
from sinks.base import EXTERNAL_RUN, NOT_DECODED, Applied, Dead, Place, Preparation, Record, Sink
from streams.backoff import Backoff
from streams.breaker import Breaker
from streams.slice import Slice

log = logging.getLogger(__name__)

UNCLEAR_TRIES = 5  # an unclassified error is tried so often before its records are taken apart
PIECE_EVENTS = 200  # about 2 ms of decoding, hashing and encoding (docs/decisions/010)
_LETTER_ROOM = LETTER_MAX_BYTES - 65_536  # record overhead, and the letter's own headers


class Hold(StrEnum):
    """Why a partition waits: declared, so that the watchdog leaves it alone and operators see the cause."""

    DATABASE = "database"
    CONFIGURATION = "configuration"
    UNCLEAR = "unclear"
    DEAD_LETTERS = "dead_letters"
    BREAKER = "breaker"


class LetterBox(Protocol):
    """Where dead letters go."""

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Return once they are durable. Raises DeadLetterUnavailable: retry."""
        ...


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that does not decode, and why."""

    offset: int
    event_id: str
    run_id: UUID
    raw: ConsumerRecord[bytes | None, bytes | None]
    rejected: RecordRejected


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded slice. `items` are in offset order; without poison they are ready for the sink."""

    place: Place
    items: Sequence[Record | Poison]
    raw: Sequence[ConsumerRecord[bytes | None, bytes | None]]
    next_offset: int
    poisoned: bool


@dataclass(slots=True)
class Ingest:
    """The core of one sink process; one object serves all its partitions."""

    sink: Sink
    letters: LetterBox
    meter: Meter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    first_breaker_pause_s: float = 10.0
    holds: dict[Place, Hold] = field(default_factory=dict)
    causes: dict[Place, str] = field(default_factory=dict)  # the last error of a partition on hold, for operators
    steps: Counter[Place] = field(
        default_factory=Counter
    )  # grows with every transaction and letter, also within a slice
    _breakers: dict[Place, Breaker] = field(default_factory=dict)
    _turns: asyncio.Lock = field(default_factory=asyncio.Lock)

    def prepare(self, batch: Slice) -> Prepared:
        """
        Decode every record of the slice, and make those ready for the sink.

        CPU only; never raises for what the bytes hold.
        """
        pieces = _Pieces(batch, self.sink.preparation())
        while pieces.some_more():
            pass
        return pieces.prepared()

    async def prepare_in_turns(self, batch: Slice) -> Prepared:
        """
        The same, with turns of the event loop between pieces of the work: what PostgreSQL answers to other partitions
        waits for a piece, and not for a slice. One slice at a time, so that they are ready one after the other.
        """
        async with self._turns:
            pieces = _Pieces(batch, self.sink.preparation())
            while pieces.some_more():  # noqa: ASYNC110  it waits for nothing
                await asyncio.sleep(0)
            return pieces.prepared()

    async def apply(self, prepared: Prepared) -> Applied:
        """
        Make the outcome of every record durable, in order.

        Raises nothing but bugs: *retry* and *pause* are waited out here, *reject* becomes a letter.
        """
        run = _Application(self, prepared)
        try:
            await run.all()
        except asyncio.CancelledError:
            self._let_go(prepared.place)  # revoked: others may wait for it now, we do not
            raise
        self._report(prepared, run.total)
        return run.total

    def breaker(self, place: Place) -> Breaker:
        """The partition's breaker."""
        found = self._breakers.get(place)
        if found is None:
            found = self._breakers[place] = Breaker(self.first_breaker_pause_s)
        return found

    async def hold(self, place: Place, why: Hold, seconds: float) -> None:
        """Wait, visibly. The partition counts as held until `release`: trying again may take long, too."""
        before = self.holds.get(place, why)
        self.holds[place] = why
        if before is not why:
            self._show(place, before, held=False)
        self._show(place, why, held=True)
        await self.sleep(seconds)

    def release(self, place: Place) -> None:
        """The partition moves again."""
        if self._let_go(place):
            log.info("partition moves again", extra={"facts": {"topic": place.topic, "partition": place.partition}})

    def _let_go(self, place: Place) -> bool:
        self.causes.pop(place, None)
        why = self.holds.pop(place, None)
        if why is not None:
            self._show(place, why, held=False)
        return why is not None

    def _show(self, place: Place, why: Hold, *, held: bool) -> None:
        labels = {"topic": place.topic, "partition": str(place.partition)}
        self.meter.set(metric.HELD, float(held), **labels, reason=why.value)
        if why is Hold.BREAKER:
            self.meter.set(metric.BREAKER_OPEN, float(held), **labels)

    def _report(self, prepared: Prepared, total: Applied) -> None:
        topic = prepared.place.topic
        for outcome in ("applied", "duplicate", "dead", "redelivered", "stale"):
            count = getattr(total, outcome)
            if count:
                self.meter.add(metric.EVENTS_TOTAL, count, topic=topic, outcome=outcome)
        self.meter.observe(metric.SLICE_EVENTS, len(prepared.items), topic=topic)
        if prepared.raw:
            age_s = time.time() - prepared.raw[0].timestamp / 1_000
            self.meter.observe(metric.END_TO_END_SECONDS, max(0.0, age_s), topic=topic)


class _Pieces:
    """One slice on its way from bytes to columns."""

    def __init__(self, batch: Slice, preparation: Preparation) -> None:
        self._batch = batch
        self._preparation = preparation
        self._items: list[Record | Poison] = []
        self._poisoned = False

    def some_more(self) -> bool:
        """Do a piece of the work; False if it was the last."""
        raw, done = self._batch.records, len(self._items)
        piece = [_decoded(each) for each in raw[done : done + PIECE_EVENTS]]
        self._items += piece
        self._poisoned = self._poisoned or Poison in set(map(type, piece))
        if not self._poisoned:  # else it is taken apart, and what each transaction takes is known only then
            self._preparation.add(piece)  # type: ignore[arg-type]  # no poison among them
            self._preparation.encode()
        return len(self._items) < len(raw)

    def prepared(self) -> Prepared:
        batch = self._batch
        return Prepared(
            Place(batch.topic, batch.partition),
            self._items if self._poisoned else self._preparation.ready(),
            batch.records,
            batch.next_offset,
            poisoned=self._poisoned,
        )


class _Application:
    """One slice on its way: what was done so far, and the rules for what comes next."""

    def __init__(self, ingest: Ingest, prepared: Prepared) -> None:
        self.ingest = ingest
        self.place = prepared.place
        self.prepared = prepared
        self.breaker = ingest.breaker(prepared.place)
        self.total = Applied()
        self.deaths = 0  # of records that decode
        self._raw = {raw.offset: raw for raw in prepared.raw} if prepared.poisoned else None

    async def all(self) -> None:
        """The whole slice, cut only where the breaker opens."""
        items, start = self.prepared.items, 0
        if self.prepared.poisoned:
            for index, item in enumerate(items):
                if isinstance(item, Poison):
                    if self.breaker.is_open:
                        await self._segment(items[start:index], item.offset)
                        start = index
                        await self._wait_for_breaker()
                    self.breaker.died(time.monotonic())
                else:
                    self.breaker.passed()
        await self._segment(items[start:] if start else items, self.prepared.next_offset)

    async def _segment(self, items: Sequence[Record | Poison], next_offset: int) -> None:
        poison = [item for item in items if isinstance(item, Poison)] if self.prepared.poisoned else []
        records = [item for item in items if isinstance(item, Record)] if poison else items
        dead = await self._bury([self._poison_letter(item) for item in poison], poison) if poison else []
        await self._store(records, dead, next_offset)  # type: ignore[arg-type]  # filtered above
        if not self.prepared.poisoned:
            self.breaker.passed(len(records) - self.deaths)

    async def _store(self, records: Sequence[Record], dead: Sequence[Dead], next_offset: int) -> None:
        """One transaction, tried until it goes through; taken apart where the data is at fault."""
        backoff, unclear = Backoff(), 0
        while True:
            try:
                started = time.monotonic()
                failpoint("before_commit")
                applied = await self.ingest.sink.apply(self.place, records, dead, next_offset=next_offset)
                failpoint("after_commit")
            except SinkUnavailable as exc:
                await self._held(exc, Hold.DATABASE, backoff)
            except SinkMisconfigured as exc:
                await self._held(exc, Hold.CONFIGURATION, backoff)
            except EventIdReused as exc:
                dead = [*dead, *await self._bury_reused([each for each in records if each.offset in exc.offsets], exc)]
                records = [each for each in records if each.offset not in exc.offsets]
            except SinkRefused as exc:
                return await self._bisect(records, dead, next_offset, exc)
            except SinkUnclear as exc:
                unclear += 1
                if unclear >= UNCLEAR_TRIES and await self._neighbour_passes(records):
                    return await self._bisect(records, dead, next_offset, exc)
                await self._held(exc, Hold.UNCLEAR, backoff)
            else:
                self.ingest.release(self.place)
                self.ingest.steps[self.place] += 1
                self.ingest.meter.observe(metric.APPLY_SECONDS, time.monotonic() - started, topic=self.place.topic)
                self._add(applied)
                return None

    async def _bisect(self, records: Sequence[Record], dead: Sequence[Dead], next_offset: int, exc: SinkError) -> None:
        """Halves in order, each in its own transaction, down to the one record that is refused alone."""
        if len(records) > 1:
            middle = len(records) // 2
            boundary = records[middle].offset
            left_dead = [item for item in dead if item.offset < boundary]
            right_dead = [item for item in dead if item.offset >= boundary]
            await self._store(records[:middle], left_dead, boundary)
            failpoint("mid_bisect")
            return await self._store(records[middle:], right_dead, next_offset)
        if not records:
            raise exc  # PostgreSQL refuses a mere count: a bug of ours
        record = records[0]
        if await self._is_counted(record):
            return await self._store([], dead, next_offset)
        await self._wait_for_breaker()
        self._died()
        buried = await self._bury([self._refused_letter(record, exc)], [record])
        return await self._store([], [*dead, *buried], next_offset)

    async def _bury_reused(self, records: Sequence[Record], exc: EventIdReused) -> list[Dead]:
        """Letters for records whose event ids stand for others, as many at a time as the breaker lets die."""
        dead: list[Dead] = []
        pending: list[Record] = []
        for record in records:
            if self.breaker.is_open:
                dead += await self._bury([self._refused_letter(each, exc) for each in pending], pending)
                pending = []
                await self._wait_for_breaker()
            self._died()
            pending.append(record)
        return dead + await self._bury([self._refused_letter(each, exc) for each in pending], pending)

    def _died(self) -> None:
        self.deaths += 1
        self.breaker.died(time.monotonic())

    async def _neighbour_passes(self, records: Sequence[Record]) -> bool:
        """
        Whether PostgreSQL takes some other record of this slice, so that an unclear error is this record's own fault.

        Only a neighbour with another key is tried (order within a key stays), and applying it early is harmless: it
        comes again
        as a redelivery.
        """
        if len(records) > 1:
            return True
        mine = {record.event.foreign_id for record in records}
        for other in self.prepared.items:
            if isinstance(other, Record) and other.event.foreign_id not in mine:
                try:
                    self._add(await self.ingest.sink.apply(self.place, [other], (), next_offset=None))
                except SinkError:
                    continue
                return True
        return False

    async def _is_counted(self, record: Record) -> bool:
        backoff = Backoff()
        while True:
            try:
                return await self.ingest.sink.is_counted(self.place, record)
            except SinkError as exc:
                await self._held(exc, Hold.DATABASE, backoff)

    async def _bury(self, letters: Sequence[DeadLetter], items: Sequence[Record | Poison]) -> list[Dead]:
        """Letters, durable; and what the sink has to count."""
        backoff = Backoff()
        while True:
            try:
                await self.ingest.letters.dead_letter(letters)
            except DeadLetterUnavailable as exc:
                await self._held(exc, Hold.DEAD_LETTERS, backoff)
            else:
                break
        self.ingest.steps[self.place] += 1
        failpoint("after_letter_ack")
        for letter in letters:
            self.ingest.meter.add(metric.LETTERS_TOTAL, stage=letter.stage.value, reason=letter.reason)
            log.warning(
                "record dead-lettered",
                extra={
                    "facts": {
                        "letter": letter.id,
                        "reason": letter.reason,
                        "topic": letter.topic,
                        "offset": letter.offset,
                    }
                },
            )
        return [
            Dead(item.event_id, item.run_id, item.offset, letter.id, letter.reason, _content(item))
            for item, letter in zip(items, letters, strict=True)
        ]

    async def _wait_for_breaker(self) -> None:
        labels = {"topic": self.place.topic, "partition": str(self.place.partition)}
        while self.breaker.is_open:
            remaining_s = self.breaker.remaining_s(time.monotonic())
            if remaining_s == 0:
                self.breaker.half_open()
                self.ingest.release(self.place)
                return
            log.error(
                "too many records died: the partition waits",
                extra={"facts": {**labels, "seconds": round(remaining_s, 1)}},
            )
            await self.ingest.hold(self.place, Hold.BREAKER, remaining_s)

    async def _held(self, exc: Exception, why: Hold, backoff: Backoff) -> None:
        wait_s = backoff.next_s()
        code, sqlstate = getattr(exc, "code", "internal"), getattr(exc, "sqlstate", "")
        self.ingest.meter.add(metric.SINK_RETRIES_TOTAL, code=code, sqlstate=sqlstate)
        if backoff.tries == 1 or wait_s > 1:  # the first, then no more than one a second or so
            log.error(
                "partition held",
                extra={
                    "facts": {
                        "topic": self.place.topic,
                        "partition": self.place.partition,
                        "why": why.value,
                        "error": str(exc),
                    }
                },
            )
        self.ingest.causes[self.place] = str(exc)
        await self.ingest.hold(self.place, why, wait_s)

    def _poison_letter(self, poison: Poison) -> DeadLetter:
        return _letter(
            poison.raw, poison.event_id, poison.run_id, poison.rejected.code, str(poison.rejected), poison.rejected.hint
        )

    def _refused_letter(self, record: Record, exc: SinkError) -> DeadLetter:
        if self._raw is None:
            self._raw = {raw.offset: raw for raw in self.prepared.raw}
        letter = _letter(
            self._raw[record.offset],
            record.event_id,
            record.run_id,
            exc.code,
            str(exc),
            exc.hint,
            sqlstate=exc.sqlstate,
        )
        lineage = record.event.lineage
        if lineage is None:
            return letter
        return letter.model_copy(
            update={
                "connector_id": lineage.connector_id,
                "connector": lineage.connector,
                "path": lineage.path,
                "position": lineage.position,
                "line": lineage.line,
                "source_object": lineage.source_object,
            }
        )

    def _add(self, applied: Applied) -> None:
        total = self.total
        self.total = Applied(
            total.applied + applied.applied,
            total.duplicate + applied.duplicate,
            total.dead + applied.dead,
            total.redelivered + applied.redelivered,
            total.stale + applied.stale,
        )


def _decoded(raw: ConsumerRecord[bytes | None, bytes | None]) -> Record | Poison:
    event_id, run_id, legible = _named_by_headers(raw)
    try:
        if not legible:
            raise RecordRejected(
                "undecodable_header",
                "the name of a header is not UTF-8, as Kafka's protocol has it",
                hint="mend who wrote it; a redrive leaves such headers out",
            )
        event, payment = decode_payment_event(raw.value)
        expected = foreign_id(payment.provider, payment.original_reference)
        if raw.key is None:
            raise RecordRejected("null_key", "the record has no key, so its order and partition mean nothing")
        if event.foreign_id != expected or raw.key != expected.encode("utf-8", "surrogatepass"):
            raise RecordRejected(
                "wrong_key", "key, foreign_id and the payment's provider and original reference disagree"
            )
    except RecordRejected as rejected:
        return Poison(raw.offset, event_id or nameless_id(raw), run_id or EXTERNAL_RUN, raw, rejected)
    run = run_id or (event.lineage.run_id if event.lineage else EXTERNAL_RUN)
    return Record(event, payment, event_id or event.id, run, raw.offset)


def _content(item: Record | Poison) -> bytes:
    return content_hash(item.payment) if isinstance(item, Record) else NOT_DECODED


def nameless_id(raw: ConsumerRecord[bytes | None, bytes | None]) -> str:
    """The event id of a record that names none and does not decode: its place, and what is there."""
    return f"{raw.topic}/{raw.partition}/{raw.offset}/{_letter_id(raw)}"


def _letter_id(raw: ConsumerRecord[bytes | None, bytes | None]) -> str:
    return sink_letter_id(raw.topic, raw.partition, raw.offset, key=raw.key, value=raw.value)


def _named_by_headers(raw: ConsumerRecord[bytes | None, bytes | None]) -> tuple[str | None, UUID | None, bool]:
    """Event id and run id as the message's headers say, garbage as absent; and whether all names are text."""
    legible = True
    event_id: str | None = None
    run_id: UUID | None = None
    for name, value in raw.headers or ():
        if name == HEADER_EVENT and value and len(value) <= MAX_EVENT_ID:
            text = value.decode("utf-8", "replace")
            event_id = text if text.isprintable() else None
        elif name == HEADER_RUN and value:
            run_id = _run_named(value) if len(value) <= MAX_EVENT_ID else None
        elif not is_text(name):
            legible = False
    return event_id, run_id, legible


@lru_cache(maxsize=1_024)
def _run_named(value: bytes) -> UUID | None:
    try:
        return UUID(value.decode("ascii"))
    except ValueError:
        return None


def _attempt(raw: ConsumerRecord[bytes | None, bytes | None]) -> int:
    """How often the record was sent through, this time included; 1 unless a redrive says otherwise."""
    for name, value in raw.headers or ():
        if name == HEADER_ATTEMPT and value and value.isdigit() and len(value) < 7:
            return max(1, int(value))
    return 1


def _letter(  # noqa: PLR0917  private, and every caller names the record first
    raw: ConsumerRecord[bytes | None, bytes | None],
    event_id: str,
    run_id: UUID,
    reason: str,
    message: str,
    hint: str,
    *,
    sqlstate: str = "",
) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": _letter_id(raw),
            "stage": Stage.SINK,
            "reason": reason,
            "message": message[:2_000],
            "hint": hint,
            "failed_at": datetime.now(UTC),
            "event_id": event_id,
            "run_id": run_id,
            "topic": raw.topic,
            "partition": raw.partition,
            "offset": raw.offset,
            "sqlstate": sqlstate,
            "attempts": _attempt(raw),
            **payload(raw.value, limit_bytes=_LETTER_ROOM, key=raw.key, headers=list(raw.headers or ())),
        }
    )
