"""
The letters role: a plain Faust agent that lists the dead-letter topic in PostgreSQL, where operators find and
redrive letters.

A letter is listed once, by its id, however often it was published. Nothing raises out of the agent: while PostgreSQL
is away it waits.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Protocol

import faust
from pydantic import ValidationError

from schemas.errors import SinkError, SinkRefused, SinkUnclear
from schemas.letter import DeadLetter, Stage, letter_id, payload
from schemas.topic import LETTER_MAX_BYTES, Topics
from streams.backoff import Backoff

log = logging.getLogger(__name__)


class LetterList(Protocol):
    """Where letters are listed."""

    async def put(self, letter: DeadLetter, *, partition: int, offset: int) -> None:
        """List the letter, which lies at this place of its topic; a known id changes nothing. Raises SinkError."""
        ...


def register(app: faust.App, topics: Topics, letters: LetterList) -> None:
    """Add the agent to the app."""
    source = app.topic(
        topics.dead_letters.name, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
    )

    @app.agent(source, name="dead_letter_list", concurrency=1)
    async def list_letters(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            letter = _read(event.value, message.topic, message.partition, message.offset)
            await _listed(letters, letter, partition=message.partition, offset=message.offset)


async def _listed(letters: LetterList, letter: DeadLetter, *, partition: int, offset: int) -> None:
    backoff = Backoff()
    while True:
        try:
            return await letters.put(letter, partition=partition, offset=offset)
        except (SinkRefused, SinkUnclear) as exc:
            if letter.message == _UNLISTABLE:
                raise
            log.error("a letter cannot be listed as it is", extra={"facts": {"letter": letter.id, "error": str(exc)}})
            letter = _stripped(letter)
        except SinkError as exc:
            if backoff.tries == 0:
                log.error("letter not listed yet", extra={"facts": {"letter": letter.id, "error": str(exc)}})
            await asyncio.sleep(backoff.next_s())


_UNLISTABLE = "the letter could not be stored whole; the dead-letter topic has it"


def _stripped(letter: DeadLetter) -> DeadLetter:
    """The least a letter can be, when PostgreSQL refuses its text: the topic keeps the whole."""
    return DeadLetter(
        id=letter.id,
        stage=letter.stage,
        reason=letter.reason if letter.reason.isidentifier() else "unlistable",
        message=_UNLISTABLE,
        failed_at=letter.failed_at,
        event_id=letter.id,
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
                "id": letter_id(Stage.SINK, topic, str(partition), str(offset)),
                "stage": Stage.SINK,
                "reason": "unreadable_letter",
                "message": "a message on the dead-letter topic is not a letter of ours",
                "failed_at": datetime.now(UTC),
                "event_id": f"{topic}/{partition}/{offset}",
                "topic": topic,
                "partition": partition,
                "offset": offset,
                **payload(value, limit_bytes=LETTER_MAX_BYTES),
            }
        )
