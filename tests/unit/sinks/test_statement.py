from __future__ import annotations

import re
from importlib import resources

import pytest

from schemas.payment import MEANINGS
from sinks.prepared import prepare
from sinks.statement import statements
from tests.model.history import PLACE, record

BLOCKS = {"fold", "stored", "payment_id", "digest_sum", "halves", "recounted", "whole", "instant"}


def test_every_statement_is_filled_in() -> None:
    for name, sql in statements().items():
        if name != "lock_partition":
            assert not re.search(r"\{\w+\}", sql), name


def test_a_schema_is_an_identifier_and_nothing_else() -> None:
    assert "replay_a1.payments" in statements("replay_a1")["apply_records"]
    for name in ("", "Public", "a b", 'a"', "a;b", "1a", "a" * 64, "ä", "a.b"):
        with pytest.raises(ValueError, match="identifier"):
            statements(name)


def test_every_statement_has_a_name_of_its_own() -> None:
    folder = resources.files("sinks")
    text = "\n".join(file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".sql"))
    names = re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)

    assert len(names) == len(set(names))
    assert set(names) >= BLOCKS


def test_a_wave_gives_as_many_arrays_as_the_statement_takes() -> None:
    (wave,) = prepare([record("succeeded")]).waves
    numbers = {int(number) for number in re.findall(r"\$(\d+)", statements()["apply_records"])}

    assert numbers == set(range(1, 3 + len(wave.parameters(PLACE)) + 1))


def test_the_statement_knows_every_status_with_its_meaning() -> None:
    sql = statements()["meanings"]

    for status in MEANINGS:
        assert status.value in sql
    assert sql.count("[meaning]") == 5
