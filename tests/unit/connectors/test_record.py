from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.files.objects import parse_object
from connectors.record import (
    AmountUnit,
    NumberText,
    PaymentFacts,
    RawPolicy,
    RecordReader,
    RecordRules,
    UnknownStatus,
    clean,
)
from schemas.errors import RecordRejected
from schemas.payment import MEANINGS, PaymentPayload, PaymentType, Status

HEADER = ("reference", "type", "status", "asset", "initialAmount", "amount", "createdAt", "parentReference")
GOOD = {"reference": "001", "type": "payin", "status": "succeeded", "asset": "USD", "initialAmount": 100}


def of(**changes: object) -> PaymentFacts:
    return RecordReader(RecordRules()).of_object({**GOOD, **changes}, lambda: None)


def row(*cells: str, rules: RecordRules | None = None) -> PaymentFacts:
    return RecordReader(rules or RecordRules()).row_reader(HEADER)(cells)


def reason(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(RecordRejected) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.code


def test_the_seeds_sample_is_understood() -> None:
    record = json.loads('{"type":"payin","reference":"001","status":"succeeded","asset":"USD","initialAmount":100}')

    facts = RecordReader(RecordRules()).of_object(record, lambda: None)

    assert facts == PaymentFacts("001", None, PaymentType.PAYIN, Status.SUCCEEDED, 100, "USD", "", None, None)


@pytest.mark.parametrize("spelling", ["payin", "pay-in", "PAY-IN", "Pay In", "pay_in", "PAYIN", "payIn"])
def test_every_spelling_of_a_type_is_known(spelling: str) -> None:
    assert of(type=spelling).type is PaymentType.PAYIN


@pytest.mark.parametrize(
    ("spelling", "status"),
    [
        ("authorized", Status.AUTHORISED),
        ("AUTHORISED", Status.AUTHORISED),
        ("canceled", Status.CANCELLED),
        ("Cancelled", Status.CANCELLED),
        ("completed", Status.SUCCEEDED),
        ("SUCCESS", Status.SUCCEEDED),
        ("partially-refunded", Status.PARTIALLY_REFUNDED),
        ("partiallyRefunded", Status.PARTIALLY_REFUNDED),
        ("Refunded", Status.REFUNDED),
        ("dispute_won", Status.DISPUTE_WON),
    ],
)
def test_every_spelling_of_a_status_is_known(spelling: str, status: Status) -> None:
    assert of(status=spelling, parentReference="p", amount=1).status is status


@pytest.mark.parametrize(
    "names",
    [
        ("reference", "type", "status", "asset", "initialAmount"),
        ("Reference", "TYPE", "Status", "asset", "initial_amount"),
        ("reference", "type", "status", "asset", "Initial-Amount"),
        ("reference", "type", "status", "asset", "amount"),
    ],
)
def test_field_names_come_in_any_case(names: tuple[str, ...]) -> None:
    facts = RecordReader(RecordRules()).row_reader(names)(("001", "payin", "succeeded", "USD", "100"))

    assert facts.amount == 100


def test_columns_of_other_names_are_renamed_and_the_usual_name_is_then_ignored() -> None:
    rules = RecordRules(columns={"reference": "TXNID", "initial_amount": "CREDIT_AMT"})
    header = ("TXNID", "reference", "type", "status", "asset", "CREDIT_AMT")

    facts = RecordReader(rules).row_reader(header)(("t-1", "ours", "payin", "success", "INR", "5"))

    assert (facts.reference, facts.amount) == ("t-1", 5)


# (text, minor units of USD when the file counts minor units, when it counts major units; a reason where it is refused)
AMOUNTS = [
    ("100", 100, 10_000),
    ("0", 0, 0),
    ("-0", 0, 0),
    ("-5", "invalid_amount", "invalid_amount"),
    ("1", 1, 100),
    ("999999999999999", 999999999999999, "amount_out_of_range"),
    ("9999999999999999", 9999999999999999, "amount_out_of_range"),
    ("10000000000000000", "amount_out_of_range", "amount_out_of_range"),
    ("9" * 40, "amount_out_of_range", "amount_out_of_range"),
    ("9" * 41, "amount_out_of_range", "invalid_amount"),
    ("12.34", "invalid_amount", 1234),
    ("12.3", "invalid_amount", 1230),
    ("12.30", "invalid_amount", 1230),
    ("12.340", "invalid_amount", 1234),
    ("12.345", "invalid_amount", "too_many_decimals"),
    ("19.99", "invalid_amount", 1999),
    ("0.1", "invalid_amount", 10),
    (".5", "invalid_amount", "invalid_amount"),
    ("5.", "invalid_amount", "invalid_amount"),
    ("01", "invalid_amount", "invalid_amount"),
    ("00", "invalid_amount", "invalid_amount"),
    ("+1", "invalid_amount", "invalid_amount"),
    ("--1", "invalid_amount", "invalid_amount"),
    ("1-", "invalid_amount", "invalid_amount"),
    ("(1)", "invalid_amount", "invalid_amount"),
    ("1e3", "invalid_amount", "invalid_amount"),
    ("1E3", "invalid_amount", "invalid_amount"),
    ("0x10", "invalid_amount", "invalid_amount"),
    ("1_000", "invalid_amount", "invalid_amount"),
    ("1,000", "invalid_amount", "invalid_amount"),
    ("1,234.56", "invalid_amount", "invalid_amount"),
    ("1.234,56", "invalid_amount", "invalid_amount"),
    ("1 000", "invalid_amount", "invalid_amount"),
    (" 1", "invalid_amount", "invalid_amount"),
    ("1 ", "invalid_amount", "invalid_amount"),
    ("1\n", "invalid_amount", "invalid_amount"),
    ("NaN", "invalid_amount", "invalid_amount"),
    ("Infinity", "invalid_amount", "invalid_amount"),
    ("-inf", "invalid_amount", "invalid_amount"),
    ("\N{FULLWIDTH DIGIT ONE}00", "invalid_amount", "invalid_amount"),
    ("١٢٣", "invalid_amount", "invalid_amount"),
    ("²", "invalid_amount", "invalid_amount"),
    ("", "invalid_amount", "invalid_amount"),
    ("USD 1", "invalid_amount", "invalid_amount"),
    ("$1", "invalid_amount", "invalid_amount"),
]


@pytest.mark.parametrize(("text", "minor", "major"), AMOUNTS)
@pytest.mark.parametrize("unit", list(AmountUnit))
def test_an_amount_is_exact_or_refused(text: str, minor: int | str, major: int | str, unit: AmountUnit) -> None:
    expected = minor if unit is AmountUnit.MINOR else major
    rules = RecordRules(amount_unit=unit)

    def read() -> int:
        return row("r", "payin", "succeeded", "USD", text, "", "", "", rules=rules).amount

    assert (reason(read) if isinstance(expected, str) else read()) == expected


@pytest.mark.parametrize(
    ("asset", "text", "minor"),
    [("JPY", "5", 5), ("KWD", "1.234", 1234), ("KWD", "1.2", 1200), ("USD/4", "1.2345", 12345), ("CLF", "0.0001", 1)],
)
def test_decimals_are_those_of_the_asset(asset: str, text: str, minor: int) -> None:
    rules = RecordRules(amount_unit=AmountUnit.MAJOR)

    assert row("r", "payin", "succeeded", asset, text, "", "", "", rules=rules).amount == minor


@pytest.mark.parametrize(("asset", "text"), [("JPY", "5.5"), ("KWD", "1.2345"), ("USD", "1.001")])
def test_more_decimals_than_the_asset_has_are_refused(asset: str, text: str) -> None:
    rules = RecordRules(amount_unit=AmountUnit.MAJOR)

    assert reason(row, "r", "payin", "succeeded", asset, text, "", "", "", rules=rules) == "too_many_decimals"


@pytest.mark.parametrize("amount", [1.0, 100.5, 1e3, True, None, [], {}, "1.0"])
def test_a_json_amount_is_an_integer_or_its_text(amount: object) -> None:
    assert reason(of, initialAmount=amount) == "invalid_amount"


def test_a_json_integer_or_its_text_is_an_amount() -> None:
    assert of(initialAmount=7).amount == of(initialAmount="7").amount == 7
    assert reason(of, initialAmount=10**16) == "amount_out_of_range"
    assert reason(of, initialAmount=10**30) == "amount_out_of_range"


def test_a_snapshot_states_its_initial_amount_and_a_delta_its_own() -> None:
    assert of(initialAmount=100, amount=80).amount == 100
    assert of(status="refunded", parentReference="p", initialAmount=100, amount=80).amount == 80
    assert of(status="adjusted", initialAmount=100, amount=80).amount == 80


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reference": ""}, "missing_reference"),
        ({"reference": None}, "missing_reference"),
        ({"reference": "x" * 256}, "invalid_reference"),
        ({"reference": True}, "invalid_reference"),
        ({"reference": 1.5}, "invalid_reference"),
        ({"reference": NumberText("1.5")}, "invalid_reference"),
        ({"parentReference": NumberText("1.5")}, "invalid_reference"),
        ({"type": NumberText("1.5")}, "unknown_type"),
        ({"status": NumberText("1.5")}, "unknown_status"),
        ({"asset": NumberText("1.5")}, "unknown_asset"),
        ({"scheme": NumberText("1.5")}, "invalid_scheme"),
        ({"createdAt": NumberText("1.5")}, "invalid_instant"),
        ({"type": "refund"}, "unknown_type"),
        ({"type": None}, "unknown_type"),
        ({"type": []}, "unknown_type"),
        ({"status": "paid-ish"}, "unknown_status"),
        ({"status": {}}, "unknown_status"),
        ({"asset": "usd"}, "unknown_asset"),
        ({"asset": "XXX"}, "unknown_asset"),
        ({"asset": "USD/9"}, "unknown_asset"),
        ({"asset": 5}, "unknown_asset"),
        ({"status": "refunded"}, "missing_reference"),
        ({"status": "refunded", "parentReference": "001"}, "missing_reference"),
        ({"status": "captured", "parentReference": "p", "initialAmount": -1}, "invalid_amount"),
        ({"scheme": "s" * 65}, "invalid_scheme"),
        ({"scheme": 0}, "invalid_scheme"),
        ({"raw": "r" * 900_001}, "raw_too_large"),
        ({"createdAt": "yesterday"}, "invalid_instant"),
        ({"createdAt": 1_700_000_000}, "invalid_instant"),
    ],
)
def test_what_does_not_follow_its_grammar_is_refused_by_name(changes: dict[str, object], code: str) -> None:
    assert reason(of, **changes) == code


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02t03:04:05z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 08:34:05+05:30", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_an_instant_is_in_utc_and_the_year_one_is_none(text: str, instant: datetime | None) -> None:
    assert of(createdAt=text).effective_at == instant


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-02T25:00:00Z", "2026-01-02T23:59:60Z",
        "300000-01-01T00:00:00Z", "2026-W01-1", "20260102T030405Z", "01/02/2026", "2026-01-02T03:04:05+99:00",
        "0001-01-01T05:00:00+14:00", "\N{ARABIC-INDIC DIGIT TWO}026-01-02T03:04:05Z",
    ],
)  # fmt: skip
def test_what_is_no_instant_is_refused(text: str) -> None:
    assert reason(of, createdAt=text) == "invalid_instant"


