from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.mapping import BatchBuilder, RecordConfig, RecordMapper, by_effective_at
from connectors.record import NumberText, PaymentFacts
from connectors.source import Batch, Revision, SourceRecord
from schemas.errors import RecordRejected
from schemas.payment import PaymentType, Status

GOOD: dict[str, object] = {"reference": "001", "type": "payin", "status": "succeeded", "asset": "USD", "amount": 100}
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def config(**options: object) -> RecordConfig:
    return RecordConfig.model_validate(options)


def mapped(record: Mapping[str, object], **options: object) -> SourceRecord:
    found = RecordMapper(config(**options).rules, source_object="object").of_object(record, position="1")
    assert found is not None
    return found


def facts(record: Mapping[str, object], **options: object) -> PaymentFacts:
    return mapped(record, **options).payment


def reason(record: Mapping[str, object], **options: object) -> str:
    with pytest.raises(RecordRejected) as caught:
        mapped(record, **options)
    return caught.value.code


def problem(**options: object) -> str:
    with pytest.raises(ValidationError) as caught:
        config(**options)
    return "; ".join(error["msg"] for error in caught.value.errors())


def built(*records: Mapping[str, object], **options: object) -> Batch:
    builder = BatchBuilder(RecordMapper(config(**options).rules, source_object="object"))
    for index, record in enumerate(records):
        builder.add(record, position=str(index))
    return builder.build({})


# --- fields


def test_a_gateways_webhook_is_read_through_paths() -> None:
    record = {
        "event": "payment.captured",
        "created_at": 1_700_000_000,
        "payload": {"payment": {"entity": {"id": "pay_1", "amount": 50_000, "currency": "INR", "status": "captured"}}},
    }
    entity = "$.payload.payment.entity"

    found = mapped(
        record,
        columns={
            "reference": f"{entity}.id",
            "amount": f"{entity}.amount",
            "asset": f"{entity}.currency",
            "status": f"{entity}.status",
            "effective_at": "created_at",
            "created_at": "",
        },
        type="payin",
        status_map={"captured": "succeeded"},
        date_format="unix_s",
        headers={"event": "event"},
    )

    expected = PaymentFacts(
        "pay_1",
        None,
        PaymentType.PAYIN,
        Status.SUCCEEDED,
        50_000,
        "INR",
        "",
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        None,
    )
    assert found == SourceRecord("1", expected, None, {"event": "payment.captured"})


def test_a_constant_stands_for_what_the_source_does_not_say_also_where_a_column_has_its_name() -> None:
    """
    A gateway's `type` says `payment` or `refund`, which is no direction.
    """
    found = facts(
        {**GOOD, "type": "refund", "asset": "us dollars", "scheme": 5}, type="payout", asset="INR/2", scheme="upi"
    )

    assert (found.type, found.asset, found.scheme) == (PaymentType.PAYOUT, "INR/2", "upi")


def test_a_field_that_the_source_does_not_have_is_taken_from_no_column() -> None:
    assert facts({**GOOD, "date": "never"}, columns={"date": ""}).effective_at is None
    assert reason({**GOOD, "date": "never"}) == "invalid_instant"


def test_one_column_may_be_two_fields() -> None:
    found = facts({**GOOD, "id": "r-1"}, columns={"reference": "id", "scheme": "id"})

    assert (found.reference, found.scheme) == ("r-1", "r-1")


@pytest.mark.parametrize("word", ["Capture d", "capture-d", "CAPTURED", "captured"])
def test_a_sources_word_means_what_the_map_says_in_every_spelling(word: str) -> None:
    assert facts({**GOOD, "status": word}, status_map={"Captured": "succeeded"}).status is Status.SUCCEEDED


def test_words_that_no_map_names_mean_what_they_always_do() -> None:
    assert facts({**GOOD, "status": "pending"}, status_map={"captured": "succeeded"}).status is Status.PENDING
    assert reason({**GOOD, "status": "nonsense"}, status_map={"captured": "succeeded"}) == "unknown_status"


