"""
Bytes ↔ models, for every topic. Nothing else in the project turns a payment's bytes into objects or back.

Decoding refuses with a reason and never raises anything but RecordRejected, whatever the bytes.
"""

from __future__ import annotations

import json
import re

from pydantic import ValidationError

from schemas.errors import RecordRejected
from schemas.event import SCHEMA_VERSION, ConnectorEvent
from schemas.wire import Event, Payment, recognise

HEADER_EVENT = "till-event"
HEADER_RUN = "till-run"
HEADER_CONNECTOR = "till-connector"
HEADER_VERSION = "till-version"
HEADER_ATTEMPT = "till-attempt"  # how often the record was sent through, on a redrive

_MAJOR = SCHEMA_VERSION.split(".")[0]
_ESCAPED_NUL = b"\\u0000"
_NUL = "\x00"
_VERSION_IN_BYTES = re.compile(rb'"schema_version"\s*:\s*"(\d{1,9})\.')


def encode_event(event: ConnectorEvent) -> bytes:
    """
    Compact UTF-8 JSON. Instants are RFC 3339 in UTC with a `Z`; fields that are null stay, so that readers need no
    defaults.
    """
    return event.model_dump_json().encode()


def decode_event(value: bytes | None) -> ConnectorEvent:
    """
    The event that `value` spells: the definition.

    Raises:
        RecordRejected: `tombstone` (null value), `unknown_version`, `undecodable` (not JSON), `duplicate_key`,
            `nul_character`, `invalid_event` (a field is missing or wrong), or the payload's own reason, such as
            `missing_reference`.
    """
    if value is None:
        raise RecordRejected(
            "tombstone", "the record has a key and no value", hint="events topics are not compacted; find who wrote it"
        )
    try:
        event = ConnectorEvent.model_validate_json(value)
    except ValidationError as exc:
        raise _rejected(value, exc) from None
    if event.schema_version.partition(".")[0] != _MAJOR:
        raise _unknown_version(event.schema_version)
    _refuse_doubled(value)
    if _ESCAPED_NUL in value and _has_nul(event):
        raise RecordRejected("nul_character", "a text holds U+0000, which PostgreSQL cannot store")
    return event


def decode_payment_event(value: bytes | None) -> tuple[Event, Payment]:
    """
    The event and its payload, for readers that only handle payments: the usual ones fast, the rest by `decode_event`.

    Raises:
        RecordRejected: as `decode_event`, or `missing_payment`.
    """
    usual = recognise(value) if value else None
    if usual is not None:
        return usual, usual.payment
    event = decode_event(value)
    if event.payment is None:
        raise RecordRejected("missing_payment", f"event type {event.type[:60]!r} carries no payment")
    return event, event.payment


def _rejected(value: bytes, exc: ValidationError) -> RecordRejected:
    version = _VERSION_IN_BYTES.search(value)
    if version and version.group(1).decode() != _MAJOR:
        return _unknown_version(version.group(1).decode() + ".x")
    error = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in error["loc"]) or "value"
    if error["type"] == "json_invalid":
        return RecordRejected("undecodable", f"not a JSON event: {error['msg']}")
    code = error["type"] if error["type"] in ("missing_reference", "invalid_amount") else "invalid_event"
    return RecordRejected(code, f"{where}: {error['msg']}")


def _refuse_doubled(value: bytes) -> None:
    """Refuse a name that comes twice in one object: JSON readers differ in which of the two they take."""
    try:
        _ONCE.decode(value.decode())
    except RecordRejected:
        raise
    except (ValueError, RecursionError) as exc:
        raise RecordRejected("undecodable", f"not a JSON event: {exc}") from None


def _each_once(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        doubled = next(name for index, name in enumerate(names) if name in names[:index])
        raise RecordRejected("duplicate_key", f"the name {doubled[:48]!r} comes twice")


def _nothing(_: str) -> None:
    """Numbers are not what is looked for."""


_ONCE = json.JSONDecoder(
    object_pairs_hook=_each_once, parse_int=_nothing, parse_float=_nothing, parse_constant=_nothing
)


def _unknown_version(version: str) -> RecordRejected:
    return RecordRejected(
        "unknown_version",
        f"schema version {version}; this reader knows {_MAJOR}.x",
        hint="upgrade the sink, then redrive the dead letters of this reason",
    )


def _has_nul(event: ConnectorEvent) -> bool:
    def holds(value: object) -> bool:
        if isinstance(value, str):
            return _NUL in value
        if isinstance(value, dict):
            return any(holds(key) or holds(item) for key, item in value.items())
        return isinstance(value, list) and any(holds(item) for item in value)

    return holds(event.model_dump())
