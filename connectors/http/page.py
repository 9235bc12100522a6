"""
One page of an API: where its records stand in the text, and what the answer says beside them.

The text is walked once, element by element, so that a large page costs its own size and little more; and a record that
is no JSON is one rejection as long as its brackets tell where it ends, instead of a page that can never be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from connectors.json_path import JsonPath
from schemas.errors import SourceMisconfigured, SourceUnavailable

WHOLE = "$"
_SPACE = re.compile(r"[ \t\r\n]*")
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_DECODER = json.JSONDecoder()
_BOM = "\ufeff"
_JSON_TYPES = re.compile(r"(?:application|text)/(?:[a-z0-9.+-]+\+)?json", re.IGNORECASE | re.ASCII)


class _Unreadable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Page:
    """The texts of its records, in order, and the answer without them."""

    text: str
    spans: Sequence[tuple[int, int]]
    envelope: object

    def __len__(self) -> int:
        return len(self.spans)

    def records(self) -> Iterator[str]:
        """The text of each record, as the API spelled it."""
        for begin, end in self.spans:
            yield self.text[begin:end]

    def value(self, path: str) -> object:
        """What the answer has under `path`, outside the records; None where there is nothing."""
        return JsonPath.parse(path).of(self.envelope) if path else None


def is_json(content_type: str) -> bool:
    """Whether an answer says of itself that it is JSON."""
    return _JSON_TYPES.fullmatch(content_type) is not None


def parse(body: bytes, records: str, *, most: int) -> Page:
    """
    The page. `records` is the path to the array; `$` where the whole answer is one. A body without a byte is an empty
    page, and so is a null where the array should be.

    Raises:
        SourceUnavailable: no JSON, or cut.
        SourceMisconfigured: there is no array under the path, or one of more than `most` records.
    """
    text = body.decode("utf-8", "surrogateescape").removeprefix(_BOM)
    if not text.strip():
        return Page("", (), None)
    walk = _Walk(text, () if records == WHOLE else JsonPath.parse(records).steps, most)
    try:
        envelope = walk.whole()
    except (_Unreadable, RecursionError) as exc:
        raise SourceUnavailable(
            f"the answer is no JSON: {exc}" if isinstance(exc, _Unreadable) else "the answer is nested too deeply",
            hint="it may be cut, or a page for people; if it stays so, ask the provider",
        ) from None
    if walk.spans is None:
        raise SourceMisconfigured(
            f"the answer has no array of records at {records}",
            hint="compare `records` with the API's documentation; `$` means that the answer is the array",
        )
    return Page(text, walk.spans, envelope)


class _Walk:
    """Decodes an answer, but keeps of its records only where they stand."""

    def __init__(self, text: str, steps: Sequence[str | int], most: int) -> None:
        self._text = text
        self._steps = steps
        self._most = most
        self.spans: Sequence[tuple[int, int]] | None = None

    def whole(self) -> object:
        value, end = self._value(self._after_space(0), self._steps)
        if self._after_space(end) != len(self._text):
            raise _Unreadable(f"there is more after its end, at character {end}")
        return value

    def _value(self, at: int, steps: Sequence[str | int]) -> tuple[object, int]:
        """The value at `at`, and where it ends; its records are left out if the path leads through it."""
        if not steps:
            return self._records(at)
        if self._text.startswith("{", at) and isinstance(steps[0], str):
            return self._object(at, steps)
        return self._decoded(at)

    def _object(self, at: int, steps: Sequence[str | int]) -> tuple[Mapping[str, object], int]:
        found: dict[str, object] = {}
        at = self._after_space(at + 1)
        while not self._text.startswith("}", at):
            if not self._text.startswith('"', at):
                raise _Unreadable(f"a name was expected at character {at}")
            name, at = self._decoded(at)
            at = self._expect(":", at)
            value, at = self._value(at, steps[1:]) if name == steps[0] else self._decoded(at)
            if name in found:
                raise _Unreadable(f"the name {str(name)[:48]!r} comes twice")
            found[cast("str", name)] = value
            at = self._after_comma(at, "}")
        return found, at + 1

    def _records(self, at: int) -> tuple[object, int]:
        if not self._text.startswith("[", at):
            value, end = self._decoded(at)
            if value is None:
                self.spans = ()
            return value, end
        spans: list[tuple[int, int]] = []
        at = self._after_space(at + 1)
        while not self._text.startswith("]", at):
            end = self._end_of_record(at)
            spans.append((at, end))
            if len(spans) > self._most:
                raise SourceMisconfigured(
                    f"the answer has more than {self._most} records", hint="ask for smaller pages, or raise max_records"
                )
            at = self._after_comma(end, "]")
        self.spans = spans
        return None, at + 1

    def _end_of_record(self, at: int) -> int:
        try:
            return _DECODER.raw_decode(self._text, at)[1]
        except (ValueError, RecursionError):
            return self._closing_bracket(at)

    def _closing_bracket(self, at: int) -> int:
        """Where a record that is no JSON ends, by its brackets."""
        if self._text[at : at + 1] not in ("{", "["):
            raise _Unreadable(f"nothing that can be read at character {at}")
        depth = 0
        for match in _BRACKET.finditer(self._text, at):
            found = match.group()
            depth += (found in "{[") - (found in "}]")
            if depth == 0:
                return match.end()
        raise _Unreadable("it ends inside a record")

    def _decoded(self, at: int) -> tuple[object, int]:
        try:
            return _DECODER.raw_decode(self._text, at)
        except ValueError as exc:
            raise _Unreadable(f"{getattr(exc, 'msg', 'a number is too long')} at character {at}") from None

    def _expect(self, char: str, at: int) -> int:
        at = self._after_space(at)
        if not self._text.startswith(char, at):
            raise _Unreadable(f"{char!r} was expected at character {at}")
        return self._after_space(at + 1)

    def _after_comma(self, at: int, closing: str) -> int:
        at = self._after_space(at)
        if self._text.startswith(closing, at):
            return at
        at = self._expect(",", at)
        if self._text.startswith(closing, at):
            raise _Unreadable(f"a comma before {closing!r} at character {at}")
        return at

    def _after_space(self, at: int) -> int:
        return cast("re.Match[str]", _SPACE.match(self._text, at)).end()
