"""
From a source's records to messages, and from its rejections to dead letters.

`Envelope.event` is the definition of what an event says; `Envelope.message` encodes the same a few times faster,
because every row of every file passes here. A property test holds the two equal through `schemas.codec.decode_event`.
Nothing here reads a clock: the same record of the same object gives the same bytes within a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from connectors.ports import Message
from connectors.source import Rejection, SourceRecord, Task
from schemas import codec, identity
from schemas.errors import RecordRejected
from schemas.event import SCHEMA_VERSION, ConnectorEvent, Lineage
from schemas.letter import DeadLetter, Stage, letter_id, payload
from schemas.topic import EVENT_MAX_BYTES, LETTER_MAX_BYTES

HINT = "correct the record at its source: it is read again once the source tells that it has changed"
HINT_FILE = (
    "correct the record at its source: a corrected file is read as a new revision, and its known rows change nothing"
)
HINT_MAPPING = "{hint}; or correct the mapping of the connector, then `till connector run {name} --force`"
MAX_EVENT_BYTES = EVENT_MAX_BYTES - 4_096  # key, headers and the batch around it take the rest


@dataclass(frozen=True, slots=True)
class Connector:
    """
    A configured source, as the runner knows it. `provider` is frozen by the first run.

    `version` is that of its configuration, from 1 on.
    """

    id: UUID
    name: str
    provider: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a batch becomes: messages with their event ids' digests, in order, and letters."""

    messages: Sequence[Message]
    digests: Sequence[bytes]
    letters: Sequence[DeadLetter]

    @property
    def published_sum(self) -> int:
        """Sum of the messages' digests modulo 2^128."""
        return identity.digest_sum(self.digests)

    @property
    def rejected_sum(self) -> int:
        """The same of the letters' events."""
        return identity.digest_sum(identity.event_digest(letter.event_id) for letter in self.letters)

    def without(self, published: Collection[bytes]) -> Prepared:
        """The same, but for the messages of these digests: they are out."""
        if not published:
            return self
        out = frozenset(published)
        left = [pair for pair in zip(self.messages, self.digests, strict=True) if pair[1] not in out]
        return Prepared([message for message, _ in left], [digest for _, digest in left], self.letters)

    def plus(self, other: Prepared) -> Prepared:
        """Both together."""
        return Prepared(
            [*self.messages, *other.messages], [*self.digests, *other.digests], [*self.letters, *other.letters]
        )

    def halves(self) -> tuple[Prepared, Prepared]:
        """The messages in two parts; the letters stay with the first."""
        middle = len(self.messages) // 2
        return (
            Prepared(self.messages[:middle], self.digests[:middle], self.letters),
            Prepared(self.messages[middle:], self.digests[middle:], ()),
        )


