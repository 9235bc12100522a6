"""The fast decoder and the definition of the event are held equal here."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode_event, encode_event
from schemas.errors import RecordRejected
from schemas.event import ConnectorEvent, Lineage
from schemas.identity import (
    _hash,
    adjustment_key,
    content_hash,
    payment_digest,
    payment_digest_of,
    payment_digests,
)
from schemas.payment import MAX_REFERENCE, MEANINGS, Kind, PaymentPayload, PaymentType, Status
from schemas.wire import WireEvent, recognise

GOLDEN = Path(__file__).parent / "golden"
USUAL = json.dumps(
    {
        **json.loads((GOLDEN / "event-1.0-refund.json").read_bytes()),
        "lineage": json.loads((GOLDEN / "event-1.0-snapshot.json").read_bytes())["lineage"],
    },
    separators=(",", ":"),
    ensure_ascii=False,
).encode()

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20)
INSTANTS = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
    lambda at: 1 < at.year < 9999
)


@st.composite
def payments(draw: st.DrawFn) -> PaymentPayload:
    status = draw(st.sampled_from(Status))
    is_delta = MEANINGS[status].kind is Kind.DELTA
    reference = draw(TEXT)
    return PaymentPayload(
        provider=draw(TEXT),
        reference=reference,
        parent_reference=draw(TEXT.filter(lambda text: text != reference) if is_delta else st.none() | TEXT),
        type=draw(st.sampled_from(PaymentType)),
        status=status,
        amount=draw(st.integers(0 if is_delta else -(10**16) + 1, 10**16 - 1)),
        asset=draw(st.sampled_from(["USD", "INR/2", "JPY"])),
        scheme=draw(st.just("") | TEXT),
        effective_at=draw(st.none() | INSTANTS),
        raw=draw(st.none() | st.just("") | TEXT),
    )


@st.composite
def events(draw: st.DrawFn) -> ConnectorEvent:
    lineage = Lineage(
        connector_id=draw(st.uuids()),
        connector=draw(TEXT),
        run_id=draw(st.uuids()),
        source_object=draw(TEXT),
        position=draw(TEXT),
        path=draw(TEXT),
        line=draw(st.none() | st.integers(1, 10**20)),
        revision_at=draw(INSTANTS),
        revision_seq=draw(st.integers(0, 10**20)),
    )
    return ConnectorEvent(
        id=draw(TEXT),
        foreign_id=draw(TEXT),
        type=draw(TEXT),
        headers=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        created_at=draw(INSTANTS),
        payment=draw(payments()),
        lineage=lineage,
    )


def facts(event: ConnectorEvent | WireEvent) -> dict[str, Any]:
    """Every field, whichever spelling of the event it is."""

    def of(value: object, model: type) -> dict[str, Any]:
        return {name: getattr(value, name) for name in model.model_fields}  # type: ignore[attr-defined]

    found = of(event, ConnectorEvent)
    return {**found, "payment": of(event.payment, PaymentPayload), "lineage": of(event.lineage, Lineage)}


def assert_both_agree(value: bytes) -> WireEvent | None:
    """What is recognised is what the definition says; what the definition refuses is not recognised."""
    usual = recognise(value)
    if usual is not None:
        assert facts(usual) == facts(decode_event(value))
        instants = (usual.created_at, usual.payment.effective_at, usual.lineage.revision_at)
        assert all(at is None or at.utcoffset() == timedelta(0) for at in instants)
    return usual


@given(events())
def test_an_event_is_recognised_as_what_it_is(event: ConnectorEvent) -> None:
    value = encode_event(event)

    usual = assert_both_agree(value)

    assert usual is not None or b"\\u00" in value


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_events_read_the_same_both_ways(golden: Path) -> None:
    assert_both_agree(golden.read_bytes())


@given(value=st.binary(max_size=200), at=st.integers(0, len(USUAL)), length=st.integers(0, 20))
def test_a_mutilated_event_is_never_recognised_as_another(value: bytes, at: int, length: int) -> None:
    mutilated = USUAL[:at] + value + USUAL[at + length :]

    try:
        assert_both_agree(mutilated)
    except RecordRejected as refused:
        pytest.fail(f"recognised, and refused by the definition: {refused}")


@given(st.integers(0, 2**32))
def test_bytes_of_an_event_changed_at_random_read_the_same_both_ways(seed: int) -> None:
    chance = random.Random(seed)
    value = bytearray(USUAL)
    for _ in range(chance.randrange(1, 4)):
        value[chance.randrange(len(value))] = chance.choice(b'"\\{}[]:,.0123456789-+eETZ \x00\xff\xc3utrnl')

    assert_both_agree(bytes(value))


def _with(field: str, spelled: str) -> bytes:
    text = USUAL.decode()
    changed, count = re.subn(rf'"{field}":("[^"]*"|[^,}}]*)', lambda _: f'"{field}":{spelled}', text, count=1)
    assert count == 1
    return changed.encode("utf-8", "surrogatepass")


ODD = {
    "amount": [
        "1.0",
        "1e3",
        "-0",
        "01",
        "+5",
        " 5",
        "NaN",
        "null",
        "true",
        '"5"',
        str(10**16),
        str(10**16 - 1),
        "9" * 30,
    ],
    "effective_at": [
        f'"{at}"'
        for at in (
            "2026-01-01T00:00:00.1234567Z",
            "2026-01-01T00:00:00.9999999Z",
            "2026-01-01T00:00:00.999999999Z",
            "9999-12-31T23:59:59.9999999Z",
            "2026-01-01T00:00:00.123456Z",
            "2026-01-01t00:00:00z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T23:59:60Z",
            "2026-01-01T00:00:00+05:30",
            "2026-01-01T00:00:00-00:00",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01",
            "0001-01-01T00:00:00+01:00",
            "0001-01-01T00:00:00Z",
            "1767225600",
        )
    ]
    + ["1767225600", "null"],
    "reference": [
        '"\\ud800"',
        '"\ud800"',
        '"a\\u0000b"',
        '"a\\\\u0000b"',
        '"a\x00b"',
        '"a\x01b"',
        '"\\ud83d\\ude00"',
        '"\x7f"',
        '"\\x"',
        '"\\/"',
        '""',
        '"' + "x" * (MAX_REFERENCE + 1) + '"',
        '"' + "é" * MAX_REFERENCE + '"',
    ],
    "status": ['"SUCCEEDED"', '"nonsense"', "null", "5"],
    "schema_version": ['"1.1"', '"2.0"', '"1.0 "', "1.0", "null"],
    "connector_id": [
        '"550e8400e29b41d4a716446655440000"',
        '"550E8400-E29B-41D4-A716-446655440000"',
        '"{550e8400-e29b-41d4-a716-446655440000}"',
        '"urn:uuid:550e8400-e29b-41d4-a716-446655440000"',
    ],
    "line": ["1.0", "0", "-1", "null", "9" * 25],
    "headers": ['{"a":1}', '{"a":"1"}', "[]", "null", '{"a":"1","a":"2"}'],
}


@pytest.mark.parametrize(("field", "spelled"), [(field, spelled) for field, found in ODD.items() for spelled in found])
def test_spellings_that_parsers_disagree_on_read_the_same_both_ways(field: str, spelled: str) -> None:
    assert_both_agree(_with(field, spelled))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "﻿" + text,
        lambda text: " " + text + " \n",
        lambda text: text + "x",
        lambda text: f"[{text}]",
        lambda text: text.replace('"amount":', '"amount":5,"amount":'),
        lambda text: text.replace('"amount":', '"amount":"x","amount":'),
        lambda text: text.replace('"amount":', '"unknown":5,"amount":'),
        lambda text: text.replace('"amount"', '"am\\u006funt"'),
        lambda text: text.replace('"payment":', '"payment":{"a":1},"payment":'),
    ],
    ids=["mark", "spaces", "rest", "array", "twice", "twice, one wrong", "unknown", "escaped name", "object twice"],
)
def test_shapes_that_parsers_disagree_on_read_the_same_both_ways(change: Callable[[str], str]) -> None:
    assert_both_agree(change(json.dumps(json.loads(USUAL), separators=(",", ":"))).encode())


@given(st.data(), events())
def test_an_event_with_a_name_that_comes_twice_is_never_recognised(data: st.DataObject, event: ConnectorEvent) -> None:
    """Whatever else is left out or added, so that counts come out even."""
    members = json.loads(encode_event(event))
    text = encode_event(event).decode()
    whose = data.draw(st.sampled_from([members, members["payment"], members["lineage"]]))
    name = data.draw(st.sampled_from(list(whose)))
    said = json.dumps(name) + data.draw(st.sampled_from([":", " :", "\t: "]))
    twice = said + data.draw(st.sampled_from(["null", "5", '"x"', '"\\u0022"', '"x\\\\"', '"\\""', "{}"])) + ","
    left_out = data.draw(st.sampled_from(["", '"scheme":"",', '"raw":null,', '"line":null,', '"headers":{},']))

    doubled = text.replace(json.dumps(name) + ":", twice + json.dumps(name) + ":", 1).replace(left_out, "", 1)

    assert recognise(doubled.encode()) is None


@pytest.mark.parametrize("text", ['"', "\\", '\\"', '"\\', "\\\\", '{"a": "\\\\"}', ":", '":', '"" : ""'])
def test_quotes_inside_of_texts_are_nothing_unusual(text: str) -> None:
    event = decode_event(USUAL)
    assert event.payment is not None
    spoken = event.model_copy(
        update={"headers": {text: text}, "payment": event.payment.model_copy(update={"raw": text, "scheme": text})}
    )

    assert assert_both_agree(encode_event(spoken)) is not None


def assert_nothing(value: bytes) -> None:
    assert recognise(value) is None


def test_what_the_definition_keeps_or_refuses_is_left_to_it() -> None:
    assert_nothing((GOLDEN / "event-1.0-unknown-fields.json").read_bytes())
    assert_nothing((GOLDEN / "event-1.0-not-a-payment.json").read_bytes())
    assert_nothing(_with("parent_reference", "null"))
    assert_nothing(_with("amount", "-1"))
    assert_nothing(b"")


def test_recognised_events_are_nothing_to_the_garbage_collector() -> None:
    import gc

    event = recognise(USUAL)

    assert event is not None
    assert not any(gc.is_tracked(part) for part in (event, event.payment, event.lineage))


@given(payments())
def test_digests_are_hashes_of_netstrings(payment: PaymentPayload) -> None:
    at = "" if payment.effective_at is None else payment.effective_at.isoformat()
    whose = (payment.provider, payment.original_reference, str(payment.type))
    what = (payment.status, "delta", payment.reference)
    if MEANINGS[payment.status].kind is not Kind.DELTA:
        what = (payment.status, at, str(payment.amount))
    said = (
        *(payment.provider, payment.reference, payment.parent_reference or "", payment.type, payment.status),
        *(str(payment.amount), payment.asset, payment.scheme, at),
        "-" if payment.raw is None else "+" + payment.raw,
    )

    assert payment_digests(payment) == (_hash(*whose), _hash(*whose, *what), _hash(*said))
    assert payment_digests(payment) == (payment_digest(payment), adjustment_key(payment), content_hash(payment))
    assert payment_digest_of(payment.provider, payment.original_reference, payment.type) == payment_digest(payment)


@given(events())
def test_both_spellings_of_an_event_have_the_same_digests(event: ConnectorEvent) -> None:
    usual = recognise(encode_event(event))

    if usual is not None and event.payment is not None:
        assert payment_digests(usual.payment) == payment_digests(event.payment)
        assert isinstance(usual.lineage.connector_id, UUID)
        assert isinstance(usual.created_at, datetime)
