"""What is wrong with a connector's configuration, in words: the value where it is no secret, else its type."""

from __future__ import annotations

import pytest

from connectors.registry import specs
from tillstream.control.connector import judged


def problems(kind: str, **configuration: object) -> list[str]:
    return judged(specs()[kind], configuration, name="bank", provider="bank")[1]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("poll_s", "soon", "got str 'soon'"),
        ("poll_s", 0, "got int 0"),
        ("amount_unit", "dollars", "got str 'dollars'"),
        ("status_map", {"OK": "paid"}, "got str 'paid'"),
        ("amount_unit", "x" * 1_000, f"got str '{'x' * 48}…'"),
    ],
)
def test_a_value_is_told_where_a_word_or_a_number_was_expected(option: str, value: object, told: str) -> None:
    (problem,) = problems("directory", directory="/in", **{option: value})

    assert problem.startswith(option)
    assert problem.endswith(told)


def test_a_value_that_may_be_a_secret_is_not_told() -> None:
    given = {"password": 4711, "host_key": "hunter2", "pattern": ["hunter2"]}

    found = problems("sftp", host="bank.example", username="till", **given)

    assert found
    assert not [problem for problem in found if "hunter2" in problem or "4711" in problem]
