from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.envelope import MAX_EVENT_BYTES, Connector, Envelope, EventIds
from connectors.record import PaymentFacts
from connectors.source import Rejection, Revision, SourceRecord, Task
from schemas import codec, identity
from schemas.errors import RecordRejected
from schemas.letter import Stage
from schemas.payment import MEANINGS, Kind, PaymentType, Status
from schemas.topic import LETTER_MAX_BYTES

RUN = UUID(int=7)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
NAME = TEXT.filter(bool)
INSTANT = st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is given

facts = st.builds(
    PaymentFacts,
    reference=NAME,
    parent_reference=st.none() | NAME,
    type=st.sampled_from(PaymentType),
    status=st.sampled_from(Status),
    amount=st.integers(0, 10**16 - 1),
    asset=st.sampled_from(["USD", "JPY", "EUR/4"]),
    scheme=TEXT,
    effective_at=st.none() | INSTANT,
    raw=st.none() | TEXT,
).filter(lambda f: MEANINGS[f.status].kind is not Kind.DELTA or f.parent_reference not in (None, f.reference))
records = st.builds(
    SourceRecord,
    position=NAME,
    payment=facts,
    line=st.none() | st.integers(1, 10**9),
    headers=st.dictionaries(TEXT, TEXT, max_size=3),
    revision=st.none() | st.builds(Revision, at=INSTANT, seq=st.integers(0, 2**62)),
)


def envelope(*, provider: str = "acme", path: str = "/in/a.csv", at: datetime = AT) -> Envelope:
    return Envelope(Connector(UUID(int=1), "acme files", provider), RUN, Task("a.csv", "sha", "sha", path), at)


def record(**changes: object) -> SourceRecord:
    payment = PaymentFacts("r-1", None, PaymentType.PAYIN, Status.SUCCEEDED, 5, "EUR", "", AT, None)._replace(**changes)
    return SourceRecord("row 1", payment, 2)


@given(record=records, provider=NAME, path=TEXT, at=INSTANT)
def test_the_fast_encoder_says_what_the_definition_says(
    record: SourceRecord, provider: str, path: str, at: datetime
) -> None:
    wrap = envelope(provider=provider, path=path, at=at)
    event = wrap.event(record)

    message = wrap.message(event.id, record)

    assert codec.decode_event(message.value) == event
    assert message.key.decode() == event.foreign_id
    assert dict(message.headers) == {
        codec.HEADER_EVENT: event.id.encode(),
        codec.HEADER_RUN: str(RUN).encode(),
        codec.HEADER_CONNECTOR: str(UUID(int=1)).encode(),
        codec.HEADER_VERSION: event.schema_version.encode(),
    }


def test_both_encoders_name_the_same_fields_in_the_same_order() -> None:
    wrap, one = envelope(), record()
    event = wrap.event(one)

    assert wrap.message(event.id, one).value == codec.encode_event(event)


@given(connector=st.uuids(), source_object=st.text(st.characters(codec="ascii"), max_size=80), position=TEXT)
def test_event_ids_are_those_of_the_schema(connector: UUID, source_object: str, position: str) -> None:
    assert EventIds(connector, source_object).of(position) == identity.event_id(connector, source_object, position)


def test_a_refund_has_its_payments_key() -> None:
    refund = record(reference="re-1", parent_reference="r-1", status=Status.REFUNDED)

    assert envelope().message("id", refund).key == envelope().message("id", record()).key == b"acme/r-1"


def test_the_same_record_gives_the_same_bytes_whenever_it_is_read() -> None:
    assert envelope().prepare([record()], [], AT) == envelope().prepare([record()], [], AT)


def test_a_record_too_large_for_an_event_becomes_a_letter() -> None:
    large = record(raw="x" * 900_000, reference="\N{GRINNING FACE}" * 250)._replace(headers={"h": "y" * 200_000})

    prepared = envelope().prepare([record(), large._replace(position="row 2")], [], AT)

    assert [letter.reason for letter in prepared.letters] == ["too_large"]
    assert prepared.letters[0].value_bytes() == b"x" * 900_000
    assert len(prepared.messages) == 1
    assert len(prepared.messages[0].value) <= MAX_EVENT_BYTES


def test_a_letter_holds_the_record_and_its_place() -> None:
    rejection = Rejection("row 9", "invalid_amount", "no amount", b"\xff\x00,raw\r\n", 12)

    (letter,) = envelope().prepare([], [rejection], AT).letters

    assert letter.value_bytes() == b"\xff\x00,raw\r\n"
    assert (letter.stage, letter.reason, letter.position, letter.line) == (Stage.SOURCE, "invalid_amount", "row 9", 12)
    assert (letter.path, letter.source_object, letter.run_id) == ("/in/a.csv", "sha", RUN)
    assert letter.event_id == identity.event_id(UUID(int=1), "sha", "row 9")
    assert not letter.truncated


def test_a_letters_id_is_a_function_of_its_place_alone() -> None:
    rejection = Rejection("row 9", "invalid_amount", "no amount", b"raw", 12)
    again = rejection._replace(reason="unknown_asset", raw=b"other")

    first, second = envelope().prepare([], [rejection, again], AT).letters

    assert first.id == second.id
    assert first.id != envelope().prepare([], [rejection._replace(position="row 10")], AT).letters[0].id


def test_a_record_too_large_to_hold_is_marked_with_its_size_and_hash() -> None:
    rejection = Rejection("row 1", "record_too_large", "large", b"x" * 2_000_000, 1, 99_000_000, "abc")

    (letter,) = envelope().prepare([], [rejection], AT).letters

    assert (letter.truncated, letter.size_bytes, letter.sha256) == (True, 99_000_000, "abc")
    assert len(letter.model_dump_json()) <= LETTER_MAX_BYTES


def test_what_the_broker_refuses_becomes_a_letter_with_the_events_bytes() -> None:
    prepared = envelope().prepare([record()], [], AT)

    refused = envelope().refuse(prepared, RecordRejected("too_large", "does not fit"), AT)

    assert (refused.messages, refused.digests) == ((), ())
    assert refused.letters[0].value_bytes() == prepared.messages[0].value
    assert refused.rejected_sum == prepared.published_sum


def test_sums_are_those_of_the_ledger() -> None:
    rows = [record()._replace(position=f"row {n}") for n in range(5)]
    prepared = envelope().prepare(rows[:3], [Rejection(row.position, "x", "x", b"") for row in rows[3:]], AT)
    ids = [identity.event_id(UUID(int=1), "sha", row.position) for row in rows]

    assert prepared.published_sum == identity.digest_sum(map(identity.event_digest, ids[:3]))
    assert prepared.rejected_sum == identity.digest_sum(map(identity.event_digest, ids[3:]))
    assert prepared.halves()[0].plus(prepared.halves()[1]) == prepared


@pytest.mark.parametrize("provider", ["acme", "a/b", "ä b", "100%"])
def test_the_key_is_the_foreign_id(provider: str) -> None:
    message = envelope(provider=provider).message("id", record())

    assert message.key.decode() == identity.foreign_id(provider, "r-1")
