"""
The letters role: lists the dead-letter topic in PostgreSQL, where operators find and redrive letters.

A letter is listed once, by its id, however often it was published. Listing never starts after what the list holds, so
that a list restored from a backup fills up again. Nothing raises out of it: while PostgreSQL is away it waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import faust
from pydantic import ValidationError

from schemas.errors import SinkError, SinkRefused, SinkUnclear
from schemas.letter import DeadLetter, Stage, payload, sink_letter_id
from schemas.topic import LETTER_MAX_BYTES, Topics
from streams.app import slices_of, transport_of
from streams.backoff import Backoff
from streams.hold import Holds
from streams.ingest import Hold
from streams.lanes import Lanes
from streams.slice import Slice

log = logging.getLogger(__name__)


class LetterList(Protocol):
    """Where letters are listed."""

    async def put(self, letter: DeadLetter, *, partition: int, offset: int) -> None:
        """List the letter, which lies at this place of its topic; a known id changes nothing. Raises SinkError."""
        ...

    async def next_offsets(self, topic: str) -> Mapping[int, int]:
        """The offset after the last letter listed, by partition; one without letters is absent. Raises SinkError."""
        ...


def register(app: faust.App, topics: Topics, letters: LetterList) -> Lanes[Slice]:
    """Add the agent to the app, and return its lanes."""
    holds = transport_of(app).holds

    async def list_all(batch: Slice) -> None:
        for record in batch.records:
            letter = _read(record.value, batch.topic, batch.partition, record.offset)
            await _listed(letters, letter, holds, batch, offset=record.offset)

    lanes = Lanes.of(list_all)
    source = slices_of(app, topics.dead_letters.name, lanes=lanes, sink_offsets=letters.next_offsets)

    @app.agent(source, name="dead_letter_list", concurrency=1)
    async def list_letters(stream: Any) -> None:  # Faust's stream type lacks noack()
        unacked = stream.noack()
        async for event in unacked.events():
            lanes.submit(event, done=unacked.ack)

    return lanes


async def _listed(letters: LetterList, letter: DeadLetter, holds: Holds, batch: Slice, *, offset: int) -> None:
    backoff = Backoff()
    while True:
        try:
            await letters.put(letter, partition=batch.partition, offset=offset)
        except (SinkRefused, SinkUnclear) as exc:
            if letter.message == _UNLISTABLE:
                raise
            log.error("a letter cannot be listed as it is", extra={"facts": {"letter": letter.id, "error": str(exc)}})
            letter = _stripped(letter)
        except SinkError as exc:
            if backoff.tries == 0:
                log.error("letter not listed yet", extra={"facts": {"letter": letter.id, "error": str(exc)}})
            holds.hold(batch.topic, batch.partition, Hold.DATABASE)
            await asyncio.sleep(backoff.next_s())
        else:
            if backoff.tries:
                holds.release(batch.topic, batch.partition, Hold.DATABASE)
            return


_UNLISTABLE = "the letter could not be stored whole; the dead-letter topic has it"


def _stripped(letter: DeadLetter) -> DeadLetter:
    """The least a letter can be, when PostgreSQL refuses its text: the topic keeps the whole."""
    return DeadLetter(
        id=letter.id,
        stage=letter.stage,
        reason=letter.reason if letter.reason.isidentifier() else "unlistable",
        message=_UNLISTABLE,
        failed_at=letter.failed_at,
        event_id=letter.event_id,
        run_id=letter.run_id,
        connector_id=letter.connector_id,
        size_bytes=letter.size_bytes,
        truncated=True,
    )


def _read(value: bytes | None, topic: str, partition: int, offset: int) -> DeadLetter:
    """The letter; or, for bytes that are none, a letter about them, so that nothing on the topic is invisible."""
    try:
        return DeadLetter.model_validate_json(value or b"")
    except ValidationError:
        return DeadLetter.model_validate(
            {
                "id": (identity := sink_letter_id(topic, partition, offset, key=None, value=value)),
                "stage": Stage.SINK,
                "reason": "unreadable_letter",
                "message": "a message on the dead-letter topic is not a letter of ours",
                "failed_at": datetime.now(UTC),
                "event_id": f"{topic}/{partition}/{offset}/{identity}",
                "topic": topic,
                "partition": partition,
                "offset": offset,
                **payload(value, limit_bytes=LETTER_MAX_BYTES),
            }
        )
