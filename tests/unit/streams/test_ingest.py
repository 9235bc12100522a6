"""The delivery core against a sink that refuses, breaks and heals on purpose: nothing returns before it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from schemas.codec import HEADER_ATTEMPT, HEADER_EVENT, HEADER_RUN, encode_event
from schemas.errors import DeadLetterUnavailable, SinkMisconfigured, SinkRefused, SinkUnavailable, SinkUnclear
from schemas.event import ConnectorEvent
from schemas.identity import foreign_id
from schemas.letter import DeadLetter
from schemas.metric import Metric, NullMeter
from schemas.payment import PaymentPayload, PaymentType, Status
from sinks.base import EXTERNAL_RUN, Applied, AsTheyAre, Dead, Place, Preparation, Record, Sink
from sinks.memory import MemorySink
from streams.breaker import DEATHS_IN_A_ROW
from streams.ingest import PIECE_EVENTS, Hold, Ingest, Poison, nameless_id
from streams.slice import Slice
from tillstream.embedded.process import holds

TOPIC = "till.events"
RUN = UUID(int=7)
Rule = Callable[[Sequence[Record]], None]


class RecordingSink:
    """Keeps what it was given, one entry a transaction; `rules` may refuse first."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)
        self.stored: list[str] = []
        self.dead: list[Dead] = []
        self.next_offset = 0
        self.calls = 0
        self.counted: set[str] = set()

    def preparation(self) -> Preparation:
        return AsTheyAre()

    async def apply(
        self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
    ) -> Applied:
        self.calls += 1
        for rule in self.rules:
            rule(records)
        self.stored += [record.payment.reference for record in records]
        self.dead += dead
        if next_offset is not None:
            assert next_offset > self.next_offset
            self.next_offset = next_offset
        return Applied(applied=len(records), dead=len(dead))

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        return {0: self.next_offset}

    async def is_counted(self, place: Place, record: Record) -> bool:
        return record.event_id in self.counted


