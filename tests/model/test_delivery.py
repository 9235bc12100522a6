"""
The delivery model: the real core and the real SQL on a log that is a list, under every order of deliveries, crashes,
zombies, rebalances, replays and redrives that Hypothesis thinks of.

What must hold: offsets never pass what is stored; in the end each record has exactly one outcome in its run, the
payments are the fold of the set of events, and reading everything again changes nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
from aiokafka import ConsumerRecord
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from schemas.codec import HEADER_EVENT, HEADER_RUN, decode_event, decode_payment_event, encode_event
from schemas.errors import EventIdReused, RecordRejected
from schemas.identity import content_hash, digest_sum, event_digest
from schemas.letter import DeadLetter
from schemas.metric import NullMeter
from sinks.base import Applied, Dead, Place, Preparation, Record, facts
from sinks.fold import PaymentState, event_row, fold
from sinks.hash import TableHash, table_hash
from sinks.ledger import verify
from streams.ingest import Ingest, nameless_id
from streams.position import start_of
from streams.slice import Slice
from tests.model.harness import Harness, harness, temporary_database
from tests.model.history import record, records
from tests.services import Postgres

TOPIC = "till.events"
PARTITIONS = 2
RUNS = [UUID(int=number) for number in (1, 2, 3)]
# The same examples every time; a nightly job sets the variable and looks further.
RANDOM = bool(os.environ.get("TILL_RANDOM_EXAMPLES"))
EXAMPLES = int(os.environ.get("TILL_RANDOM_EXAMPLES", "60"))
STEPS = 30


class Crash(Exception):
    """The process dies here."""


@dataclass(frozen=True)
class Message:
    """One record of the log. `record` is None for poison, which has an outcome and no effect."""

    raw: ConsumerRecord[bytes | None, bytes | None]
    record: Record | None
    pair: tuple[UUID, str]


@dataclass
class Letters:
    """The dead-letter topic."""

    published: dict[str, DeadLetter]

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self.published.setdefault(letter.id, letter)


class Dying:
    """The real sink, in a process that dies before or after its commit if told so."""

    def __init__(self, harness: Harness) -> None:
        self._sink = harness.sink
        self.dies: str = ""

    def preparation(self) -> Preparation:
        return self._sink.preparation()

    async def apply(
        self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
    ) -> Applied:
        if self.dies == "before":
            raise Crash
        applied = await self._sink.apply(place, records, dead, next_offset=next_offset)
        if self.dies == "after":
            raise Crash
        return applied

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        return await self._sink.next_offsets(topic)

    async def is_counted(self, place: Place, record: Record) -> bool:
        return await self._sink.is_counted(place, record)


class Delivery(RuleBasedStateMachine):
    """One group, one log, one database; `harness` is set by the test."""

    harness: Harness

    @initialize()
    def begin(self) -> None:
        self.harness.empty()
        self.log: list[list[Message]] = [[] for _ in range(PARTITIONS)]
        self.committed: dict[int, int] = {}
        self.positions = dict.fromkeys(range(PARTITIONS), 0)
        self.zombies: list[Slice] = []
        self.letters = Letters({})
        self.redriven = 0
        self.sink = Dying(self.harness)
        self.ingest = Ingest(self.sink, self.letters, NullMeter(), first_breaker_pause_s=0.0)

    # what is published

    @rule(one=records(runs=RUNS), again=st.integers(0, 2))
    def produce(self, one: Record, again: int) -> None:
        """And perhaps resent: the broker took it, and the producer did not hear of it."""
        for _ in range(again + 1):
            self._publish(one)

    @rule(at=st.sampled_from([0.5, 1, 2]), amount=st.sampled_from([30, 70]), run=st.sampled_from(RUNS))
    def refund_before_or_after_its_payment(self, at: float, amount: int, run: UUID) -> None:
        self._publish(record("refunded", amount, reference="p1-x", parent="p1", at=at, revision=at, run=run))

    @precondition(lambda self: any(self.log))
    @rule(index=st.integers(0, 10_000), run=st.sampled_from(RUNS))
    def read_again_by_a_run(self, index: int, run: UUID) -> None:
        known = [message.record for part in self.log for message in part if message.record is not None]
        if known:
            self._publish(replace(known[index % len(known)], run_id=run))

    @precondition(lambda self: any(self.log))
    @rule(index=st.integers(0, 10_000), one=records(runs=RUNS), about_the_same=st.booleans())
    def give_an_event_id_twice(self, index: int, one: Record, about_the_same: bool) -> None:
        """As another team's client might; a record about the same payment comes through the same partition."""
        known = [message.record for part in self.log for message in part if message.record is not None]
        if not known:
            return
        twin = known[index % len(known)]
        if about_the_same:
            payment = twin.payment.model_copy(update={"amount": 55})  # type: ignore[union-attr]  # a model, in tests
            one = replace(twin, payment=payment, run_id=one.run_id)
        event = twin.event if about_the_same else one.event
        event = event.model_copy(update={"id": twin.event_id, "payment": one.payment})  # type: ignore[union-attr]
        self._publish(replace(one, event=event, event_id=twin.event_id))

    @rule(
        kind=st.sampled_from(["garbage", "tombstone", "null key", "wrong key", "too late an order"]),
        run=st.sampled_from(RUNS),
        named=st.booleans(),
    )
    def produce_poison(self, kind: str, run: UUID, named: bool) -> None:
        one = record("succeeded", reference=f"p{run.int}", run=run)
        key: bytes | None = one.event.foreign_id.encode()
        value: bytes | None = encode_event(one.event)  # type: ignore[arg-type]
        if kind == "garbage":
            value = b'{"half": '
        elif kind == "tombstone":
            value = None
        elif kind == "null key":
            key = None
        elif kind == "wrong key":
            key = b"another"
        else:  # it decodes, and only PostgreSQL refuses it: found by bisecting
            value = value.replace(b'"revision_seq":0', b'"revision_seq":%d' % 2**63) if value else None
        self._append(key, value, one.event_id if named else "", run, None)

    @precondition(lambda self: self.letters.published)
    @rule(index=st.integers(0, 10_000))
    def redrive_a_letter(self, index: int) -> None:
        """Mended, under a run and an event id of its own."""
        letter = list(self.letters.published.values())[index % len(self.letters.published)]
        value = (letter.value_bytes() or b"").replace(b"%d" % 2**63, b"0")
        try:
            event = decode_event(value)
        except RecordRejected:
            return
        assert event.payment is not None
        self.redriven += 1
        run = UUID(int=1_000 + self.redriven)
        mended = Record(event, event.payment, f"{letter.id}/{self.redriven}", run, 0)
        self._append(event.foreign_id.encode(), value, mended.event_id, run, mended)

    # what a worker does

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 12), commits=st.booleans())
    def deliver(self, partition: int, count: int, commits: bool) -> None:
        fetched = self._fetch(partition, self.positions[partition], count)
        if fetched is None:
            return
        self._apply(fetched)
        self.positions[partition] = fetched.next_offset
        if commits:
            self.committed[partition] = fetched.next_offset

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 12), dies=st.sampled_from(["before", "after"]))
    def crash_around_the_commit(self, partition: int, count: int, dies: str) -> None:
        fetched = self._fetch(partition, self.positions[partition], count)
        if fetched is None:
            return
        self.sink.dies = dies
        with pytest.raises(Crash):
            self._apply(fetched)
        self.sink.dies = ""
        self.rebalance()

    @rule()
    def rebalance(self) -> None:
        """Whoever has the partitions now begins where the group and the sink both are."""
        stored = self.harness.run(self.harness.sink.next_offsets(TOPIC))
        for partition in range(PARTITIONS):
            end = len(self.log[partition])
            committed = self.committed.get(partition)
            start = start_of(partition, committed=committed, sink=stored, beginning=0, end=end)
            self.positions[partition] = start.offset

    @rule(partition=st.integers(0, PARTITIONS - 1), start=st.integers(0, 10_000), count=st.integers(1, 12))
    def freeze_a_worker_with_a_slice(self, partition: int, start: int, count: int) -> None:
        fetched = self._fetch(partition, start % (self.positions[partition] + 1), count)
        if fetched is not None and fetched.first_offset <= self.positions[partition]:
            self.zombies.append(fetched)

    @precondition(lambda self: self.zombies)
    @rule()
    def thaw_the_zombie(self) -> None:
        """Its database transaction goes through; its offset commit is refused."""
        self._apply(self.zombies.pop())

    @rule()
    def read_everything_again(self) -> None:
        self.committed.clear()
        self.rebalance()

    @rule()
    def restore_an_empty_backup(self) -> None:
        """The database forgot all of it, the group nothing; every process was stopped for it."""
        self.harness.empty()
        self.zombies.clear()
        self.rebalance()

    # what holds

    @invariant()
    def no_offset_passes_what_is_stored(self) -> None:
        if not hasattr(self, "log"):
            return
        stored = self.harness.run(self.harness.sink.next_offsets(TOPIC))
        for partition, position in self.positions.items():
            assert position <= stored.get(partition, 0)

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        self.rebalance()
        self._drain()
        first = self._judge()
        self.read_everything_again()
        self._drain()
        assert self._judge() == first

    def _judge(self) -> TableHash:
        messages = [message for part in self.log for message in part]
        stored = self._stored(messages)
        assert self.harness.payments() == _states(stored)
        assert self._ledger() == _published(messages, stored)
        assert self._outcomes() == _expected_outcomes(messages, stored)
        assert self.harness.run(verify(self.harness.sink.pool)) == []
        for message in messages:
            if message.record is None:
                place = (message.raw.partition, message.raw.offset)
                (letter,) = (one for one in self.letters.published.values() if (one.partition, one.offset) == place)
                assert (letter.value_bytes(), letter.key_bytes()) == (message.raw.value, message.raw.key)
        told = {
            (one.run_id, one.event_id, content_hash(decode_payment_event(one.value_bytes())[1]))
            for one in self.letters.published.values()
            if one.reason == EventIdReused.code
        }
        assert {_outcome_key(message, stored) for message in messages if _is_reuse(message, stored)} <= told
        return self.harness.run(table_hash(self.harness.sink.pool))

    def _stored(self, messages: Sequence[Message]) -> dict[bytes, Record]:
        """Of each event id the record that it stands for: the first in the log, as far as the log has an order."""
        found: dict[bytes, Record] = {}
        several: defaultdict[bytes, list[Message]] = defaultdict(list)
        contents = self.harness.contents()
        for message in messages:
            if message.record is not None:
                row = event_row(message.record)
                several[row.digest].append(message)
                if contents[row.digest] == row.content:
                    found.setdefault(row.digest, message.record)
        assert found.keys() == several.keys() == contents.keys()
        for digest, twins in several.items():
            if len({message.raw.partition for message in twins}) == 1:
                assert facts(found[digest].payment) == facts(twins[0].record.payment)  # type: ignore[union-attr]
        return found

    def _ledger(self) -> dict[UUID, tuple[int, int]]:
        found: dict[UUID, tuple[int, int]] = {}
        for (run, *_), (events, total) in self.harness.ledger().items():
            known, known_total = found.get(run, (0, 0))
            found[run] = (known + events, (known_total + total) % 2**128)
        return found

    def _outcomes(self) -> dict[str, int]:
        found: defaultdict[str, int] = defaultdict(int)
        for (*_, outcome), (events, _) in self.harness.ledger().items():
            found[outcome] += events
        return dict(found)

    # the machinery

    def _publish(self, one: Record) -> None:
        value = encode_event(one.event)  # type: ignore[arg-type]
        self._append(one.event.foreign_id.encode(), value, one.event_id, one.run_id, one)

    def _append(self, key: bytes | None, value: bytes | None, event_id: str, run: UUID, one: Record | None) -> None:
        home = b"" if key is None else key
        partition = crc32(home) % PARTITIONS
        offset = len(self.log[partition])
        headers = [(HEADER_RUN, str(run).encode())]
        if event_id:
            headers.append((HEADER_EVENT, event_id.encode()))
        raw = ConsumerRecord(
            TOPIC, partition, offset, 0, 0, key, value, None, len(home), len(value or b""), tuple(headers)
        )
        pair = (run, event_id or (one.event.id if one else _id_of(value) or nameless_id(raw)))
        self.log[partition].append(Message(raw, one, pair))

    def _fetch(self, partition: int, start: int, count: int) -> Slice | None:
        raw = [message.raw for message in self.log[partition][start : start + count]]
        return Slice.of(TOPIC, partition, raw) if raw else None

    def _apply(self, fetched: Slice) -> None:
        self.harness.run(self.ingest.apply(self.ingest.prepare(fetched)))

    def _drain(self) -> None:
        for partition in range(PARTITIONS):
            while self.positions[partition] < len(self.log[partition]):
                self.deliver(partition, 500, True)


