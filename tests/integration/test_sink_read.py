"""Payments as people ask for them, and in the shape of seed 000."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from schemas.errors import ConfigError
from schemas.identity import payment_id
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from sinks.read import list_payments, show_payment
from sinks.view import payments_view
from tests.model.history import CONNECTOR, PLACE, RUN, record

SEED_ID = "eyJwcm92aWRlciI6ImV4YW1wbGUiLCJyZWZlcmVuY2UiOiIwMDEiLCJ0eXBlIjoicGF5aW4ifQ=="


@pytest.fixture
async def sink(database: str) -> AsyncIterator[PostgresSink]:
    await migrate(database)
    opened = await PostgresSink.open(database)
    yield opened
    await opened.close()


async def test_the_sample_of_seed_000_looks_exactly_as_the_seed_shows_it(sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded", 100)], next_offset=1)

    page = await list_payments(sink.pool)

    assert payments_view(page.payments) == {
        "data": [
            {
                "id": SEED_ID,
                "reference": "001",
                "type": "payin",
                "provider": "example",
                "status": "succeeded",
                "initialAmount": 100,
                "scheme": "",
                "asset": "USD",
                "createdAt": "0001-01-01T00:00:00Z",
                "raw": None,
                "adjustments": [
                    {
                        "status": "succeeded",
                        "amount": 100,
                        "date": "0001-01-01T00:00:00Z",
                        "raw": None,
                        "absolute": False,
                    }
                ],
            }
        ]
    }


async def test_adjustments_stand_newest_first_with_signs_statuses_and_raw_as_json(sink: PostgresSink) -> None:
    await sink.apply(
        PLACE,
        [
            record("partially_refunded", 30, at=3, raw='{"a": 1.5}'),
            record("authorised", 100, at=1, raw="plain, text"),
            record("adjusted", 80, raw='{"big": 1e400}'),
            record("captured", 100, at=2, reference="c", raw="[1]"),
        ],
        next_offset=4,
    )

    page = await list_payments(sink.pool)

    (payment,) = payments_view(page.payments)["data"]
    assert payment["status"] == "succeeded"
    assert payment["createdAt"] == "2026-01-02T00:00:00Z"
    assert payment["initialAmount"] == 100
    assert payment["raw"] == {"a": 1.5}
    assert [tuple(one.values()) for one in payment["adjustments"]] == [
        ("succeeded", -30, "2026-01-04T00:00:00Z", {"a": 1.5}, False),
        ("succeeded", 100, "2026-01-03T00:00:00Z", [1], False),
        ("pending", 100, "2026-01-02T00:00:00Z", "plain, text", False),
        ("succeeded", 80, "0001-01-01T00:00:00Z", '{"big": 1e400}', True),
    ]
    json.dumps(payment, allow_nan=False)


async def test_lists_are_newest_first_and_pages_do_not_move_while_payments_arrive(sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("succeeded", reference=f"r{n}") for n in range(5)], next_offset=5)

    first = await list_payments(sink.pool, limit=2)
    await sink.apply(PLACE, [record("succeeded", reference="new")], next_offset=6)
    second = await list_payments(sink.pool, limit=2, after=first.next)
    third = await list_payments(sink.pool, limit=2, after=second.next)

    listed = [[one.payment.reference for one in page.payments] for page in (first, second, third)]
    assert listed == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    assert third.next is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, {"a", "b", "c"}),
        ({"status": "failed"}, {"b"}),
        ({"provider": "other"}, {"c"}),
        ({"provider": "example", "reference": "a"}, {"a"}),
        ({"provider": "example", "reference": "a", "status": "failed"}, set()),
        ({"reference": "b"}, {"b"}),
        ({"reference": "none"}, set()),
    ],
)
async def test_filters_narrow_the_list(sink: PostgresSink, wanted: dict[str, str], expected: set[str]) -> None:
    await sink.apply(
        PLACE,
        [
            record("succeeded", reference="a"),
            record("failed", reference="b"),
            record("succeeded", reference="c", provider="other"),
        ],
        next_offset=3,
    )

    page = await list_payments(sink.pool, **wanted)

    assert {one.payment.reference for one in page.payments} == expected


async def test_a_page_token_of_nobody_is_refused_with_a_reason(sink: PostgresSink) -> None:
    for token in ("", "x", "Zm9v", "é", "cDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"):
        with pytest.raises(ConfigError, match="not the `next`"):
            await list_payments(sink.pool, after=token)


async def test_a_payment_is_shown_with_the_lineage_of_every_event(sink: PostgresSink) -> None:
    path = "in/a\nb — ü.csv"
    await sink.apply(PLACE, [record("succeeded", event_id="e1", line=7, path=path, offset=3)], next_offset=4)
    await sink.apply(PLACE, [record("succeeded", event_id="e2", offset=4)], next_offset=5)

    shown = await show_payment(sink.pool, SEED_ID)

    assert shown is not None
    assert shown.payment.flags == []
    assert [(one.events, one.run, one.connector) for one in shown.adjustments] == [(2, RUN, CONNECTOR)]
    assert [(one.event_id, one.path, one.line, one.log_offset, one.applied) for one in shown.events] == [
        ("e1", path, 7, 3, True),
        ("e2", "in/001.json", None, 4, False),
    ]


async def test_a_refund_before_its_payment_is_shown_without_an_initial_amount(sink: PostgresSink) -> None:
    await sink.apply(PLACE, [record("refunded", 30)], next_offset=1)

    shown = await show_payment(sink.pool, SEED_ID)

    assert shown is not None
    assert (shown.payment.flags, shown.payment.initial_amount, shown.payment.amount) == (
        ["awaiting_original"],
        None,
        -30,
    )


@pytest.mark.parametrize(
    "identifier",
    ["", "x", SEED_ID[:-4], payment_id("example", "none", "payin"), "e30=", "W10=", "é", "eyJwcm92aWRlciI6MX0="],
)
async def test_what_is_no_id_of_a_payment_shows_none(sink: PostgresSink, identifier: str) -> None:
    await sink.apply(PLACE, [record("succeeded", 100)], next_offset=1)

    assert await show_payment(sink.pool, identifier) is None


@pytest.mark.parametrize("reference", ['a"b\\c', "ü€😀", "tab\tnew\nline\r\x0b\x1f\x7f", "?>~/", "é" * 200])
async def test_the_id_that_the_database_makes_is_the_one_of_the_schemas(sink: PostgresSink, reference: str) -> None:
    await sink.apply(PLACE, [record("succeeded", reference=reference, provider="p/ü")], next_offset=1)

    (found,) = (await list_payments(sink.pool)).payments

    assert found.payment.id == payment_id("p/ü", reference, "payin")
    assert (await show_payment(sink.pool, found.payment.id)) is not None
