"""
JSON files: one object, an array of objects, objects one after the other; and JSON lines.

An array is read element by element, so that a file of any size needs the memory of one element, and each element's byte
offset is exact. An object that is wrong is rejected alone, as long as its brackets tell where it ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

from connectors.files.rows import MAX_RECORD, Parsed, Parser
from connectors.files.text import Encoding
from connectors.mapping import RecordMapper
from connectors.record import NumberText, clean
from schemas.errors import RecordRejected

MAX_DEPTH = 64  # brackets in brackets; payments need five
_PLAIN = frozenset({str, int, bool, type(None)})
_KEY = re.compile(r'"\s*:')
_FLAT = re.compile(r'\{(?:[^{}\[\]"]++|"(?:[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\],"]', re.DOTALL)
_BLANK = " \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_AND_COMMAS = re.compile(r"[ \t\r\n,]*")


def parse_object(text: str) -> dict[str, object]:
    """
    The object that `text` spells, strictly: RFC 8259, no duplicate names, no NaN, no lone surrogates, no U+0000.
    A number with a fraction or an exponent is a `NumberText`; no float comes out.

    Raises:
        RecordRejected: `malformed_json`, `duplicate_key`, `too_deep`, `not_an_object`, `invalid_encoding`,
            `nul_character`.
    """
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError):
        return _strict(text)
    # Equal counts prove that no name came twice, and plain values that nothing needs a closer look.
    if (
        type(value) is dict
        and "\\u" not in text
        and len(_KEY.findall(text)) == len(value)
        and _PLAIN.issuperset(map(type, value.values()))
    ):
        return value
    return _strict(text)


def _strict(text: str) -> dict[str, object]:
    clean(text)
    _shallow(text)
    try:
        value = _DECODER.decode(text)
    except RecordRejected:
        raise
    except (ValueError, RecursionError) as exc:
        raise RecordRejected("malformed_json", _words(exc)) from None
    if not isinstance(value, dict):
        raise RecordRejected("not_an_object", f"a record is an object, not {type(value).__name__}")
    if "\\u" in text:
        _clean_deep(value)
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for index, name in enumerate(names) if name in names[:index])
        raise RecordRejected("duplicate_key", f"the name {doubled[:48]!r} comes twice")
    return members


def _no_constant(name: str) -> object:
    raise RecordRejected("malformed_json", f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant, parse_float=NumberText)


def _shallow(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for match in _TOKEN.finditer(text):
        found = match.group()
        depth += (found in ("{", "[")) - (found in ("}", "]"))
        if depth > MAX_DEPTH:
            raise RecordRejected("too_deep", f"more than {MAX_DEPTH} brackets stand in one another")


def _clean_deep(value: object) -> None:
    if isinstance(value, str):
        clean(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            clean(name)
            _clean_deep(item)
    elif isinstance(value, list):
        for item in value:
            _clean_deep(item)


def member_text(text: str, name: str) -> str | None:
    """The exact text of the member `name` of the object that `text` validly spells; None if it has none."""
    decoder = json.JSONDecoder()
    at = _after_space(text, text.index("{") + 1)
    while text[at] == '"':
        found, at = decoder.raw_decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)
        _, end = decoder.raw_decode(text, at)
        if found == name:
            return text[at:end]
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at
    return None


def _after_space(text: str, at: int) -> int:
    return cast("re.Match[str]", _SPACE.match(text, at)).end()


def _words(exc: ValueError | RecursionError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg} at character {exc.pos}"
    return "a number or a nesting is too large"


class _JsonParser(Parser):
    def _object(self, text: str, line: int, *, cut: bool) -> bool:
        """One record's text, without the space around it; whether it is one. `cut`: the file ends right after it."""
        try:
            try:
                record = parse_object(text)
            except RecordRejected as exc:
                if cut and exc.code == "malformed_json":
                    raise RecordRejected("truncated", f"the file ends inside a record: {exc}") from None
                raise
            found = self._mapper.of_object(
                record,
                position=f"row {self.row + 1}",
                line=line,
                text=text,
                raw_text=lambda: self._raw_text(record, text),
            )
            self._accept(found)
        except RecordRejected as exc:
            self._reject(exc.code, str(exc), self.codec.bytes_of(text), line)
            return False
        return True

    def _raw_text(self, record: Mapping[str, object], text: str) -> str | None:
        return member_text(text, self._mapper.raw_key(tuple(record)))