def _id_of(value: bytes | None) -> str | None:
    """The event id that the core finds in a record without headers that decodes, though PostgreSQL refuses it."""
    if value is None or b"%d" % 2**63 not in value:
        return None
    event, _ = decode_payment_event(value)
    return event.id


def _is_reuse(message: Message, stored: Mapping[bytes, Record]) -> bool:
    """Whether its event id stands for another record."""
    if message.record is None:
        return False
    return facts(message.record.payment) != facts(stored[event_digest(message.record.event_id)].payment)


def _outcome_key(message: Message, stored: Mapping[bytes, Record]) -> tuple[UUID, str, bytes]:
    """What has exactly one outcome: a run's event; of an id that stands for another record, each content."""
    reused = message.record is not None and _is_reuse(message, stored)
    return (*message.pair, content_hash(message.record.payment) if reused else b"")  # type: ignore[union-attr]


def _states(stored: Mapping[bytes, Record]) -> dict[bytes, PaymentState]:
    """The payments that the events in the log come to, by the fold in Python."""
    of_payment: defaultdict[bytes, list[Any]] = defaultdict(list)
    for row in map(event_row, stored.values()):
        of_payment[row.payment].append(row)
    return {payment: fold(events) for payment, events in of_payment.items()}


def _published(messages: Sequence[Message], stored: Mapping[bytes, Record]) -> dict[UUID, tuple[int, int]]:
    """How many events each run published, and the sum of their digests."""
    found: dict[UUID, tuple[int, int]] = {}
    for run, event_id, _ in {_outcome_key(message, stored) for message in messages}:
        events, total = found.get(run, (0, 0))
        found[run] = (events + 1, digest_sum([event_digest(event_id)], total))
    return found


def _expected_outcomes(messages: Sequence[Message], stored: Mapping[bytes, Record]) -> dict[str, int]:
    died = {_outcome_key(message, stored): message.record is None or _is_reuse(message, stored) for message in messages}
    applied = len({(row.payment, row.key) for row in map(event_row, stored.values())})
    dead = sum(died.values())
    expected = {"applied": applied, "duplicate": len(died) - applied - dead, "dead": dead}
    return {outcome: events for outcome, events in expected.items() if events}


@pytest.fixture(scope="module")
def real(postgres: Postgres) -> Iterator[Harness]:
    with temporary_database(postgres) as dsn, harness(dsn) as opened:
        yield opened


def test_whatever_happens_each_record_has_one_outcome_and_payments_are_the_fold_of_the_set(real: Harness) -> None:
    class Machine(Delivery):
        harness = real

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not RANDOM,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
