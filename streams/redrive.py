"""
Redrive: a dead letter's original bytes once more onto its topic, as a record of a run of its own.

The event id is a hash of (letter, attempt), so that the outcome is counted for the redrive and the closed run keeps
its counts; what
the record *says* is unchanged, so a fact that went through meanwhile is a duplicate and moves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from schemas.codec import HEADER_ATTEMPT, HEADER_EVENT, HEADER_RUN
from schemas.errors import RecordRejected
from schemas.letter import DeadLetter, Stage, is_text
from schemas.topic import Topics
from streams.partition import partition_of
from streams.publisher import Producer

_REPLACED = frozenset({HEADER_EVENT, HEADER_RUN, HEADER_ATTEMPT})


class Again:
    """A letter's record as it goes out again: a message, its partition, and the event id that it is counted under."""

    __slots__ = ("event_id", "headers", "key", "partition", "value")

    def __init__(
        self, event_id: str, key: bytes, value: bytes, headers: list[tuple[str, bytes | None]], partition: int
    ) -> None:
        self.event_id = event_id
        self.key = key
        self.value = value
        self.headers = headers
        self.partition = partition


def redrive_event_id(letter_id: str, attempt: int) -> str:
    """The id under which attempt number `attempt` of the letter is counted: 32 hex digits."""
    return hashlib.sha256(f"redrive\n{letter_id}\n{attempt}".encode()).hexdigest()[:32]


def why_not(letter: DeadLetter, topics: Topics) -> RecordRejected | None:
    """Why the letter cannot go through again as it is; None if it can."""
    if letter.stage is not Stage.SINK:
        return RecordRejected(
            "not_an_event",
            "the record never became an event",
            hint=letter.hint or "correct it at its source: it is read again from there",
        )
    if letter.truncated:
        return RecordRejected(
            "truncated",
            "the letter holds only the head of its record",
            hint=f"the whole record is at {letter.topic} partition {letter.partition} offset {letter.offset}",
        )
    if letter.value is None or letter.key is None:
        return RecordRejected(
            "incomplete", "the record has no key or no value", hint="find who wrote it; it says nothing"
        )
    if letter.topic != topics.events.name:
        return RecordRejected(
            "other_topic", f"the record came from {letter.topic}, which this installation does not write"
        )
    return None


def again(letter: DeadLetter, topics: Topics, *, run_id: UUID, attempt: int) -> Again:
    """
    The letter's record for attempt number `attempt`; the same attempt gives the same event id.

    Raises:
        RecordRejected: as `why_not` says.
    """
    refused = why_not(letter, topics)
    key, value = letter.key_bytes(), letter.value_bytes()
    if refused is not None or key is None or value is None:
        raise refused or RecordRejected("incomplete", "the record has no key or no value")
    event_id = redrive_event_id(letter.id, attempt)
    # A name that is no text killed the record, and no client of ours could send it: without it, the record may live.
    kept = [(name, item) for name, item in letter.header_pairs() if name not in _REPLACED and is_text(name)]
    ours = {HEADER_EVENT: event_id, HEADER_RUN: str(run_id), HEADER_ATTEMPT: str(letter.attempts + 1)}
    headers = [*kept, *((name, text.encode()) for name, text in ours.items())]
    return Again(event_id, key, value, headers, partition_of(key, topics.events.partitions))


async def redrive(producer: Producer, topics: Topics, records: Sequence[Again]) -> None:
    """
    Publish the records, in order within a partition, and return once the broker acknowledged them all.

    Raises:
        BrokerUnavailable: retry; some may be in the log.
    """
    await producer.send(topics.events.name, [(record.partition, record) for record in records])