class JsonLinesParser(_JsonParser):
    """One object a line; blank lines are nothing."""

    format = "jsonl"

    def _consume(self, text: str, *, final: bool) -> Iterator[Parsed]:
        text = self._pass_line(text, final=final)
        cut = len(text) if final else text.rfind("\n") + 1
        body, self._carry = text[:cut], text[cut:]
        begun = at = 0
        line = self.line
        while at < len(body):
            newline = body.find("\n", at)
            end = len(body) if newline < 0 else newline
            record = body[at:end].strip(_BLANK)
            if end + 1 - at > MAX_RECORD:
                self._reject_too_large(body[at : end + 1], line)
            elif record:
                self._object(record, line, cut=newline < 0)
            line += 1
            at = end + 1
            if self._is_full:
                self._advance(body[begun:at])
                begun = at
                yield self._flush()
        self._advance(body[begun:])
        if len(self._carry) > MAX_RECORD:
            self._begin_passing()
            self._carry = self._pass_line(self._carry, final=False)


class JsonParser(_JsonParser):
    """An array's elements, or objects one after the other (one is the common case)."""

    format = "json"

    def __init__(self, mapper: RecordMapper, encoding: Encoding, place: Mapping[str, Any] | None = None) -> None:
        super().__init__(mapper, encoding, place)
        self._mode: str = place["mode"] if place else "start"

    def place(self) -> dict[str, Any]:
        """As every parser's, and whether it is inside an array."""
        return {**super().place(), "mode": self._mode}

    def _consume(self, text: str, *, final: bool) -> Iterator[Parsed]:
        if self._passing is not None:
            self._pass_on(text, final=final)
            return
        begun = at = counted = 0
        line = self.line
        while True:
            at = self._to_record(text, at)
            if at == len(text):
                break
            if self._mode == "end":
                self._advance(text[begun:at])
                self._pass_rest(text[at:], final=final, reason="trailing_data")
                return
            end, complete = self._end_of_record(text, at)
            if not complete and not final:
                break
            if end - at > MAX_RECORD:
                self._advance(text[begun:at])
                self._pass_rest(text[at:], final=final)
                return
            line += text.count("\n", counted, at)
            counted = at
            accepted = self._object(text[at:end].rstrip(_BLANK), line, cut=not complete)
            if not complete and not accepted:
                self._mode = "end"  # the letter of what was cut says as much as one about the bracket would
            at = end
            if self._is_full:
                self._advance(text[begun:at])
                begun = at
                yield self._flush()
        self._advance(text[begun:at])
        self._carry = text[at:]
        if final and self._mode == "array":
            self._reject("truncated", "the array is not closed", b"")
            self._mode = "end"
        if len(self._carry) > MAX_RECORD:
            self._pass_rest(self._carry, final=final)

    def _pass_rest(self, text: str, *, final: bool, reason: str = "record_too_large") -> None:
        """Where a record is too large to look for its end, the file's rest is one rejection."""
        self._carry = ""
        self._begin_passing(reason)
        self._pass_on(text, final=final)

    def _pass_on(self, text: str, *, final: bool) -> None:
        self._pass(text, through=final)
        if final:
            self._mode = "end"

    def _to_record(self, text: str, at: int) -> int:
        """Where the next record begins, past what stands between records."""
        if self._mode == "start":
            at = _after_space(text, at)
            if at == len(text):
                return at
            self._mode = "array" if text[at] == "[" else "values"
            at += self._mode == "array"
        if self._mode != "array":
            return _after_space(text, at)
        at = cast("re.Match[str]", _SPACE_AND_COMMAS.match(text, at)).end()
        if at < len(text) and text[at] == "]":
            self._mode = "end"
            return _after_space(text, at + 1)
        return at

    def _end_of_record(self, text: str, at: int) -> tuple[int, bool]:
        """Where the record that begins at `at` ends, and whether that is certain."""
        array = self._mode == "array"
        flat = _FLAT.match(text, at)
        if flat:
            end = flat.end()
            next_at = _after_space(text, end)
            if not array or (next_at < len(text) and text[next_at] in ",]"):
                return end, True
        if not array and text[at] != "{":
            newline = text.find("\n", at)
            return (len(text), False) if newline < 0 else (newline, True)
        return _end_of_element(text, at) if array else _end_of_object(text, at)


def _end_of_element(text: str, at: int) -> tuple[int, bool]:
    """An array's element ends before the comma or the bracket that belong to the array."""
    depth = 0
    for match in _TOKEN.finditer(text, at):
        found = match.group()
        if found == '"':
            break  # a string that does not end here
        if depth == 0 and found in (",", "]"):
            return match.start(), True
        if found in ("{", "["):
            depth += 1
        elif found in ("}", "]") and depth > 0:  # a stray brace is a part of what is wrong with the element
            depth -= 1
    return len(text), False


def _end_of_object(text: str, at: int) -> tuple[int, bool]:
    """An object among others ends with the brace that closes it."""
    depth = 0
    for match in _TOKEN.finditer(text, at):
        found = match.group()
        if found == '"':
            break
        depth += (found in ("{", "[")) - (found in ("}", "]"))
        if depth == 0 and found in ("}", "]"):
            return match.end(), True
    return len(text), False