@pytest.mark.parametrize(("value", "status"), [(1, Status.SUCCEEDED), (True, Status.PENDING), ("1", Status.SUCCEEDED)])
def test_a_status_may_be_a_number_or_a_truth_value(value: object, status: Status) -> None:
    assert facts({**GOOD, "status": value}, status_map={"1": "succeeded", "true": "pending"}).status is status


def test_one_and_true_are_two_words_whichever_comes_first() -> None:
    mapper = RecordMapper(config(status_map={"1": "succeeded", "true": "pending"}).rules)

    for value, status in [(1, Status.SUCCEEDED), (True, Status.PENDING), (1, Status.SUCCEEDED)]:
        found = mapper.of_object({**GOOD, "status": value}, position="1")
        assert found is not None
        assert found.payment.status is status


def test_a_sources_directions_are_mapped() -> None:
    assert facts({**GOOD, "type": "D"}, type_map={"C": "payin", "d": "payout"}).type is PaymentType.PAYOUT


# --- dates


@pytest.mark.parametrize(
    ("format_", "zone", "value", "expected"),
    [
        ("rfc3339", "", "2026-01-02T03:04:05Z", AT),
        ("unix_s", "", 1_767_323_045, AT),
        ("unix_s", "", "1767323045", AT),
        ("unix_ms", "", 1_767_323_045_250, AT.replace(microsecond=250_000)),
        ("unix_s", "", -1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("%d/%m/%Y %H:%M:%S", "Asia/Kolkata", "02/01/2026 08:34:05", AT),
        ("%d-%b-%Y", "Asia/Kolkata", "02-JAN-2026", datetime(2026, 1, 1, 18, 30, tzinfo=UTC)),
        ("%Y-%m-%d %H:%M:%S.%f", "UTC", "2026-01-02 03:04:05.250000", AT.replace(microsecond=250_000)),
        ("%Y%m%d%H%M%S%z", "", "20260102083405+0530", AT),
    ],
)
def test_a_date_is_read_in_its_format(format_: str, zone: str, value: object, expected: datetime) -> None:
    found = facts({**GOOD, "effective_at": value}, date_format=format_, timezone=zone)

    assert found.effective_at == expected


@pytest.mark.parametrize(
    ("format_", "value", "code"),
    [
        ("unix_s", "2026-01-02", "invalid_instant"),
        ("unix_s", 1.5, "invalid_instant"),
        ("unix_s", True, "invalid_instant"),
        ("unix_s", "\uff19", "invalid_instant"),
        ("unix_s", 10**14, "invalid_instant"),
        ("unix_s", 10**20, "invalid_instant"),
        ("unix_ms", NumberText("1e3"), "invalid_instant"),
        ("%d/%m/%Y", "2026-01-02", "invalid_instant"),
        ("%d/%m/%Y", "31/02/2026", "invalid_instant"),
        ("%d/%m/%Y", 2026, "invalid_instant"),
        ("%d/%m/%Y", "02/01/2026", "missing_timezone"),
        ("%d/%m/%Y", "\u0660\u0662/01/2026", "invalid_instant"),
        ("%Y-%m-%d%z", "0001-01-01+0530", "invalid_instant"),
    ],
)
def test_a_date_in_another_format_rejects_its_record(format_: str, value: object, code: str) -> None:
    assert reason({**GOOD, "effective_at": value}, date_format=format_) == code


@pytest.mark.parametrize("pattern", ["iso", "%H:%M", "%d/%m", "%Y-%m", "%Y-%m-%d %Q", "%Y%Y%m%d", "%"])
def test_a_pattern_that_cannot_date_a_payment_is_refused(pattern: str) -> None:
    assert pattern in problem(date_format=pattern)


# --- deltas without a reference of their own


REFUND: dict[str, object] = {
    "reference": "p-1",
    "type": "payin",
    "status": "refunded",
    "asset": "USD",
    "amount": 5,
    "on": "d1",
}


def test_a_refund_without_a_reference_of_its_own_is_rejected_unless_something_tells_it_apart() -> None:
    assert reason(REFUND) == "missing_reference"


def test_columns_tell_refunds_apart() -> None:
    options = {"identity": ["on", "amount"]}

    first, again, other = (facts(record, **options) for record in (REFUND, {**REFUND, "x": 1}, {**REFUND, "on": "d2"}))

    assert first.parent_reference == "p-1"
    assert first.reference == again.reference != other.reference
    assert first.reference.startswith("~")


def test_identities_of_two_payments_and_of_two_statuses_differ() -> None:
    options = {"identity": ["on"]}

    found = {
        facts({**REFUND, **changes}, **options).reference
        for changes in ({}, {"reference": "p-2"}, {"status": "captured"}, {"on": "d2"})
    }

    assert len(found) == 4


def test_the_place_in_the_source_tells_refunds_apart() -> None:
    rules = config(identity="position").rules
    one, other = RecordMapper(rules, source_object="a"), RecordMapper(rules, source_object="b")

    found = {
        record.payment.reference
        for mapper in (one, other)
        for position in ("row 1", "row 2", "row 1")
        if (record := mapper.of_object(REFUND, position=position)) is not None
    }

    assert len(found) == 4


def test_a_refund_that_has_a_reference_keeps_it() -> None:
    found = facts({**REFUND, "reference": "r-1", "parent_reference": "p-1"}, identity=["on"])

    assert (found.reference, found.parent_reference) == ("r-1", "p-1")


def test_a_refund_may_name_its_payment_only() -> None:
    record = {**REFUND, "parent_reference": "p-1"}
    del record["reference"]

    assert facts(record, identity=["on"]).parent_reference == "p-1"


def test_an_identity_of_nothing_rejects_the_record() -> None:
    assert reason({**REFUND, "on": None}, identity=["on"]) == "missing_reference"


def test_identity_leaves_snapshots_alone() -> None:
    assert facts(GOOD, identity=["on"]).reference == "001"
    assert reason({**GOOD, "reference": ""}, identity=["on"]) == "missing_reference"


# --- headers, revisions, what is left out


def test_headers_are_texts_and_absent_ones_are_left_out() -> None:
    record = {**GOOD, "n": 7, "yes": True, "deep": {"a": [NumberText("1.50")]}, "none": None, "empty": "", "text": "x"}
    names = ("n", "yes", "deep", "none", "empty", "text", "missing")

    found = mapped(record, headers={name: name for name in names})

    assert found.headers == {"n": "7", "yes": "true", "deep": '{"a":[1.50]}', "text": "x"}


def test_a_header_that_is_too_long_rejects_the_record() -> None:
    assert reason({**GOOD, "x": "x" * 5_000}, headers={"x": "x"}) == "invalid_header"


def test_the_revision_is_when_the_record_was_changed() -> None:
    assert mapped({**GOOD, "changed": "2026-01-02T03:04:05Z"}, updated_at="changed").revision == Revision(AT)
    assert mapped({**GOOD, "changed": None}, updated_at="changed").revision is None
    assert reason({**GOOD, "changed": "yesterday"}, updated_at="changed") == "invalid_instant"


@pytest.mark.parametrize(
    ("rule", "record"),
    [
        ({"equals": ["TOTAL"]}, {"kind": "TOTAL"}),
        ({"prefix": ["TOT"]}, {"kind": "TOTAL"}),
        ({"equals": [""]}, {"kind": None}),
        ({"equals": [""]}, {}),
        ({"equals": ["5"]}, {"kind": 5}),
        ({"equals": ["true"]}, {"kind": True}),
        ({"equals": ["no", "TOTAL"], "prefix": ["x"]}, {"kind": "TOTAL"}),
    ],
)
def test_a_rule_leaves_out_what_is_no_payment_before_it_is_judged(
    rule: dict[str, Any], record: dict[str, object]
) -> None:
    rules = config(leave_out=[{"column": "kind", **rule}]).rules

    assert RecordMapper(rules).of_object(record, position="1") is None
    assert RecordMapper(rules).of_object({**GOOD, "kind": "sale"}, position="1") is not None


def test_a_rule_that_says_nothing_is_refused() -> None:
    assert "equals or prefix" in problem(leave_out=[{"column": "kind"}])


# --- rows


def rows(text: str, **options: object) -> list[SourceRecord | None]:
    header, *lines = csv.reader(io.StringIO(text))
    read = RecordMapper(config(**options).rules, source_object="file").row_reader(header)
    return [read(row, f"row {index}", index) for index, row in enumerate(lines, 1)]


def test_rows_have_headers_revisions_and_rules_as_objects_have() -> None:
    header = "reference,type,status,asset,amount,kind,changed\n"
    text = f"{header}a,payin,failed,USD,1,sale,2026-01-02T03:04:05Z\n,,,,9,TOTAL,\n"

    first, second = rows(
        text, headers={"kind": "kind"}, updated_at="changed", leave_out=[{"column": "kind", "equals": ["TOTAL"]}]
    )

    assert first is not None
    assert (first.position, first.line, first.headers, first.revision) == ("row 1", 1, {"kind": "sale"}, Revision(AT))
    assert second is None


def test_a_path_is_a_way_to_name_a_column_of_rows_too() -> None:
    (found,) = rows("id,type,status,asset,amount\na,payin,failed,USD,1\n", columns={"reference": "$.id"})

    assert found is not None
    assert found.payment.reference == "a"


def test_constants_make_columns_needless() -> None:
    (found,) = rows("reference,status,amount\na,failed,1.50\n", type="payin", asset="EUR", amount_unit="major")

    assert found is not None
    assert found.payment[2:6] == (PaymentType.PAYIN, Status.FAILED, 150, "EUR")


def test_a_header_without_what_a_payment_needs_is_refused_also_under_a_mapping() -> None:
    with pytest.raises(RecordRejected, match="no column for reference, status"):
        rows("type,asset,amount\n", headers={"x": "x"})
    assert rows("parent_reference,type,status,asset,amount\n", identity=["amount"]) == []


# --- the configuration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"colour": "x"}}, "unknown fields colour"),
        ({"columns": {"reference": "$."}}, "is no path"),
        ({"headers": {"": "x"}}, "a header has a name"),
        ({"headers": {"a b": "x"}}, "a header has a name"),
        ({"headers": {"a": ""}}, "a header has a name"),
        ({"asset": "dollars"}, "neither an ISO 4217 code"),
        ({"timezone": "Mars/Base"}, "no IANA time zone"),
        ({"type": "payin", "columns": {"type": "kind"}}, "give one of them"),
        ({"status_map": {"Cap tured": "captured", "captured": "succeeded"}}, "two spellings"),
        ({"adapter": "a:b:c"}, "an adapter is a name"),
        ({"updated_at": "$.a[*]"}, "is no path"),
        ({"identity": ["$[x]"]}, "is no path"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_with_the_reason(options: dict[str, Any], words: str) -> None:
    assert words in problem(**options)


def test_every_option_survives_json() -> None:
    options = {
        "columns": {"reference": "$.id", "date": ""},
        "type": "payin",
        "status_map": {"captured": "succeeded"},
        "identity": ["a", "$.b"],
        "headers": {"event": "event"},
        "leave_out": [{"column": "kind", "equals": ["TOTAL"], "prefix": ["x"]}],
    }

    before = config(**options)

    assert RecordConfig.model_validate_json(before.model_dump_json()) == before
    assert RecordConfig.model_validate(json.loads(json.dumps(options))).rules == before.rules


# --- batches


def test_a_batch_accounts_for_every_record_in_order() -> None:
    batch = built(
        GOOD, {**GOOD, "amount": "1.5"}, {**GOOD, "kind": "TOTAL"}, leave_out=[{"column": "kind", "equals": ["TOTAL"]}]
    )

    assert ([record.position for record in batch.records], batch.filtered, batch.read) == (["0"], 1, 3)
    (rejection,) = batch.rejections
    assert (rejection.position, rejection.reason) == ("1", "invalid_amount")
    assert json.loads(rejection.raw) == {**GOOD, "amount": "1.5"}


def test_a_builder_is_empty_once_it_has_built() -> None:
    builder = BatchBuilder(RecordMapper(config().rules))
    builder.add(GOOD, position="1")
    builder.leave_out(2)

    assert len(builder) == 3
    assert builder.build({"at": 1}).cursor == {"at": 1}
    assert (len(builder), builder.build({}).read) == (0, 0)


def test_a_rejection_keeps_the_bytes_it_was_given() -> None:
    builder = BatchBuilder(RecordMapper(config().rules))
    builder.add({}, position="1", raw=b"\xff\x00", line=3)

    (rejection,) = builder.build({}).rejections

    assert (rejection.raw, rejection.line) == (b"\xff\x00", 3)


@pytest.mark.parametrize("field", ["reference", "scheme", "raw", "note"])
@pytest.mark.parametrize(("text", "code"), [("a\x00b", "nul_character"), ("a\ud800b", "invalid_encoding")])
def test_texts_that_no_event_may_hold_reject_their_record(field: str, text: str, code: str) -> None:
    batch = built({**GOOD, field: text}, headers={"note": "note"})

    assert [rejection.reason for rejection in batch.rejections] == [code]
    assert isinstance(batch.rejections[0].raw, bytes)


def test_a_record_without_a_date_of_change_has_the_revision_that_its_source_gives_it() -> None:
    builder = BatchBuilder(RecordMapper(config(updated_at="changed").rules))
    dated = {**GOOD, "effective_at": "2026-01-02T03:04:05Z"}
    for record, revision in (
        ({**dated, "changed": "2026-02-02T00:00:00Z"}, by_effective_at),
        (dated, by_effective_at),
        (GOOD, by_effective_at),
        (GOOD, Revision(AT, 7)),
    ):
        builder.add(record, position="1", revision=revision)

    found = [record.revision for record in builder.build({}).records]

    assert found == [Revision(datetime(2026, 2, 2, tzinfo=UTC)), Revision(AT), None, Revision(AT, 7)]


def test_a_sources_own_headers_lie_under_those_of_the_mapping() -> None:
    builder = BatchBuilder(RecordMapper(config(headers={"event": "event"}).rules))
    builder.add({**GOOD, "event": "mapped"}, position="1", headers={"event": "own", "page": "2"})

    assert builder.build({}).records[0].headers == {"event": "mapped", "page": "2"}


def test_the_whole_record_is_kept_as_it_is_spelled_anew() -> None:
    record = {**GOOD, "amount": NumberText("12.50"), "deep": {"é": [None]}}

    found = facts(record, raw="record", amount_unit="major")

    assert found.amount == 1_250
    assert (
        found.raw
        == '{"reference":"001","type":"payin","status":"succeeded","asset":"USD","amount":12.50,"deep":{"é":[null]}}'
    )


WORDS = ["", "payin", "refunded", "x", "1", "USD", "2026-01-02"]
json_values = st.sampled_from(
    [None, True, False, 0, 1, -7, 10**17, NumberText("1.5"), *WORDS, [], ["x"], [None, 1], {}, {"a": {"b": []}}]
)


@given(st.dictionaries(st.sampled_from([*GOOD, "on", "changed", "kind"]), json_values))
def test_whatever_a_record_holds_it_has_one_fate(record: dict[str, object]) -> None:
    batch = built(
        record,
        headers={"kind": "kind"},
        updated_at="changed",
        identity=["on"],
        status_map={"1": "refunded"},
        leave_out=[{"column": "$.on[0]", "prefix": ["x"]}],
        raw="record",
    )

    assert batch.read == 1
