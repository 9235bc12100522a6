"""What the parsers' tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from connectors.files.delimited import DelimitedParser
from connectors.files.objects import JsonLinesParser, JsonParser
from connectors.files.rows import Parsed, Parser
from connectors.files.text import Encoding
from connectors.mapping import RecordMapper
from connectors.record import RecordRules
from connectors.source import Rejection, SourceRecord

Make = Callable[[Mapping[str, Any] | None], Parser]

HEADER = b"reference,type,status,asset,initialAmount,note\n"


def csv(*, rules: RecordRules | None = None, encoding: Encoding = Encoding.UTF_8, delimiter: str | None = None) -> Make:
    return lambda place: DelimitedParser(RecordMapper(rules or RecordRules()), encoding, place, delimiter=delimiter)


def array(rules: RecordRules | None = None) -> Make:
    return lambda place: JsonParser(RecordMapper(rules or RecordRules()), Encoding.UTF_8, place)


def lines(rules: RecordRules | None = None) -> Make:
    return lambda place: JsonLinesParser(RecordMapper(rules or RecordRules()), Encoding.UTF_8, place)


def parsed(make: Make, data: bytes, *, block: int = 1 << 20, place: Mapping[str, Any] | None = None) -> list[Parsed]:
    """Everything, fed in blocks of this size."""
    parser = make(place)
    data = data[place["offset"] :] if place else data
    found: list[Parsed] = []
    for at in range(0, len(data), block):
        found += parser.feed(data[at : at + block], final=False)
    return [*found, *parser.feed(b"", final=True)]


def records(found: Iterable[Parsed]) -> list[SourceRecord]:
    return [record for batch in found for record in batch.records]


def rejections(found: Iterable[Parsed]) -> list[Rejection]:
    return [rejection for batch in found for rejection in batch.rejections]


def references(found: Iterable[Parsed]) -> list[str]:
    return [record.payment.reference for record in records(found)]


def good(reference: str, **fields: object) -> dict[str, object]:
    return {"reference": reference, "type": "payin", "status": "failed", "asset": "EUR", "amount": 1, **fields}


def text(reference: str, **fields: object) -> str:
    return json.dumps(good(reference, **fields))