def test_a_time_without_an_offset_needs_the_connectors_zone() -> None:
    assert reason(of, createdAt="2026-07-01 12:00:00") == "missing_timezone"

    facts = row(
        "r", "payin", "failed", "EUR", "1", "", "2026-07-01 12:00:00", "", rules=RecordRules(timezone="Europe/Berlin")
    )

    assert facts.effective_at == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_an_effective_time_counts_more_than_the_time_of_creation() -> None:
    facts = of(createdAt="2026-01-01T00:00:00Z", effectiveAt="2026-01-02T00:00:00Z", date="2026-01-03T00:00:00Z")

    assert facts.effective_at == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("value", [0, False, 0.0, [], {}])
def test_a_time_that_is_no_text_is_refused_and_not_passed_over(value: object) -> None:
    assert reason(of, effectiveAt=value, createdAt="2026-01-01T00:00:00Z") == "invalid_instant"


def test_a_raw_text_that_no_event_can_hold_is_refused_where_its_record_is_at_hand() -> None:
    assert of(raw="x" * 900_000).raw == "x" * 900_000
    assert reason(of, raw="x" * 900_001) == "raw_too_large"
    assert reason(of, raw="\N{GRINNING FACE}" * 300_000) == "raw_too_large"


def test_an_unknown_status_is_kept_where_the_connector_says_so() -> None:
    reader = RecordReader(RecordRules(unknown_status=UnknownStatus.KEEP))

    assert reader.of_object({**GOOD, "status": "on_hold"}, lambda: None).status is Status.UNKNOWN
    assert reason(reader.of_object, {**GOOD, "status": ""}, lambda: None) == "unknown_status"


