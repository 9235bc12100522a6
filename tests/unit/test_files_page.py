"""The example that people copy is an example that was read."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

from connectors.record import RecordReader, RecordRules
from schemas.payment import MEANINGS, Kind

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_csv_example_is_read_whole() -> None:
    header, *rows = csv.reader(io.StringIO(block("csv")))
    read = RecordReader(RecordRules()).row_reader(header)

    facts = [read(row) for row in rows]

    assert [(each.original_reference, each.status.value, each.amount) for each in facts] == [
        ("P-1", "succeeded", 2500),
        ("P-1", "refunded", 500),
        ("P-2", "pending", 5000),
    ]


def test_the_json_example_says_the_same() -> None:
    reader = RecordReader(RecordRules())

    facts = [reader.of_object(json.loads(line), lambda: None) for line in block("json").splitlines()]

    assert [(each.original_reference, each.status.value, each.amount) for each in facts] == [
        ("P-1", "succeeded", 2500),
        ("P-1", "refunded", 500),
    ]


def test_every_status_stands_on_the_page() -> None:
    assert [status for status in MEANINGS if f"`{status.value}`" not in PAGE] == []
    assert {meaning.kind for meaning in MEANINGS.values()} == set(Kind)
