"""Old events stay on the topic for ever: a golden file is read by every later release, and is never edited."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode_event, decode_payment_event, encode_event
from schemas.errors import Disposition, RecordRejected
from schemas.payment import Status

GOLDEN = Path(__file__).parent / "golden"
SNAPSHOT = (GOLDEN / "event-1.0-snapshot.json").read_bytes().rstrip()


def changed(**changes: object) -> bytes:
    value = json.loads(SNAPSHOT)
    for path, new in changes.items():
        *parents, last = path.split("__")
        target = value
        for parent in parents:
            target = target[parent]
        target[last] = new
    return json.dumps(value).encode()


@pytest.mark.parametrize("name", ["event-1.0-snapshot.json", "event-1.0-refund.json"])
def test_golden_events_decode_and_encode_to_the_same_bytes(name: str) -> None:
    value = (GOLDEN / name).read_bytes().rstrip()

    assert encode_event(decode_event(value)) == value


def test_golden_snapshot_means_what_it_meant() -> None:
    event, payment = decode_payment_event(SNAPSHOT)

    assert (payment.reference, payment.status, payment.amount, payment.raw) == (
        "001",
        Status.SUCCEEDED,
        100,
        '{"id": "001"}',
    )
    assert payment.effective_at is not None
    assert payment.effective_at.isoformat() == "2025-01-10T13:29:59.123456+00:00"
    assert event.lineage is not None
    assert (event.lineage.path, event.lineage.line) == ("a.csv", 2)


def test_unknown_fields_and_newer_minor_versions_are_kept() -> None:
    event, payment = decode_payment_event((GOLDEN / "event-1.0-unknown-fields.json").read_bytes())

    assert event.model_extra == {"colour": "blue"}
    assert payment.model_extra == {"mood": {"a": [1, 2]}}
    assert event.created_at.isoformat() == "2025-01-10T13:30:00+00:00"
    assert b'"mood":{"a":[1,2]}' in encode_event(event)


def test_an_event_that_is_not_about_a_payment_is_an_event_all_the_same() -> None:
    value = (GOLDEN / "event-1.0-not-a-payment.json").read_bytes()

    assert decode_event(value).headers["amount"] == "99.99"
    with pytest.raises(RecordRejected) as caught:
        decode_payment_event(value)
    assert caught.value.code == "missing_payment"


REFUSED: list[tuple[bytes | None, str]] = [
    (None, "tombstone"),
    (b"", "undecodable"),
    (b"garbage", "undecodable"),
    (b"\xff\xfe", "undecodable"),
    (b"[" * 200_000, "undecodable"),
    (b"{}", "invalid_event"),
    (b"[]", "invalid_event"),
    (SNAPSHOT[:-1], "undecodable"),
    (SNAPSHOT.replace(b'"amount":100', b'"amount":100,"amount":999999'), "duplicate_key"),
    (SNAPSHOT.replace(b'"amount":100', b'"amount" : 100, "amount":999999'), "duplicate_key"),
    (SNAPSHOT.replace(b'"amount":100', b'"amount":100,"\\u0061mount":999999'), "duplicate_key"),
    (SNAPSHOT.replace(b'"amount":100', b'"amount":100,"new":{"a":[{"b":1,"b":2}]}'), "duplicate_key"),
    (SNAPSHOT.replace(b'"amount":100', b'"amount":100,"new":%s,"new":1' % (b"1" * 4_000)), "duplicate_key"),
    (SNAPSHOT.replace(b'"payment":', b'"payment":{"amount":1},"payment":'), "duplicate_key"),
    (SNAPSHOT.replace(b'"001"', b'"\\ud800"'), "undecodable"),
    (changed(schema_version="2.0"), "unknown_version"),
    (b'{"schema_version":"2.0","shape":"unlike ours"}', "unknown_version"),
    (changed(payment__reference="a\x00b"), "nul_character"),
    (changed(headers={"a": "\x00"}), "nul_character"),
    (changed(headers={"a": 1}), "invalid_event"),
    (changed(payment__amount="100"), "invalid_event"),
    (changed(payment__amount=100.0), "invalid_event"),
    (changed(payment__amount=True), "invalid_event"),
    (changed(payment__amount=10**16), "invalid_event"),
    (SNAPSHOT.replace(b":100,", b":NaN,"), "invalid_event"),
    (SNAPSHOT.replace(b":100,", b":1e400,"), "invalid_event"),
    (changed(payment__status="paid"), "invalid_event"),
    (changed(payment__type="refund"), "invalid_event"),
    (changed(payment__reference="x" * 256), "invalid_event"),
    (changed(payment__effective_at="2025-01-10T00:00:00"), "invalid_event"),
    (changed(payment__effective_at="300000-01-01T00:00:00Z"), "invalid_event"),
    (changed(payment__effective_at="0001-01-01T00:00:00+05:30"), "invalid_event"),
    (changed(payment__status="refunded"), "missing_reference"),
    (changed(payment__status="captured", payment__parent_reference="001"), "missing_reference"),
    (changed(payment__status="refunded", payment__parent_reference="000", payment__amount=-5), "invalid_amount"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED)
def test_bad_bytes_are_refused_with_a_reason_and_without_their_content(value: bytes | None, reason: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        decode_event(value)

    assert caught.value.code == reason
    assert caught.value.disposition is Disposition.REJECT
    assert "aaaaaaaa" not in str(caught.value)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: json.dumps({"id": text, "schema_version": text}).encode())
)
def test_no_bytes_raise_anything_but_a_rejection(value: bytes) -> None:
    with contextlib.suppress(RecordRejected):
        decode_event(value)
