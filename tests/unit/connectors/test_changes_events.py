from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.changes import catalog
from connectors.changes.events import EventReader
from connectors.changes.rows import ColumnType
from connectors.mapping import RecordMapper
from connectors.postgres_changes import PostgresChangesConfig
from connectors.source import Revision, SourceRecord
from schemas.errors import RecordRejected
from schemas.payment import PaymentType, Status
from tests.unit.connectors import change_messages as wire

GIVEN = {"host": "db", "database": "d", "user": "u", "tables": ["events"], "mapping": "events_table"}
COLUMNS = [
    ColumnType("id", wire.BIGINT),
    ColumnType("entity_id", wire.TEXT),
    ColumnType("event_type", wire.TEXT),
    ColumnType("headers", wire.JSONB),
    ColumnType("created_at", wire.TIMESTAMPTZ),
]


def read(event_type: str, headers: dict[str, Any], *, number: int = 1, **options: Any) -> SourceRecord | None:
    return read_text(event_type, json.dumps(headers), number=number, **options)


def read_text(
    event_type: str, headers: str, of: list[ColumnType] = COLUMNS, *, number: int = 1, **options: Any
) -> SourceRecord | None:
    config = PostgresChangesConfig.model_validate({**GIVEN, **options})
    reader = EventReader("public.events", of, ["id"], config, RecordMapper(config.rules, source_object="x"))
    values = [str(number), "order-1", event_type, headers, "2026-01-02 03:04:05+00"]
    return reader.read(values, "position", Revision(wire.AT))


def test_a_completed_payment_is_read_with_the_defaults_alone() -> None:
    record = read("payment.completed", {"amount": "99.99", "currency": "USD", "source": "web"})

    assert record is not None
    facts = record.payment
    assert (facts.reference, facts.status, facts.type) == ("order-1", Status.SUCCEEDED, PaymentType.PAYIN)
    assert (facts.amount, facts.asset) == (9_999, "USD")
    assert facts.effective_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert record.headers == {"table": "public.events", "amount": "99.99", "currency": "USD", "source": "web"}


@pytest.mark.parametrize(
    ("event_type", "status"), [("payment.failed", Status.FAILED), ("payment.refunded", Status.REFUNDED)]
)
def test_the_seeds_event_types_are_known(event_type: str, status: Status) -> None:
    record = read(event_type, {"amount": "1.00", "currency": "USD"})

    assert record is not None
    assert (record.payment.status, record.payment.original_reference) == (status, "order-1")


AS_JSON = [ColumnType("headers", catalog.JSON) if column.name == "headers" else column for column in COLUMNS]


@pytest.mark.parametrize(
    "own",
    [r'"x": "a\u0000b"', r'"a\u0000b": "x"', r'"\u0000": null'],
)
def test_what_postgresql_could_not_store_is_refused_where_the_row_is_at_hand(own: str) -> None:
    """
    A column of type json takes U+0000, one of jsonb does not.
    """
    with pytest.raises(RecordRejected) as told:
        read_text("payment.completed", f'{{"amount": "1.00", "currency": "USD", {own}}}', AS_JSON)

    assert told.value.code == "nul_character"


@pytest.mark.parametrize(
    "headers",
    [
        '{"amount": "1.00", "currency": "USD", "amount": "2.00"}',
        '{"amount": "1.00", "currency": "USD", "x": [{"a": 1, "a": 1}]}',
    ],
)
def test_a_name_that_comes_twice_is_no_json_that_one_can_read(headers: str) -> None:
    with pytest.raises(RecordRejected, match="twice") as told:
        read_text("payment.completed", headers, AS_JSON)

    assert told.value.code == "invalid_json"


def test_numbers_of_a_json_column_stay_as_they_are_spelled() -> None:
    record = read_text("payment.completed", '{"amount": 1.10, "currency": "USD", "n": 1e400}', AS_JSON)

    assert record is not None
    assert (record.payment.amount, record.headers["n"]) == (110, "1e400")


def test_two_refunds_of_a_payment_are_two() -> None:
    refunds = [read("payment.refunded", {"amount": "1.00", "currency": "USD"}, number=number) for number in (1, 1, 2)]

    first, again, second = [refund.payment.reference for refund in refunds if refund is not None]
    assert first == again != second


@pytest.mark.parametrize("event_type", ["order.created", "payment.unheard_of", "", "PAYMENT.COMPLETED"])
def test_an_unknown_type_is_filtered(event_type: str) -> None:
    assert read(event_type, {}) is None


def test_a_type_that_an_operator_maps_is_known_beside_the_others() -> None:
    options = {"status_map": {"payment.expired": "expired"}}

    mapped = read("payment.expired", {"amount": "1", "currency": "USD"}, **options)

    assert mapped is not None
    assert mapped.payment.status is Status.EXPIRED
    assert read("payment.completed", {"amount": "1", "currency": "USD"}, **options) is not None


def test_one_asset_or_type_for_all_replaces_the_column() -> None:
    record = read("payment.completed", {"amount": 250}, asset="JPY", type="payout")

    assert record is not None
    assert (record.payment.asset, record.payment.amount, record.payment.type) == ("JPY", 250, PaymentType.PAYOUT)


def test_a_column_of_an_operators_own_holds_before_the_presets() -> None:
    columns = {"amount": "$.headers.total", "type": "$.headers.direction"}

    record = read("payment.completed", {"total": "3.00", "currency": "USD", "direction": "payout"}, columns=columns)

    assert record is not None
    assert (record.payment.amount, record.payment.type) == (300, PaymentType.PAYOUT)


@pytest.mark.parametrize("name", ["amount", "currency"])
@pytest.mark.parametrize("lack", [{}, {"amount": "", "currency": ""}, {"amount": None, "currency": None}])
def test_a_missing_header_is_told_in_the_seeds_words(name: str, lack: dict[str, Any]) -> None:
    headers = {"amount": "1.00", "currency": "USD"}
    headers.pop(name)

    with pytest.raises(RecordRejected, match=f"^missing required header: {name}$") as told:
        read("payment.completed", {**{key: value for key, value in lack.items() if key == name}, **headers})

    assert told.value.code == "missing_header"


@pytest.mark.parametrize("amount", ["ten", "1e2", "NaN", "٣", "1,000.00", "Infinity", "0x1", True, [1], 1e400])
def test_an_amount_that_is_none_is_told_in_the_seeds_words(amount: Any) -> None:
    with pytest.raises(RecordRejected, match=r"^invalid amount: |JSON") as told:
        read("payment.completed", {"amount": amount, "currency": "USD"})

    assert told.value.code in {"invalid_amount", "invalid_json"}


def test_a_fraction_in_json_is_exact() -> None:
    record = read("payment.completed", {"amount": 1234567890123.45, "currency": "USD"})

    assert record is not None
    assert record.payment.amount == 123_456_789_012_345


def test_headers_that_are_no_object_are_rejected() -> None:
    with pytest.raises(RecordRejected):
        read("payment.completed", ["amount"])  # type: ignore[arg-type]
