"""
One task from where it stands to its end: read, publish, acknowledgements, checkpoint, in this order.

While the broker acknowledges one batch, the next one is read; never are two batches of a task published at a time, so
that a payment's events keep their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from connectors.envelope import Connector, Envelope, Prepared
from connectors.lag import SourceLag
from connectors.limit import RateLimit
from connectors.ports import Ports
from connectors.run import Run
from connectors.source import WHOLE_OBJECT, Batch, CheckpointedSource, Rejection, Source, SourceRecord
from connectors.spec import ConnectorConfig, EventFilter, FilterTestIds
from connectors.task import Work
from connectors.wait import END, Guard, Stopped, abandon, broken
from schemas import metric
from schemas.checkpoint import Checkpoint, Counts
from schemas.errors import RecordRejected, TillError
from schemas.failpoint import failpoint

TEST_PREFIX = "test-"  # seed 001, custom filtering
CANCEL_S = 1.5  # for acknowledgements, and for the last checkpoint, of a run that is cancelled: it ends within 5 s
_PART_SAVED_S = 30.0  # between two checkpoints inside a batch: each names every event of it that is out
_MOST_PART = 8_192  # events named by a checkpoint, 35 bytes each; of more the first are published again


@dataclass(frozen=True, slots=True)
class Filter:
    """The declared rules by which records are left out: counted, not published."""

    test_ids: bool = False
    event_types: frozenset[str] = frozenset()
    rules: tuple[EventFilter, ...] = ()

    @classmethod
    def of(cls, config: ConnectorConfig, *, production: bool) -> Filter:
        """The rules of a connector."""
        policy = config.filter_test_ids
        test_ids = policy is FilterTestIds.ALWAYS or (policy is FilterTestIds.IN_PRODUCTION and production)
        return cls(test_ids, frozenset(config.event_types), config.filters)

    def keep(self, records: Sequence[SourceRecord]) -> Sequence[SourceRecord]:
        """Those that no rule leaves out, in order."""
        if not self.test_ids and not self.event_types and not self.rules:
            return records
        return [record for record in records if self._keeps(record)]

    def _keeps(self, record: SourceRecord) -> bool:
        payment = record.payment
        if self.test_ids and payment.original_reference.startswith(TEST_PREFIX):
            return False
        if self.event_types and f"payment.{payment.status}" not in self.event_types:
            return False
        return not any(_matches(rule, record) for rule in self.rules)


def _matches(rule: EventFilter, record: SourceRecord) -> bool:
    text = record.headers.get(rule.header, "") if rule.header else getattr(record.payment, rule.field) or ""
    return text in rule.equals or (bool(rule.prefix) and text.startswith(rule.prefix))


class Delivery:
    """
    Brings one task's records out. `work` and `run` are updated after the acknowledgements, never before.

    `hold` lets time pass without keeping others waiting, and raises Stopped at a stop.
    """

    def __init__(
        self,
        connector: Connector,
        source: Source,
        config: ConnectorConfig,
        ports: Ports,
        *,
        work: Work,
        run: Run,
        rules: Filter,
        checkpoint: Callable[[], Checkpoint],
        guard: Callable[[], Guard],
        progressed: Callable[[], None],
        hold: Callable[[float], Awaitable[None]],
        limit: RateLimit,
        lag: SourceLag,
    ) -> None:
        self._connector = connector
        self._source = source
        self._config = config
        self._out = ports
        self._work = work
        self._run = run
        self._rules = rules
        self._checkpoint = checkpoint
        self._guard = guard
        self._progressed = progressed
        self._hold = hold
        self._limit = limit
        self._lag = lag
        self._envelope = Envelope(connector, run.id, work.task, work.revision_at)
        self._saved_at = ports.clock.monotonic()
        self._unsaved = False
        self._listener = source if isinstance(source, CheckpointedSource) else None

    async def attempt(self) -> None:
        """
        Go on from what is acknowledged to the task's end; `work.done` then.

        Raises:
            TillError: as its disposition says; what was acknowledged before stays so.
            Stopped: at a stop, after acknowledgements and a checkpoint, as far as `stop_s` allowed.
        """
        if not self._work.discovered:
            # Before anything is published, or a crash would give the object a second revision.
            await self._save()
            self._work.discovered = True
        try:
            await self._read_to_end()
        except RecordRejected as exc:
            await self._deliver(self._prepared_object(exc))
        except Stopped:
            await self._save_at_stop()
            raise
        if self._work.task.recurring:
            if self._unsaved:
                await self._save()
            return
        self._work.done = True
        try:
            await self._save()
        except BaseException:
            self._work.done = False
            raise

    async def _read_to_end(self) -> None:
        batches = self._source.read(self._work.task, self._work.cursor)
        in_flight: asyncio.Task[None] | None = None
        async with self._guard() as guard:
            try:
                while (batch := await guard.next(batches, f"reading {self._work.task.descriptor}")) is not END:
                    failpoint("after_read")
                    ready = self._usable(batch)
                    if in_flight is not None:
                        last, in_flight = in_flight, None
                        await self._acknowledged(last, guard)
                    await self._until_due(ready)
                    in_flight = asyncio.create_task(self._deliver(ready), name="deliver")
                if in_flight is not None:
                    last, in_flight = in_flight, None
                    await self._acknowledged(last, guard)
            except asyncio.CancelledError:
                if in_flight is not None:
                    await abandon(in_flight)
                    in_flight = None
                raise
            finally:
                if in_flight is not None:
                    await self._settled(in_flight)
                await guard.close(batches)

    async def _acknowledged(self, in_flight: asyncio.Task[None], guard: Guard) -> None:
        """Wait for a delivery; at a stop for `stop_s` at most."""
        try:
            await asyncio.wait({in_flight, guard.stopping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await abandon(in_flight)
            raise
        if not in_flight.done():
            await self._settled(in_flight)
            raise Stopped
        in_flight.result()

    async def _settled(self, task: asyncio.Task[None]) -> None:
        """Wait for `stop_s` at most, then give it up. How it ends does not matter: what it lacks is read again."""
        within_s = min(self._config.stop_s, CANCEL_S) if self._run.cancelled else self._config.stop_s
        timer = asyncio.ensure_future(self._out.clock.sleep(within_s))
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        await abandon(task)

    async def _until_due(self, ready: _Ready) -> None:
        """Hold the batch back until its youngest record is `consume_lag_s` old. Nothing of it is out meanwhile."""
        lag_s = self._config.consume_lag_s
        if not lag_s or not ready.kept:
            return
        now = self._out.clock.now()
        # a source whose clock is ahead of ours holds nothing back for longer than asked
        due_at = min(self._youngest(ready), now) + timedelta(seconds=lag_s)
        if due_at > now:
            await self._hold((due_at - now).total_seconds())

    def _youngest(self, ready: _Ready) -> datetime:
        return max(record.revision.at if record.revision else self._work.revision_at for record in ready.kept)

    def _usable(self, batch: Batch) -> _Ready:
        """
        As `_prepared`.

        Raises:
            SourceBroken: retry; it is no batch of records as the contract has them.
        """
        try:
            orjson.dumps(dict(batch.cursor))  # what a checkpoint cannot hold, it would find out too late
            return self._prepared(batch)
        except TillError:
            raise
        except Exception as exc:
            raise broken(exc, f"a batch of {self._work.task.descriptor}") from exc

    def _prepared(self, batch: Batch) -> _Ready:
        kept = self._rules.keep(batch.records)
        filtered = batch.filtered + len(batch.records) - len(kept)
        redact = self._out.redact
        rejections = [rejection._replace(message=redact(rejection.message)) for rejection in batch.rejections]
        return _Ready(batch, kept, filtered, self._envelope.prepare(kept, rejections, self._out.clock.now()))

    def _prepared_object(self, exc: RecordRejected) -> _Ready:
        rejection = Rejection(WHOLE_OBJECT, exc.code, str(exc), b"")
        return self._prepared(Batch((), (rejection,), self._work.cursor or {}))

    async def _deliver(self, ready: _Ready) -> None:
        prepared = ready.prepared.without(self._work.part)
        if ready.batch.read:
            self._run.announce()
        if ready.batch.note and not self._work.note:
            self._work.note = self._out.redact(ready.batch.note)
            self._run.warn(f"{self._work.task.descriptor}: {self._work.note}")
        if self._limit.step:
            prepared = await self._paced(prepared)
        self._work.in_doubt = True
        failpoint("before_publish")
        if prepared.messages:
            prepared = await self._publish(prepared)
        if prepared.letters:
            await self._out.dead_letters.dead_letter(prepared.letters)
        self._work.in_doubt = False
        failpoint("after_publish")
        self._count(prepared, ready.filtered)
        self._work.cursor, self._work.part = ready.batch.cursor, ()
        self._unsaved = True
        if self._work.task.recurring and ready.kept:
            self._lag.waits(self._work.task.key, self._youngest(ready))
        self._progressed()
        if self._out.clock.monotonic() - self._saved_at >= self._config.checkpoint_s:
            await self._save()

    async def _paced(self, prepared: Prepared) -> Prepared:
        """
        Publish the messages at the connector's pace, and count them; what is left are the letters.

        A cursor stands between two batches only, so what is out of this one is remembered by its events: whoever goes
        on after a stop leaves them out. Raises Stopped.
        """
        step, letters = self._limit.step, prepared.letters
        for begin in range(0, len(prepared.messages), step):
            part = Prepared(prepared.messages[begin : begin + step], prepared.digests[begin : begin + step], ())
            await self._limit.turn(len(part.messages), stop=self._run.stop)
            self._work.in_doubt = True
            failpoint("before_publish")
            sent = await self._publish(part)
            self._work.in_doubt = False
            letters = [*letters, *sent.letters]
            self._count(Prepared(sent.messages, sent.digests, ()))
            self._work.part = (*self._work.part, *sent.digests)[-_MOST_PART:]
            self._unsaved = True
            self._progressed()
            if self._out.clock.monotonic() - self._saved_at >= max(_PART_SAVED_S, self._config.checkpoint_s):
                await self._save()
        return Prepared((), (), letters)

    async def _publish(self, prepared: Prepared) -> Prepared:
        """Publish all; what the broker would refuse for itself becomes a letter instead, and the rest goes through."""
        try:
            await self._out.publisher.publish(prepared.messages)
        except RecordRejected as exc:
            if len(prepared.messages) == 1:
                return self._envelope.refuse(prepared, exc, self._out.clock.now())
            first, second = prepared.halves()
            return (await self._publish(first)).plus(await self._publish(second))
        return prepared

    def _count(self, prepared: Prepared, filtered: int = 0) -> None:
        published, rejected = len(prepared.messages), len(prepared.letters)
        if prepared.letters and not self._work.first_rejection:
            self._work.first_rejection = prepared.letters[0].message
        counts = Counts(
            read=published + rejected + filtered,
            published=published,
            rejected=rejected,
            filtered=filtered,
            published_sum=prepared.published_sum,
            rejected_sum=prepared.rejected_sum,
        )
        self._work.counts = self._work.counts.plus(counts)
        self._work.used = self._work.used or published + filtered > 0
        self._run.counts = self._run.counts.plus(counts)
        for fate, count in (("published", published), ("rejected", rejected), ("filtered", filtered)):
            if count:
                self._out.meter.add(metric.RECORDS_TOTAL, count, connector=self._connector.name, fate=fate)
        for letter in prepared.letters:
            self._out.meter.add(metric.LETTERS_TOTAL, stage=letter.stage, reason=letter.reason)

    async def _save(self) -> None:
        failpoint("before_checkpoint")
        cursor = self._work.cursor
        await self._out.checkpoints.save(self._checkpoint())
        self._saved_at = self._out.clock.monotonic()
        self._unsaved = False
        if self._listener is not None and cursor is not None:
            try:
                self._listener.checkpointed(self._work.task, cursor)
            except Exception as exc:  # it is to raise nothing
                raise broken(exc, f"a checkpoint of {self._work.task.descriptor}") from exc

    async def _save_at_stop(self) -> None:
        if not self._unsaved:
            return
        await self._settled(asyncio.create_task(self._save(), name="last checkpoint"))


@dataclass(frozen=True, slots=True)
class _Ready:
    batch: Batch
    kept: Sequence[SourceRecord]
    filtered: int
    prepared: Prepared
