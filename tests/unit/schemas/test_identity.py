from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import (
    adjustment_key,
    content_hash,
    digest_sum,
    event_digest,
    event_id,
    foreign_id,
    payment_digest,
    payment_id,
    task_id,
)
from schemas.payment import PaymentPayload, PaymentType, Status

CONNECTOR = UUID("6d9b9f6e-9d0b-4b53-8a51-3d3c6f9a2a11")


def payment(**changes: object) -> PaymentPayload:
    fields: dict[str, object] = {
        "provider": "example",
        "reference": "001",
        "type": PaymentType.PAYIN,
        "status": Status.SUCCEEDED,
        "amount": 100,
        "asset": "USD",
    }
    return PaymentPayload.model_validate({**fields, **changes})


def test_payment_id_is_the_one_printed_in_the_tutorial() -> None:
    printed = "eyJwcm92aWRlciI6ImV4YW1wbGUiLCJyZWZlcmVuY2UiOiIwMDEiLCJ0eXBlIjoicGF5aW4ifQ=="

    assert payment_id("example", "001", "payin") == printed


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_payment_id_gives_back_what_it_was_made_of(provider: str, reference: str) -> None:
    decoded = json.loads(base64.urlsafe_b64decode(payment_id(provider, reference, "payout")))

    assert decoded == {"provider": provider, "reference": reference, "type": "payout"}
    assert list(decoded) == sorted(decoded)


@pytest.mark.parametrize(
    ("descriptor", "identifier"), [("directory", "ImRpcmVjdG9yeSI="), ("001.json", "IjAwMS5qc29uIg==")]
)
def test_task_ids_are_the_ones_printed_in_the_tutorial(descriptor: str, identifier: str) -> None:
    assert task_id(descriptor) == identifier


def test_event_ids_never_change() -> None:
    """Golden: an id that changed would make every record of every old file new."""
    assert event_id(CONNECTOR, "a" * 64, "row 1") == "50d8194a616abb7dbc705099fb5742bd"
    assert event_digest("50d8194a616abb7dbc705099fb5742bd").hex() == "63c5c418d3054450745ea36f5a7cde90"


def test_no_choice_of_fields_collides() -> None:
    assert event_id(CONNECTOR, "ab", "c") != event_id(CONNECTOR, "a", "bc")
    assert foreign_id("a/b", "c") != foreign_id("a", "b/c")


def test_a_refund_shares_its_payments_key_and_identity() -> None:
    refund = payment(reference="R1", parent_reference="001", status=Status.REFUNDED, amount=40)

    assert payment_digest(refund) == payment_digest(payment())
    assert foreign_id(refund.provider, refund.original_reference) == foreign_id("example", "001")


def test_a_deltas_key_is_its_own_reference_and_status_and_not_its_amount() -> None:
    refund = {"reference": "R1", "parent_reference": "001", "status": Status.REFUNDED}

    assert adjustment_key(payment(**refund, amount=40)) == adjustment_key(payment(**refund, amount=41))
    assert adjustment_key(payment(**refund)) != adjustment_key(payment(**{**refund, "reference": "R2"}))
    assert adjustment_key(payment(**refund)) != adjustment_key(
        payment(**{**refund, "status": Status.PARTIALLY_REFUNDED})
    )


def test_a_snapshots_key_is_its_status_instant_and_amount() -> None:
    at = datetime(2025, 1, 10, tzinfo=UTC)

    assert adjustment_key(payment(effective_at=at)) == adjustment_key(payment(effective_at=at, scheme="visa"))
    assert adjustment_key(payment(effective_at=at)) != adjustment_key(payment())
    assert adjustment_key(payment()) != adjustment_key(payment(amount=101))
    assert adjustment_key(payment()) != adjustment_key(payment(status=Status.FAILED))
    assert content_hash(payment()) != content_hash(payment(scheme="visa"))


@given(st.lists(st.binary(min_size=16, max_size=16)), st.randoms())
def test_digest_sums_ignore_order_and_see_every_element(digests: list[bytes], random: object) -> None:
    shuffled = list(digests)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert digest_sum(shuffled) == digest_sum(digests)
    assert digest_sum([*digests, (1).to_bytes(16)]) != digest_sum(digests)
