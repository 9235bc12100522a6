from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.json_path import MAX_STEPS, JsonPath, is_path

RECORD = {"payload": {"payment": {"entity": {"id": "pay_1", "tags": ["a", {"b": 2}]}}}, "odd name": 3, "0": "zero"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.payload.payment.entity.id", "pay_1"),
        ("$.payload.payment.entity.tags[0]", "a"),
        ("$.payload.payment.entity.tags[1].b", 2),
        ('$["odd name"]', 3),
        ('$["payload"].payment["entity"].id', "pay_1"),
        ('$["0"]', "zero"),
        ("$.payload.payment", {"entity": {"id": "pay_1", "tags": ["a", {"b": 2}]}}),
    ],
)
def test_a_path_leads_to_its_value(path: str, value: object) -> None:
    assert JsonPath.parse(path).of(RECORD) == value


@pytest.mark.parametrize(
    "path",
    [
        "$.nothing",
        "$.payload.nothing.id",
        "$.payload[0]",
        "$.payload.payment.entity.tags[2]",
        "$.payload.payment.entity.id[0]",
    ],
)
def test_a_path_into_nothing_gives_nothing(path: str) -> None:
    assert JsonPath.parse(path).of(RECORD) is None


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "$",
            "payload.id",
            "$payload",
            "$.",
            "$..id",
            "$.a.",
            "$.a[",
            "$.a[]",
            "$.a[-1]",
            "$.a[*]",
            "$.*",
            "$.a[?(1)]",
        ),
        *(
            "$.a b",
            "$['a']",
            '$["a]',
            '$[""]',
            "$.a[0x1]",
            "$.1a",
            "$.a[9999999]",
            "$.é",
            "$.a\n",
            "$" + ".a" * (MAX_STEPS + 1),
        ),
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        JsonPath.parse(path)


def test_a_refusal_says_where() -> None:
    with pytest.raises(ValueError, match="from character 4 on"):
        JsonPath.parse("$.a*")


@given(st.lists(st.sampled_from([*'$.[]"ab01 -_\\é', "[0]", ".a", '["x y"]']), max_size=8).map("".join))
def test_any_text_is_a_path_or_refused_as_none(text: str) -> None:
    try:
        steps = JsonPath.parse(text).steps
    except ValueError:
        return
    assert is_path(text)
    assert steps