class LetterPile:
    """Keeps letters; fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.letters: list[DeadLetter] = []

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        if self.failures:
            self.failures -= 1
            raise DeadLetterUnavailable("refused")
        self.letters += letters


def refusing(*references: str, error: Callable[[], Exception] = lambda: SinkRefused("no", sqlstate="22P05")) -> Rule:
    def rule(records: Sequence[Record]) -> None:
        if any(record.payment.reference in references for record in records):
            raise error()

    return rule


def failing(times: int, error: Exception) -> Rule:
    left = [times]

    def rule(records: Sequence[Record]) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return rule


def raw(
    offset: int, value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
) -> ConsumerRecord:
    return ConsumerRecord(TOPIC, 0, offset, 1_736_500_000_000, 0, key, value, None, 0, 0, tuple(headers))


def good(offset: int, reference: str | None = None, event_id: str | None = None) -> ConsumerRecord:
    payment = PaymentPayload(
        provider="example",
        reference=reference or f"P{offset}",
        type=PaymentType.PAYIN,
        status=Status.SUCCEEDED,
        amount=100,
        asset="USD",
    )
    key = foreign_id("example", payment.reference)
    event = ConnectorEvent(
        id=event_id or f"e{offset}",
        foreign_id=key,
        type="payment.succeeded",
        created_at=datetime(2025, 1, 10, tzinfo=UTC),
        payment=payment,
    )
    return raw(
        offset, encode_event(event), key.encode(), [(HEADER_EVENT, event.id.encode()), (HEADER_RUN, str(RUN).encode())]
    )


def sliced(records: Sequence[ConsumerRecord]) -> Slice:
    return Slice(TOPIC, 0, list(records), records[0].offset, records[-1].offset + 1, 0)


def core(sink: Sink, letters: LetterPile, sleep: Callable[[float], Awaitable[None]] | None = None) -> Ingest:
    async def no_time(seconds: float) -> None:
        await asyncio.sleep(0)

    return Ingest(sink, letters, NullMeter(), sleep=sleep or no_time, first_breaker_pause_s=0.0)


async def applied(sink: Sink, letters: LetterPile, records: Sequence[ConsumerRecord]) -> Applied:
    ingest = core(sink, letters)
    return await ingest.apply(ingest.prepare(sliced(records)))


async def test_a_good_slice_is_one_transaction() -> None:
    sink = RecordingSink()

    total = await applied(sink, LetterPile(), [good(n) for n in range(500)])

    assert total == Applied(applied=500)
    assert (sink.calls, sink.next_offset) == (1, 500)


async def test_preparing_in_turns_gives_the_same_and_lets_others_run_between() -> None:
    ingest = core(RecordingSink(), LetterPile())
    records = [good(n) for n in range(2 * PIECE_EVENTS)] + [raw(2 * PIECE_EVENTS, b"garbage", b"k")]
    turns = []

    preparing = [asyncio.create_task(ingest.prepare_in_turns(sliced(part))) for part in (records[:-1], records)]
    while not preparing[1].done():
        turns.append(preparing[0].done())
        await asyncio.sleep(0)

    assert turns.count(False) >= 2
    assert turns.count(True) >= 3
    clean, poisoned = [await each for each in preparing]
    assert list(clean.items) == list(ingest.prepare(sliced(records[:-1])).items)
    assert (clean.poisoned, poisoned.poisoned) == (False, True)
    assert [item.offset for item in poisoned.items] == [each.offset for each in records]
    assert [type(item) for item in poisoned.items[-2:]] == [Record, Poison]


async def test_ids_come_from_the_headers_where_they_are_there() -> None:
    ingest = core(RecordingSink(), LetterPile())
    bare = good(1)

    prepared = ingest.prepare(sliced([good(0), raw(1, bare.value, bare.key)]))

    first, second = prepared.items
    assert (first.event_id, first.run_id) == ("e0", RUN)
    assert (second.event_id, second.run_id) == ("e1", EXTERNAL_RUN)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (raw(1, None, b"k"), "tombstone"),
        (raw(1, b"garbage", b"k"), "undecodable"),
        (raw(1, good(1).value, None), "null_key"),
        (raw(1, good(1).value, b"example/P2"), "wrong_key"),
    ],
)
async def test_poison_becomes_a_whole_letter_and_its_neighbours_pass(record: ConsumerRecord, reason: str) -> None:
    sink, pile = RecordingSink(), LetterPile()

    total = await applied(sink, pile, [good(0), record, good(2)])

    (letter,) = pile.letters
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (reason, TOPIC, 0, 1)
    assert (letter.value_bytes(), letter.key_bytes()) == (record.value, record.key)
    assert sink.stored == ["P0", "P2"]
    assert [dead.letter_id for dead in sink.dead] == [letter.id]
    assert (total.applied, total.dead, sink.next_offset) == (2, 1, 3)


async def test_undecodable_bytes_are_attributed_by_their_headers() -> None:
    sink, pile = RecordingSink(), LetterPile()

    await applied(sink, pile, [raw(0, b"garbage", b"k", [(HEADER_EVENT, b"e-9"), (HEADER_RUN, str(RUN).encode())])])

    assert (sink.dead[0].event_id, sink.dead[0].run_id) == ("e-9", RUN)


async def test_a_redriven_record_that_dies_again_is_one_attempt_older() -> None:
    pile = LetterPile()

    await applied(RecordingSink(), pile, [raw(0, b"x", b"k", [(HEADER_ATTEMPT, b"2")]), raw(1, b"x", b"k")])

    assert [letter.attempts for letter in pile.letters] == [2, 1]


async def test_another_record_under_a_known_event_id_dies_with_a_letter_of_its_own_and_the_rest_is_stored() -> None:
    sink, pile = MemorySink(), LetterPile(failures=1)
    slice_ = [good(0), good(1, event_id="e0"), good(2), good(3, reference="P0", event_id="e0"), good(4, event_id="e2")]

    totals = [await applied(sink, pile, slice_) for _ in range(2)]

    assert totals == [Applied(applied=2, dead=2, redelivered=1), Applied(redelivered=5)]
    assert [(letter.offset, letter.reason, letter.event_id) for letter in pile.letters] == [
        (1, "event_id_reused", "e0"),
        (4, "event_id_reused", "e2"),
    ]
    assert pile.letters[0].value_bytes() == slice_[1].value
    assert {one.letter_id for _, one in sink.deaths.values()} == {letter.id for letter in pile.letters}
    assert dict(sink.offsets) == {Place(TOPIC, 0): 5}


async def test_a_reused_event_id_is_not_passed_before_its_letter_is_durable() -> None:
    sink, pile = MemorySink(), LetterPile(failures=1_000_000)

    applying = asyncio.create_task(applied(sink, pile, [good(0), good(1, event_id="e0")]))
    for _ in range(100):
        await asyncio.sleep(0)

    assert not applying.done()
    assert (sink.events, sink.offsets) == ({}, {})
    applying.cancel()


async def test_a_partition_in_which_every_event_id_is_the_same_opens_its_breaker() -> None:
    sink, pile = MemorySink(), LetterPile()
    held: list[float] = []

    async def note(seconds: float) -> None:
        held.append(seconds)
        await asyncio.sleep(0)

    ingest = Ingest(sink, pile, NullMeter(), sleep=note, first_breaker_pause_s=0.001)
    await ingest.apply(ingest.prepare(sliced([good(n, event_id="1") for n in range(DEATHS_IN_A_ROW + 3)])))

    assert len(pile.letters) == DEATHS_IN_A_ROW + 2
    assert held


async def test_a_place_with_other_bytes_is_another_letter_and_another_event() -> None:
    """A topic that was deleted and made again begins with offset 0."""
    before, after = raw(0, b"x", b"k"), raw(0, b"y", b"k")
    others = [raw(0, b"x", b"l"), raw(0, b"x", None), raw(0, b"x", b""), raw(0, None, b"k"), raw(0, b"", b"k")]
    sink, pile = RecordingSink(), LetterPile()

    for each in (before, after, *others, before):
        sink.next_offset = 0
        await applied(sink, pile, [each])

    assert len({letter.id for letter in pile.letters}) == len({dead.event_id for dead in sink.dead}) == 7
    assert pile.letters[0].id == pile.letters[-1].id
    assert sink.dead[0] == sink.dead[-1]


async def test_garbage_in_the_headers_is_as_good_as_none() -> None:
    sink, pile = RecordingSink(), LetterPile()
    garbage = raw(0, b"x", b"k", [(HEADER_EVENT, b"\x00"), (HEADER_RUN, b"\xff"), (HEADER_ATTEMPT, b"-1")])

    await applied(sink, pile, [garbage])

    assert (sink.dead[0].event_id, sink.dead[0].run_id) == (nameless_id(garbage), EXTERNAL_RUN)


async def test_one_refused_record_in_a_thousand_dies_alone_in_few_transactions() -> None:
    sink, pile = RecordingSink(refusing("P700")), LetterPile()

    total = await applied(sink, pile, [good(n) for n in range(1_000)])

    assert [letter.offset for letter in pile.letters] == [700]
    assert pile.letters[0].sqlstate == "22P05"
    assert (total.applied, total.dead, sink.next_offset) == (999, 1, 1_000)
    assert sink.stored == [f"P{n}" for n in range(1_000) if n != 700]
    assert sink.calls <= 2 * 10 + 2


async def test_taking_a_slice_apart_is_progress_that_the_watchdog_sees() -> None:
    sink = RecordingSink(refusing("P700"))
    ingest = core(sink, LetterPile())

    await ingest.apply(ingest.prepare(sliced([good(n) for n in range(1_000)])))

    assert ingest.steps[Place(TOPIC, 0)] > 10


async def test_an_unavailable_database_is_waited_out_and_nothing_dies() -> None:
    sink, pile = RecordingSink(failing(50, SinkUnavailable("gone", sqlstate="57P01"))), LetterPile()

    total = await applied(sink, pile, [good(n) for n in range(10)])

    assert (total.applied, pile.letters, sink.calls) == (10, [], 51)


async def test_a_missing_table_holds_the_partition_visibly_and_kills_no_record() -> None:
    sink, pile = RecordingSink(failing(3, SinkMisconfigured("no table", sqlstate="42P01"))), LetterPile()
    seen: list[dict[Place, Hold]] = []
    ingest = core(sink, pile)

    async def look(seconds: float) -> None:
        seen.append(dict(ingest.holds))

    ingest.sleep = look
    await ingest.apply(ingest.prepare(sliced([good(0)])))

    assert seen == [{Place(TOPIC, 0): Hold.CONFIGURATION}] * 3
    assert (ingest.holds, pile.letters, sink.stored) == ({}, [], ["P0"])


class Gauges(NullMeter):
    """What the gauges say now, zeros left out."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, ...], float] = {}

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        key = (metric.name, *labels.values())
        self.now.pop(key, None)
        if value:
            self.now[key] = value


