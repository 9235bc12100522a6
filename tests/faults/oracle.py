"""
The checker: compares what was sent with the topic, the tables, the ledger and the dead letters.

It tells everything that is wrong at once, and of a record that is missing, where it was last seen. It reads with
clients and queries of its own; the project's `till ledger verify` is asked too, and has to agree.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas.letter import DeadLetter, sink_letter_id
from sinks.ledger import verify
from streams.batch import read_any_header
from tests.faults.truth import Sent, Truth

_READ_S = 30.0
_SHOWN = 12
_MODULUS = 1 << 128

Place = tuple[int, int]  # partition, offset


async def records_of(bootstrap: str, topic: str) -> list[ConsumerRecord]:
    """Every record that the topic holds now."""
    read_any_header()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(_READ_S):
            await consumer._client.force_metadata_update()
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
    finally:
        await consumer.stop()


@dataclass(slots=True)
class Seen:
    """What the topic, the tables and the dead-letter topic hold."""

    log: list[ConsumerRecord]
    letters: list[DeadLetter]
    group: Mapping[int, int]
    sink: Mapping[int, int]
    events: Mapping[str, Any]
    payments: Mapping[str, Any]
    deaths: list[Any]
    ledger: Mapping[UUID, Counter[str]]
    sums: Mapping[UUID, int]
    disagreements: list[str]
    places: Mapping[tuple[bytes | None, bytes | None, str], list[Place]] = field(init=False)

    def __post_init__(self) -> None:
        places: defaultdict[tuple[bytes | None, bytes | None, str], list[Place]] = defaultdict(list)
        for record in self.log:
            places[record.key, record.value, _run_header(record.headers)].append((record.partition, record.offset))
        self.places = places

    def places_of(self, sent: Sent) -> list[Place]:
        """Where the topic holds the record; several places, if it was sent again."""
        return self.places.get((sent.key, sent.value, _run_header(sent.headers)), [])


async def look(bootstrap: str, events: str, dead_letters: str, group: Mapping[int, int], pool: asyncpg.Pool) -> Seen:
    """Everything there is to see."""
    letters = [
        DeadLetter.model_validate_json(record.value or b"") for record in await records_of(bootstrap, dead_letters)
    ]
    ledger: defaultdict[UUID, Counter[str]] = defaultdict(Counter)
    sums: defaultdict[UUID, int] = defaultdict(int)
    for row in await pool.fetch("SELECT run, outcome, events, digest_sum FROM run_ledger"):
        ledger[row["run"]][row["outcome"]] += row["events"]
        sums[row["run"]] = (sums[row["run"]] + int(row["digest_sum"])) % _MODULUS
    findings = [finding for finding in await verify(pool) if not finding.awaiting]
    return Seen(
        log=await records_of(bootstrap, events),
        letters=letters,
        group=group,
        sink=dict(await pool.fetch("SELECT log_partition, next_offset FROM sink_offsets WHERE topic = $1", events)),
        events={row["event_id"]: row for row in await pool.fetch("SELECT event_id, run FROM payment_events")},
        payments={row["reference"]: row for row in await pool.fetch("SELECT * FROM payments")},
        deaths=await pool.fetch("SELECT event_id, run, letter_id, reason FROM event_deaths"),
        ledger=ledger,
        sums=sums,
        disagreements=[f"{each.hop} {each.run} {each.subject}: {each.problem}" for each in findings],
    )


def check(truth: Truth, seen: Seen, *, resent: bool = False) -> None:
    """
    Raise an AssertionError that names everything that is not as the truth has it.

    `resent`: a publisher sent some records again, so that the topic may hold one more often than it was made.
    """
    problems = [
        *_topic(truth, seen, resent=resent),
        *_payments(truth, seen),
        *_events(truth, seen),
        *_letters(truth, seen),
        *_ledger(truth, seen),
        *_offsets(seen),
        *(f"`till ledger verify` says: {each}" for each in seen.disagreements),
    ]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        raise AssertionError(f"{len(problems)} problems, the first of them:\n  {shown}")


def last_seen(sent: Sent, seen: Seen) -> str:
    """How far the record got."""
    places = seen.places_of(sent)
    if not places:
        return "never reached the topic"
    steps = [f"is on the topic at {', '.join(f'{partition}/{offset}' for partition, offset in places)}"]
    partition, offset = places[-1]
    for name, offsets in (("group", seen.group), ("sink", seen.sink)):
        after = offsets.get(partition)
        side = "never saw the partition" if after is None else f"is {'past it' if after > offset else 'not there yet'}"
        steps.append(f"the {name} {side} ({after})")
    row = seen.events.get(sent.event_id)
    steps.append("it has no event row" if row is None else f"it has an event row of run {row['run']}")
    letters = [letter for letter in seen.letters if (letter.partition, letter.offset) in places]
    steps.append(f"{len(letters)} letters tell of it" if letters else "no letter tells of it")
    return ", ".join(steps)


def _topic(truth: Truth, seen: Seen, *, resent: bool) -> Iterator[str]:
    wanted = Counter((sent.key, sent.value, _run_header(sent.headers)) for sent in truth.sent)
    named = {(sent.key, sent.value, _run_header(sent.headers)): sent for sent in truth.sent}
    for content, count in wanted.items():
        found = len(seen.places.get(content, ()))
        if found < count or (found > count and not resent):
            yield f"{named[content].name} was sent {count} times, the topic holds it {found} times"
    for content in set(seen.places) - set(wanted):
        yield f"the topic holds a record at {seen.places[content]} that nobody sent"


def _payments(truth: Truth, seen: Seen) -> Iterator[str]:
    for reference, expected in truth.payments.items():
        row = seen.payments.get(reference)
        if row is None:
            about = [sent for sent in truth.sent if sent.value and f'"{reference}"'.encode() in sent.value]
            yield f"payment {reference} is missing; its last record {last_seen(about[-1], seen)}"
            continue
        wanted = (expected.status, expected.amount, expected.initial, expected.adjustments)
        found = (row["status"], row["amount"], row["initial_amount"], row["adjustments"])
        if found != wanted:
            yield f"payment {reference} is {_told(found)}, and should be {_told(wanted)}"
    for reference in set(seen.payments) - set(truth.payments):
        yield f"payment {reference} is there, and nobody sent it"


def _events(truth: Truth, seen: Seen) -> Iterator[str]:
    for sent in truth.sent:
        if not sent.is_poison and sent.event_id not in seen.events:
            yield f"event {sent.name} is lost: it {last_seen(sent, seen)}"
        elif sent.is_poison and sent.event_id in seen.events:
            yield f"event {sent.name} should have died ({sent.reason}), and has a row"
    for event_id in set(seen.events) - truth.stored - {sent.event_id for sent in truth.poison}:
        yield f"event {event_id} has a row, and nobody sent it"


def _letters(truth: Truth, seen: Seen) -> Iterator[str]:
    """One letter for each poison record, by its id; publishing a letter twice leaves it one letter."""
    by_place: defaultdict[Place, list[DeadLetter]] = defaultdict(list)
    for letter in seen.letters:
        by_place[letter.partition or 0, letter.offset or 0].append(letter)
    counted = {row["letter_id"]: row for row in seen.deaths}
    expected: set[Place] = set()
    for sent in truth.poison:
        places = seen.places_of(sent)
        expected.update(places)
        told = [place for place in places if place in by_place]
        if not told or len(told) < len(places):
            yield f"poison {sent.name} ({sent.reason}) has no letter: it {last_seen(sent, seen)}"
        for place in told:
            yield from _letter(sent, place, by_place[place])
        if not any(letter.id in counted for place in told for letter in by_place[place]):
            yield f"poison {sent.name} ({sent.reason}) has a letter, but is not counted dead"
    for place in set(by_place) - expected:
        letter = by_place[place][0]
        yield f"{letter.event_id} at {place} has a letter ({letter.reason}: {letter.message}), and is no poison"


def _letter(sent: Sent, place: Place, letters: list[DeadLetter]) -> Iterator[str]:
    if len({letter.id for letter in letters}) > 1:
        yield f"poison {sent.name} at {place} has {len(letters)} letters of different ids"
    letter = letters[0]
    if letter.reason != sent.reason:
        yield f"poison {sent.name} should have died of {sent.reason}, and died of {letter.reason}: {letter.message}"
    whole = (letter.key_bytes(), letter.value_bytes(), tuple(letter.header_pairs()), letter.truncated)
    if whole != (sent.key, sent.value, sent.headers, False):
        yield f"the letter of {sent.name} does not hold the record's whole key, value and headers"
    if (letter.event_id, letter.run_id) != (_counted_as(sent, letter.topic, place), sent.run_id):
        yield f"the letter of {sent.name} is attributed to {letter.event_id} of run {letter.run_id}"


def _ledger(truth: Truth, seen: Seen) -> Iterator[str]:
    for run, wanted in truth.ledger.items():
        if seen.ledger.get(run, Counter()) != wanted:
            yield f"the ledger of run {run} says {dict(seen.ledger.get(run, {}))}, and should say {dict(wanted)}"
    for run in set(seen.ledger) - set(truth.ledger):
        yield f"the ledger knows run {run}, and nobody sent it"
    digests: defaultdict[UUID, dict[str, int]] = defaultdict(dict)
    for sent in truth.sent:
        topic, place = seen.log[0].topic if seen.log else "", next(iter(seen.places_of(sent)), (-1, -1))
        counted_as = _counted_as(sent, topic, place)
        digests[sent.run_id][counted_as] = int.from_bytes(hashlib.sha256(counted_as.encode()).digest()[:16])
    for run, by_id in digests.items():
        if sum(by_id.values()) % _MODULUS != seen.sums.get(run, 0):
            yield f"the ledger's sum for run {run} is that of other events than were sent"


def _counted_as(sent: Sent, topic: str, place: Place) -> str:
    """Its event id; of a record that names none, where it is and what it says."""
    if sent.event_id:
        return sent.event_id
    return f"{topic}/{place[0]}/{place[1]}/{sink_letter_id(topic, *place, key=sent.key, value=sent.value)}"


def _offsets(seen: Seen) -> Iterator[str]:
    ends: dict[int, int] = {}
    for record in seen.log:
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    for name, offsets in (("group", seen.group), ("sink", seen.sink)):
        if dict(offsets) != ends:
            yield f"the {name}'s offsets are {dict(offsets)}, and the log ends at {ends}"


def _run_header(headers: tuple[tuple[str, bytes], ...]) -> str:
    return next((value.decode("utf-8", "replace") for name, value in headers if name == "till-run"), "")


def _told(state: tuple[Any, ...]) -> str:
    status, amount, initial, adjustments = state
    return f"{status} {amount} of {initial} in {adjustments} adjustments"