def test_a_field_that_comes_twice_under_two_names_is_refused() -> None:
    assert reason(RecordReader(RecordRules()).row_reader, ("initialAmount", "initial_amount")) == "duplicate_column"
    assert reason(of, initial_amount=3) == "duplicate_column"


def test_a_header_without_a_needed_field_names_it() -> None:
    with pytest.raises(RecordRejected, match="asset, amount") as caught:
        RecordReader(RecordRules()).row_reader(("reference", "type", "status"))

    assert caught.value.code == "missing_column"


def test_a_raw_object_is_kept_to_the_letter() -> None:
    record = parse_object(json.dumps(GOOD)[:-1] + ',"raw": {"a":1.10, "b":[1e400]} }')
    seen = RecordReader(RecordRules()).of_object(record, lambda: '{"a":1.10, "b":[1e400]}')

    assert seen.raw == '{"a":1.10, "b":[1e400]}'
    assert of(raw="text").raw == "text"
    assert of(raw=None).raw is None
    assert RecordReader(RecordRules(raw=RawPolicy.RECORD)).keeps_record


@pytest.mark.parametrize(("text", "code"), [("a\x00b", "nul_character"), ("a\ud800b", "invalid_encoding")])
def test_what_no_event_may_hold_is_not_clean(text: str, code: str) -> None:
    assert reason(clean, text) == code


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300)
FIELD_VALUES = st.one_of(TEXTS, st.sampled_from(["r-1", "", "payin", "refunded", "USD", "2026-01-02T03:04:05Z"]))


