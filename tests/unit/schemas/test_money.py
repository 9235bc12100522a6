from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RecordRejected
from schemas.money import EXPONENTS, MAX_MINOR, exponent, format_major, parse_major, parse_minor

ACCEPTED = [
    ("0", "USD", 0),
    ("0.00", "USD", 0),
    ("19.99", "USD", 1_999),
    ("100", "USD", 10_000),
    ("100.5", "USD", 10_050),
    ("100.500", "USD", 10_050),
    ("-12.30", "INR", -1_230),
    ("-0", "INR", 0),
    ("1234", "JPY", 1_234),
    ("1234.000", "JPY", 1_234),
    ("1.234", "KWD", 1_234),
    ("1.2345", "CLF", 12_345),
    ("7.5", "XYZ/1", 75),
    ("90071992547409.93", "USD", 9_007_199_254_740_993),  # a float would say …992
    ("99999999999999.99", "USD", MAX_MINOR),
]

REFUSED = [
    ("", "USD", "invalid_amount"),
    (" 1", "USD", "invalid_amount"),
    ("1 ", "USD", "invalid_amount"),
    ("+1", "USD", "invalid_amount"),
    ("1e3", "USD", "invalid_amount"),
    ("1E3", "USD", "invalid_amount"),
    ("1_000", "USD", "invalid_amount"),
    ("1,234.56", "USD", "invalid_amount"),
    ("1,00,000.00", "INR", "invalid_amount"),
    ("\uff11\uff12", "USD", "invalid_amount"),
    ("\u0663", "USD", "invalid_amount"),
    ("NaN", "USD", "invalid_amount"),
    ("Infinity", "USD", "invalid_amount"),
    ("-Infinity", "USD", "invalid_amount"),
    ("0x10", "USD", "invalid_amount"),
    ("01", "USD", "invalid_amount"),
    ("1.", "USD", "invalid_amount"),
    (".5", "USD", "invalid_amount"),
    ("--1", "USD", "invalid_amount"),
    ("(1.00)", "USD", "invalid_amount"),
    ("1.00\n", "USD", "invalid_amount"),
    ("1" * 41, "USD", "invalid_amount"),
    ("1.001", "USD", "too_many_decimals"),
    ("1.5", "JPY", "too_many_decimals"),
    ("1.2345", "KWD", "too_many_decimals"),
    ("100000000000000.00", "USD", "amount_out_of_range"),
    ("1" * 39, "JPY", "amount_out_of_range"),
    ("1", "usd", "unknown_asset"),
    ("1", "ZZZ", "unknown_asset"),
    ("1", "USD/", "unknown_asset"),
    ("1", "USD/7", "unknown_asset"),
    ("1", "USD/²", "unknown_asset"),
    ("1", "", "unknown_asset"),
]


@pytest.mark.parametrize(("text", "asset", "minor"), ACCEPTED)
def test_a_plain_decimal_becomes_exact_minor_units(text: str, asset: str, minor: int) -> None:
    assert parse_major(text, asset) == minor


@pytest.mark.parametrize(("text", "asset", "reason"), REFUSED)
def test_anything_else_is_refused_with_its_reason(text: str, asset: str, reason: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        parse_major(text, asset)

    assert caught.value.code == reason


@pytest.mark.parametrize(
    "text", ["", "1.0", "1.5", "+1", "01", "1_0", "1e2", "NaN", "\u0967", " 1", "1" * 18, "9" * 400]
)
def test_minor_units_are_whole_numbers_in_plain_digits(text: str) -> None:
    with pytest.raises(RecordRejected):
        parse_minor(text)


@given(st.integers(-MAX_MINOR, MAX_MINOR), st.sampled_from(["USD", "JPY", "KWD", "CLF", "USD/6"]))
def test_what_is_formatted_parses_back_to_the_same_minor_units(minor: int, asset: str) -> None:
    assert parse_major(format_major(minor, asset), asset) == minor
    assert parse_minor(str(minor)) == minor


def test_exponents_are_iso_4217s() -> None:
    assert [exponent(asset) for asset in ("USD", "INR", "JPY", "KWD", "CLF", "EUR/4")] == [2, 2, 0, 3, 4, 4]
    assert set(EXPONENTS.values()) == {0, 3, 4}
