from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.changes import lsn
from connectors.changes.identifier import TableName, literal, quoted
from connectors.postgres_changes import PostgresChangesConfig

GIVEN = {"host": "db", "database": "d", "user": "u", "tables": ["events"]}
HOSTILE = [
    "payments; drop table x--",
    'a""b',
    'a"b',
    "a.b.c",
    "a b",
    "a'b",
    "",
    ".",
    "a.",
    "1a",
    "a\0b",
    "a\n",
    "tàble",
    "x" * 64,
    "public." + "x" * 64,
    "$1",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_none_is_refused_before_any_connection(name: str) -> None:
    with pytest.raises(ValidationError):
        PostgresChangesConfig.model_validate({**GIVEN, "tables": [name]})


@pytest.mark.parametrize("option", ["publication", "slot", "watermark"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("", "1a")])
def test_so_is_one_of_a_publication_a_slot_or_a_column(option: str, name: str) -> None:
    with pytest.raises(ValidationError):
        PostgresChangesConfig.model_validate({**GIVEN, option: name})


def test_a_table_without_a_schema_is_publics_and_names_are_exact() -> None:
    assert str(TableName.parse("Events")) == "public.Events"
    assert TableName.parse("sales.Events").sql == '"sales"."Events"'


@given(st.text())
def test_quoting_leaves_no_way_out(text: str) -> None:
    assert quoted(text)[1:-1].replace('""', "").count('"') == 0
    assert literal(text)[1:-1].replace("''", "").count("'") == 0


@given(st.integers(0, 2**64 - 1))
def test_a_place_in_the_log_reads_as_it_is_spelled(number: int) -> None:
    assert lsn.parse(lsn.spell(number)) == number


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "16/B374D848 ", "16/G", "-1/0", "123456789/0"])
def test_a_place_in_the_log_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        lsn.parse(text)