async def test_a_partition_counts_as_held_also_while_it_is_tried_again_and_for_one_reason_at_a_time() -> None:
    """A try on a frozen database takes longer than the pause after it: the gauge must not say that all is well."""
    errors: list[Exception] = [SinkUnavailable("gone"), SinkUnavailable("gone"), SinkMisconfigured("no table")]
    gauges, seen = Gauges(), []

    def look_and_fail(records: Sequence[Record]) -> None:
        seen.append([key[-1] for key in gauges.now])
        if errors:
            raise errors.pop(0)

    ingest = core(RecordingSink(look_and_fail), LetterPile())
    ingest.meter = gauges
    await ingest.apply(ingest.prepare(sliced([good(0)])))

    assert seen == [[], ["database"], ["database"], ["configuration"]]
    assert gauges.now == {}


@pytest.mark.parametrize("asleep", [True, False])
async def test_a_revoked_partition_leaves_no_hold_behind(asleep: bool) -> None:
    gauges, tries = Gauges(), []

    class Sink(RecordingSink):
        async def apply(
            self, place: Place, records: Sequence[Record], dead: Sequence[Dead] = (), *, next_offset: int | None
        ) -> Applied:
            tries.append(place)
            if len(tries) > 1 and not asleep:
                await asyncio.Event().wait()
            raise SinkUnavailable("gone")

    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    ingest = core(Sink(), LetterPile(), sleep=for_ever if asleep else None)
    ingest.meter = gauges
    applying = asyncio.create_task(ingest.apply(ingest.prepare(sliced([good(0)]))))
    assert await holds(lambda: bool(gauges.now) and len(tries) == (1 if asleep else 2), within_s=5)

    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying

    assert (gauges.now, ingest.holds, ingest.causes) == ({}, {}, {})


