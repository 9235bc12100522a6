"""
DeadLetter: one record that could not go on, whole: its bytes, where it stood, why it died.

The id is a function of the record's place, so publishing a letter twice (a crash before the offset moved) is one
letter.
"""

from __future__ import annotations

import base64
import hashlib
import re
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.payment import Instant

ENVELOPE_BYTES = 8_192  # what the JSON around the payload takes at most, headers aside
_KEPT_HEADERS_BYTES = 65_536
_HEADER_BYTES = 16  # brackets, quotes and commas around one
_JSON_BYTES = 6  # what a character of a name takes at most: \\u0000
_LONE = re.compile("[\udc80-\udcff]")


class Stage(StrEnum):
    """Where the record died."""

    SOURCE = "source"
    SINK = "sink"


class DeadLetter(BaseModel):
    """
    One dead record. Bytes are base64; `value` is null for a tombstone.

    `truncated` letters hold the head of the value, its size and SHA-256: the topic, partition and offset (or path and
    position) point to the whole.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    version: Literal[1] = 1
    id: str = Field(description="32 hex digits, a function of the record's place and content.")
    stage: Stage
    reason: str = Field(description="Stable code, such as `invalid_amount`.")
    message: str = Field(description="What was wrong, in words, without the record's content.")
    hint: str = ""
    attempts: int = Field(1, ge=1)
    failed_at: Instant
    event_id: str = Field(description="The event's id; for undecodable bytes, one made from their place.")
    run_id: UUID | None = Field(None, description="The run that read the record, if it is known.")
    connector_id: UUID | None = None
    connector: str = ""
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    path: str = ""
    position: str = ""
    line: int | None = None
    source_object: str = ""
    key: str | None = None
    value: str | None = None
    headers: list[tuple[str, str | None] | tuple[str, str | None, str]] = Field(
        default_factory=list,
        description="Names and base64 values, in order. Where a name is not UTF-8, its bytes follow in base64.",
    )
    size_bytes: int = 0
    sha256: str = ""
    truncated: bool = False
    sqlstate: str = ""

    def value_bytes(self) -> bytes | None:
        """The record's original value, or its head if the letter is truncated."""
        return None if self.value is None else base64.b64decode(self.value)

    def key_bytes(self) -> bytes | None:
        """The record's original key."""
        return None if self.key is None else base64.b64decode(self.key)

    def header_pairs(self) -> list[tuple[str, bytes | None]]:
        """The record's original headers, in order; names as `is_text` takes them."""
        return [
            (
                base64.b64decode(exact[0]).decode("utf-8", "surrogateescape") if exact else name,
                None if value is None else base64.b64decode(value),
            )
            for name, value, *exact in self.headers
        ]


def is_text(name: str) -> bool:
    """Whether a header's name was UTF-8; if not, its other bytes stand in it as lone surrogates (PEP 383)."""
    return name.isascii() or not _LONE.search(name)


def letter_id(stage: Stage, *place: str) -> str:
    """The id of the letter for the record at `place`: connector, object and position, or as `sink_letter_id` says."""
    return hashlib.sha256("\n".join([stage, *place]).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def sink_letter_id(topic: str, partition: int, offset: int, *, key: bytes | None, value: bytes | None) -> str:
    """
    The id of the letter for the record at this place of a topic, with these bytes.

    The place alone is no identity: a topic that was deleted and made again gives it to another record.
    """
    said = ("-" if each is None else hashlib.sha256(each).hexdigest() for each in (value, key))
    return letter_id(Stage.SINK, topic, str(partition), str(offset), *said)


def payload(
    value: bytes | None,
    *,
    limit_bytes: int,
    key: bytes | None = None,
    headers: list[tuple[str, bytes | None]] | None = None,
) -> dict[str, object]:
    """
    The fields of a letter that hold the record: whole where that fits `limit_bytes` (of the encoded letter), else
    cut and marked.

    Headers are dropped only where they alone exceed 64 KiB; then `truncated` is set too.
    """
    encoded_headers = [_header(name, item) for name, item in headers or []]
    truncated = False
    if sum(_HEADER_BYTES + sum(len(part or "") for part in header) for header in encoded_headers) > _KEPT_HEADERS_BYTES:
        encoded_headers, truncated = [], True
    room = limit_bytes - ENVELOPE_BYTES - sum(_most_bytes(*header) for header in encoded_headers)
    kept_key = None if key is None else key[: room // 8]
    room -= 0 if kept_key is None else (len(kept_key) * 4) // 3 + 4
    most = max(0, room * 3 // 4)
    kept = value if value is None or len(value) <= most else value[:most]
    return {
        "key": None if kept_key is None else _b64(kept_key),
        "value": None if kept is None else _b64(kept),
        "headers": encoded_headers,
        "size_bytes": len(value or b""),
        "sha256": hashlib.sha256(value or b"").hexdigest(),
        "truncated": truncated or kept != value or kept_key != key,
    }


def _header(name: str, item: bytes | None) -> tuple[str, str | None] | tuple[str, str | None, str]:
    value = None if item is None else _b64(item)
    if is_text(name):
        return name, value
    exact = name.encode("utf-8", "surrogateescape")
    return exact.decode("utf-8", "backslashreplace"), value, _b64(exact)


def _most_bytes(name: str, *encoded: str | None) -> int:
    return len(name) * _JSON_BYTES + sum(len(part or "") for part in encoded) + _HEADER_BYTES


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