@given(
    st.fixed_dictionaries(
        {
            "reference": FIELD_VALUES,
            "type": st.sampled_from(["payin", "payout", "PAY-OUT", "x"]),
            "status": st.sampled_from([*Status, "canceled", "?"]),
            "asset": st.sampled_from(["USD", "JPY", "EUR/3", "usd", ""]),
            "initialAmount": st.one_of(st.integers(-(10**17), 10**17), TEXTS, st.none()),
            "amount": st.one_of(st.integers(-(10**17), 10**17), st.none()),
            "effectiveAt": st.one_of(st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat), TEXTS, st.none()),
            "scheme": st.one_of(TEXTS, st.none()),
            "parentReference": st.one_of(FIELD_VALUES, st.none()),
            "raw": st.one_of(TEXTS, st.none()),
        }
    )
)
def test_what_is_accepted_is_what_the_model_accepts(record: dict[str, object]) -> None:
    try:
        facts = RecordReader(RecordRules()).of_object(record, lambda: None)
    except RecordRejected:
        return

    payload = facts.payload("acme")

    assert payload == PaymentPayload.model_validate_json(payload.model_dump_json())


@given(
    reference=st.text(max_size=260),
    parent=st.one_of(st.none(), st.text(max_size=260)),
    status=st.sampled_from(Status),
    amount=st.integers(-(10**17), 10**17),
    scheme=st.text(max_size=70),
)
def test_what_the_model_refuses_is_refused_here(
    reference: str, parent: str | None, status: Status, amount: int, scheme: str
) -> None:
    """
    The rows of files never pass through the model, so this validator must be at least as strict.
    """
    said = {
        "reference": reference,
        "parentReference": parent,
        "status": status,
        "initialAmount": amount,
        "scheme": scheme,
    }

    try:
        PaymentPayload(
            provider="acme", reference=reference, parent_reference=parent, type=PaymentType.PAYIN, status=status,
            amount=amount, asset="USD", scheme=scheme, effective_at=None, raw=None,
        )  # fmt: skip
    except ValidationError:
        if parent == "":
            return  # an empty cell is an absent field
        assert reason(of, **said)
        return
    if amount < 0:
        assert reason(of, **said) == "invalid_amount"  # the model takes it, for producers of their own
    else:
        facts = of(**said)
        assert (facts.reference, facts.parent_reference, facts.status, facts.amount) == (
            reference,
            parent,
            status,
            amount,
        )


def test_every_status_has_a_spelling() -> None:
    for status in MEANINGS:
        assert of(status=status.value, parentReference="p", amount=1).status is status


def test_a_header_without_a_column_that_is_looked_for_names_both_within_reason() -> None:
    header = ("Datum", "Betrag", *(f"more {number}" for number in range(100)))
    columns = {"reference": "Nr", "amount": "Betragg", "type": "", "status": "S" * 1_000}

    with pytest.raises(RecordRejected) as caught:
        RecordReader(RecordRules(columns=columns)).row_reader(header)

    told = str(caught.value)
    assert 'no column "Nr" for reference' in told
    assert 'no column "Betragg" for amount' in told
    assert "no column for type, asset" in told
    assert '; it has "Datum", "Betrag", "more 0"' in told
    assert len(told) < 600


def test_words_for_what_a_connector_can_be_told_name_its_option_and_an_asset_needs_capitals() -> None:
    with pytest.raises(RecordRejected, match="give the connector the option `timezone`"):
        RecordReader(RecordRules()).instant("2026-07-01 12:00:00")
    with pytest.raises(RecordRejected, match="'usd' is neither an ISO 4217 code in capitals"):
        RecordReader(RecordRules()).of_object({**GOOD, "asset": "usd"}, lambda: None)