async def test_a_slice_with_an_undeliverable_dead_letter_does_not_return() -> None:
    """Returning is what lets the offset move, so here it must not return."""
    sink, pile = RecordingSink(), LetterPile(failures=10_000)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(applied(sink, pile, [raw(0, b"garbage", b"k"), good(1)]), 0.2)

    assert (sink.stored, sink.dead, sink.next_offset) == ([], [], 0)


async def test_a_letter_refused_for_a_while_is_sent_until_it_is_durable() -> None:
    sink, pile = RecordingSink(), LetterPile(failures=5)

    await applied(sink, pile, [raw(0, b"garbage", b"k"), good(1)])

    assert (len(pile.letters), sink.stored, sink.next_offset) == (1, ["P1"], 2)


async def test_an_unclear_error_kills_the_record_only_where_its_neighbours_pass() -> None:
    unclear = refusing("P3", error=lambda: SinkUnclear("what", sqlstate="XX000"))
    sink, pile = RecordingSink(unclear), LetterPile()

    total = await applied(sink, pile, [good(n) for n in range(8)])

    assert [letter.offset for letter in pile.letters] == [3]
    assert sorted(set(sink.stored)) == ["P0", "P1", "P2", "P4", "P5", "P6", "P7"]
    assert (total.dead, sink.next_offset) == (1, 8)


async def test_an_unclear_error_without_a_passing_neighbour_is_held() -> None:
    sink, pile = RecordingSink(failing(10**9, SinkUnclear("what", sqlstate="XX000"))), LetterPile()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(applied(sink, pile, [good(0), good(1)]), 0.2)

    assert (pile.letters, sink.next_offset) == ([], 0)


async def test_a_record_that_went_through_before_is_not_buried_now() -> None:
    sink, pile = RecordingSink(refusing("P1")), LetterPile()
    sink.counted.add("e1")

    await applied(sink, pile, [good(0), good(1)])

    assert (pile.letters, sink.dead, sink.next_offset) == ([], [], 2)


async def test_the_breaker_stops_the_world_from_dying() -> None:
    """101 poisonous records in a row: the hundred-and-first waits for the breaker, and nothing after it has died."""
    sink, pile = RecordingSink(), LetterPile()
    waits: list[int] = []

    async def count(seconds: float) -> None:
        waits.append(len(pile.letters))

    ingest = core(sink, pile, sleep=count)
    ingest.first_breaker_pause_s = 0.05
    await ingest.apply(ingest.prepare(sliced([raw(n, b"garbage", b"k") for n in range(101)] + [good(101)])))

    assert waits
    assert set(waits) == {100}
    assert (len(pile.letters), sink.stored, sink.next_offset) == (101, ["P101"], 102)


async def test_a_bug_escapes() -> None:
    with pytest.raises(ZeroDivisionError):
        await applied(RecordingSink(failing(1, ZeroDivisionError())), LetterPile(), [good(0)])


async def test_record_with_a_header_name_that_is_not_utf8_is_poison_and_its_letter_has_the_bytes() -> None:
    sink, pile = RecordingSink(), LetterPile()
    whole = good(1)
    headers = [(HEADER_EVENT, b"e1"), ("\udcffx\udcfe", b"v"), ("étage", None), ("long" * 1_000, b"")]

    await applied(sink, pile, [good(0), raw(1, whole.value, whole.key, headers), good(2)])

    (letter,) = pile.letters
    assert (letter.reason, letter.event_id, sink.stored) == ("undecodable_header", "e1", ["P0", "P2"])
    kept = DeadLetter.model_validate_json(letter.model_dump_json())
    assert kept.header_pairs() == headers
    assert kept.headers[1] == ("\\xffx\\xfe", "dg==", "/3j+")
    assert (kept.value_bytes(), kept.key_bytes(), kept.truncated) == (whole.value, whole.key, False)