class Envelope:
    """Wraps the records of one task in one run."""

    def __init__(self, connector: Connector, run_id: UUID, task: Task, revision_at: datetime) -> None:
        self._connector = connector
        self._run_id = run_id
        self._task = task
        self._revision_at = revision_at
        self._event_ids = EventIds(connector.id, task.source_object)
        self._key_prefix = identity.foreign_id(connector.provider, "")
        self._lineage = {
            "connector_id": str(connector.id),
            "connector": connector.name,
            "run_id": str(run_id),
            "source_object": task.source_object,
        }
        hint = HINT if task.file is None else HINT_FILE
        # what is recurring is never done, and so not read again
        self._hint = hint if task.recurring else HINT_MAPPING.format(hint=hint, name=connector.name)
        self._constant_headers = (
            (codec.HEADER_RUN, str(run_id).encode()),
            (codec.HEADER_CONNECTOR, str(connector.id).encode()),
            (codec.HEADER_VERSION, SCHEMA_VERSION.encode()),
        )

    def event(self, record: SourceRecord) -> ConnectorEvent:
        """The event of a record: the definition."""
        payment = record.payment.payload(self._connector.provider)
        revision_at, revision_seq = record.revision or (self._revision_at, 0)
        return ConnectorEvent(
            id=identity.event_id(self._connector.id, self._task.source_object, record.position),
            foreign_id=identity.foreign_id(payment.provider, payment.original_reference),
            type=f"payment.{payment.status.value}",
            headers=dict(record.headers),
            created_at=revision_at,
            payment=payment,
            lineage=Lineage(
                connector_id=self._connector.id,
                connector=self._connector.name,
                run_id=self._run_id,
                source_object=self._task.source_object,
                position=record.position,
                path=self._task.path,
                line=record.line,
                revision_at=revision_at,
                revision_seq=revision_seq,
            ),
        )

    def message(self, event_id: str, record: SourceRecord) -> Message:
        """
        The same event, encoded.

        Raises:
            RecordRejected: `too_large` for the events topic.
        """
        position, facts, line, headers, revision = record
        reference, parent_reference, type_, status, amount, asset, scheme, effective_at, raw = facts
        key = self._key_prefix + (parent_reference or reference)
        revision_at, revision_seq = revision or (self._revision_at, 0)
        value = orjson.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "id": event_id,
                "foreign_id": key,
                "type": "payment." + status,
                "headers": dict(headers),
                "created_at": revision_at,
                "payment": {
                    "provider": self._connector.provider,
                    "reference": reference,
                    "parent_reference": parent_reference,
                    "type": type_,
                    "status": status,
                    "amount": amount,
                    "asset": asset,
                    "scheme": scheme,
                    "effective_at": effective_at,
                    "raw": raw,
                },
                "lineage": {
                    **self._lineage,
                    "position": position,
                    "path": self._task.path,
                    "line": line,
                    "revision_at": revision_at,
                    "revision_seq": revision_seq,
                },
            },
            option=orjson.OPT_UTC_Z,
        )
        if len(value) > MAX_EVENT_BYTES:
            raise RecordRejected(
                "too_large", f"the event has {len(value)} bytes, the events topic takes {MAX_EVENT_BYTES}"
            )
        return Message(key.encode(), value, ((codec.HEADER_EVENT, event_id.encode()), *self._constant_headers))

    def letter(self, event_id: str, rejection: Rejection, failed_at: datetime) -> DeadLetter:
        """The dead letter of a record that could not become an event. Its ids depend on the record's place alone."""
        fields = payload(rejection.raw, limit_bytes=LETTER_MAX_BYTES)
        if rejection.size_bytes is not None:
            fields |= {"size_bytes": rejection.size_bytes, "sha256": rejection.sha256, "truncated": True}
        return DeadLetter.model_validate(
            {
                "id": letter_id(Stage.SOURCE, str(self._connector.id), self._task.source_object, rejection.position),
                "stage": Stage.SOURCE,
                "reason": rejection.reason,
                "message": rejection.message,
                "hint": self._hint,
                "failed_at": failed_at,
                "event_id": event_id,
                "run_id": self._run_id,
                "connector_id": self._connector.id,
                "connector": self._connector.name,
                "path": self._task.path,
                "position": rejection.position,
                "line": rejection.line,
                "source_object": self._task.source_object,
                **fields,
            }
        )

    def prepare(
        self, records: Iterable[SourceRecord], rejections: Iterable[Rejection], failed_at: datetime
    ) -> Prepared:
        """Messages in source order, and letters; a record too large for an event becomes a letter too."""
        messages: list[Message] = []
        digests: list[bytes] = []
        refused = list(rejections)
        for record in records:
            event_id = self._event_ids.of(record.position)
            try:
                messages.append(self.message(event_id, record))
            except RecordRejected as exc:
                refused.append(_refused(record, exc))
                continue
            digests.append(identity.event_digest(event_id))
        letters = [self.letter(self._event_ids.of(item.position), item, failed_at) for item in refused]
        return Prepared(messages, digests, letters)

    def refuse(self, prepared: Prepared, exc: RecordRejected, failed_at: datetime) -> Prepared:
        """The same, with its only message become a letter: the broker's side would not take it."""
        (message,) = prepared.messages
        event = codec.decode_event(message.value)
        position = event.lineage.position if event.lineage else ""
        line = event.lineage.line if event.lineage else None
        letter = self.letter(event.id, Rejection(position, exc.code, str(exc), message.value, line), failed_at)
        return Prepared((), (), [*prepared.letters, letter])


class EventIds:
    """`schemas.identity.event_id` for many positions of one object: the same ids, half the work."""

    def __init__(self, connector_id: UUID, source_object: str) -> None:
        self._prefix = hashlib.sha256(f"36:{connector_id}{len(source_object)}:{source_object}".encode())

    def of(self, position: str) -> str:
        """The id of the record at `position`."""
        digest = self._prefix.copy()
        digest.update(f"{len(position)}:{position}".encode())
        return digest.hexdigest()[:32]


def _refused(record: SourceRecord, exc: RecordRejected) -> Rejection:
    facts = record.payment
    # The record's own bytes are gone by now; what it said is not.
    raw = facts.raw if facts.raw is not None else repr(facts)
    return Rejection(record.position, exc.code, str(exc), raw.encode("utf-8", "surrogateescape"), record.line)
