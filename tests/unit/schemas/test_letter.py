from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.letter import DeadLetter, Stage, letter_id, payload

LIMIT = 40_000


def letter(**fields: object) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": letter_id(Stage.SINK, "till.events", "0", "7"),
            "stage": Stage.SINK,
            "reason": "undecodable",
            "message": "m" * 2_000,
            "failed_at": datetime(2025, 1, 10, tzinfo=UTC),
            "event_id": "e",
            **fields,
        }
    )


@settings(max_examples=50)
@given(
    st.none() | st.binary(max_size=2 * LIMIT),
    st.none() | st.binary(max_size=2 * LIMIT),
    st.lists(st.tuples(st.text(max_size=2_000), st.none() | st.binary(max_size=20_000)), max_size=12),
)
def test_a_letter_always_fits_and_is_whole_or_says_that_it_is_not(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    made = letter(**payload(value, limit_bytes=LIMIT + 600_000, key=key, headers=headers))
    small = letter(**payload(value, limit_bytes=LIMIT, key=key))

    assert len(small.model_dump_json().encode()) <= LIMIT
    if not made.truncated:
        assert (made.value_bytes(), made.key_bytes(), made.header_pairs()) == (value, key, headers)
    if not small.truncated:
        assert (small.value_bytes(), small.key_bytes()) == (value, key)
    assert small.size_bytes == len(value or b"")


def test_an_oversize_letter_keeps_the_head_the_size_and_the_hash() -> None:
    value = bytes(range(256)) * 1_000

    made = letter(**payload(value, limit_bytes=LIMIT, key=b"k"))

    assert made.truncated
    assert made.value_bytes() == value[: len(made.value_bytes() or b"")]
    assert len(made.value_bytes() or b"") > LIMIT // 2
    assert made.size_bytes == len(value)
    assert len(made.sha256) == 64


def test_headers_that_are_too_many_are_dropped_and_that_is_told() -> None:
    """Names count, and so does every header: 400 000 empty ones are a megabyte, too."""
    for headers in ([("", None)] * 400_000, [("n" * 70_000, b"")], [("\udcff" * 20_000, None)]):
        made = letter(**payload(b"value", limit_bytes=LIMIT, key=b"k", headers=headers))

        assert (made.headers, made.truncated, made.value_bytes()) == ([], True, b"value")
        assert len(made.model_dump_json().encode()) <= LIMIT


def test_a_tombstones_letter_has_no_value_and_is_whole() -> None:
    made = letter(**payload(None, limit_bytes=LIMIT, key=b"k"))

    assert (made.value_bytes(), made.key_bytes(), made.truncated) == (None, b"k", False)


@pytest.mark.parametrize(
    "place",
    [
        ("till.events", "0", "8"),
        (
            "till.events",
            "07",
        ),
        ("till.event", "s", "0", "7"),
    ],
)
def test_a_letters_id_is_its_place(place: tuple[str, ...]) -> None:
    assert letter_id(Stage.SINK, "till.events", "0", "7") == letter().id
    assert letter_id(Stage.SINK, *place) != letter().id
    assert letter_id(Stage.SOURCE, "till.events", "0", "7") != letter().id
