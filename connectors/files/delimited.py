"""
CSV and its relatives (RFC 4180): a header, quotes, newlines inside quotes, one delimiter.

The standard library's reader decides where a record ends, and counts its lines; from the lines come exact bytes, offsets
and numbers. A row that is wrong is rejected alone. A quote that is never closed costs its own line, not the file's rest.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from connectors.files.rows import MAX_RECORD, Parsed, Parser, with_raw
from connectors.files.text import Encoding
from connectors.record import PaymentFacts, RecordReader, clean
from schemas.errors import RecordRejected

DELIMITERS = (",", ";", "|", "\t", "~")  # what banks and gateways were seen to use
MAX_FIELD = 10 * 1_048_576  # characters
OPEN_QUOTE = 65_536  # characters after which an unclosed quote is taken for a stray one, not for a cut file
_UNCLOSED = "unexpected end of data"  # csv's words; a test pins them
_FIELD_LIMIT = "field larger than field limit"


class DelimitedParser(Parser):
    """Rows of a delimited file with a header. `delimiter` None: the one of `DELIMITERS` with which the header makes sense."""

    format = "csv"

    def __init__(
        self,
        reader: RecordReader,
        encoding: Encoding,
        place: Mapping[str, Any] | None = None,
        *,
        delimiter: str | None = None,
    ) -> None:
        super().__init__(reader, encoding, place)
        csv.field_size_limit(MAX_FIELD)  # one for the process; the default is 128 KiB
        self._delimiter = delimiter
        self._header: list[str] | None = None
        if place and place.get("header") is not None:
            self._take_header(list(place["header"]), place["delimiter"])

    def place(self) -> dict[str, Any]:
        """As every parser's, and the header with its delimiter."""
        return {**super().place(), "header": self._header, "delimiter": self._delimiter}

    def _consume(self, text: str, final: bool) -> Iterator[Parsed]:
        if self._passing is not None:
            text = self._pass(text, final)
        cut = len(text) if final else text.rfind("\n") + 1
        body, self._carry = text[:cut], text[cut:]
        if body:
            lines = body.split("\n")
            if not lines[-1]:
                lines.pop()
            left = yield from self._lines(lines, final, ends_open=not body.endswith("\n"))
            if left:
                self._carry = "".join([f"{line}\n" for line in left]) + self._carry
        if len(self._carry) > MAX_RECORD:
            yield from self._make_room()

    def _pass(self, text: str, final: bool) -> str:
        """Go on passing over a line that is too large; the text after it."""
        assert self._passing is not None, "nothing is passed over"  # noqa: S101
        end = text.find("\n") + 1
        gone = text[:end] if end else text
        self._passing.add(self.codec.bytes_of(gone))
        self.offset += self.codec.size_of(gone)
        if end or final:
            self._passed_over()
            self.line += 1
        return text[len(gone) :]

    def _make_room(self) -> Iterator[Parsed]:
        """The carry has grown too large: by one line without end, or by a quote without its second."""
        first, newline, rest = self._carry.partition("\n")
        if not newline:
            self._pass_over("record_too_large").add(self.codec.bytes_of(first))
            self.offset += self.codec.size_of(first)
            self._carry = ""
            return
        self._reject("unterminated_quote", "a quote is never closed", self.codec.bytes_of(first + newline))
        self._advance([first], ends_open=False)
        self._carry = ""
        yield from self._consume(rest, final=False)

    def _lines(self, lines: list[str], final: bool, *, ends_open: bool) -> Generator[Parsed, None, list[str]]:
        """Parse whole lines; returns those of a record that is not complete yet."""
        if self._header is None:
            used = self._read_header(lines, final)
            if used is None:
                return lines
            self._advance(lines[:used], ends_open=ends_open and used == len(lines))
            lines = lines[used:]
        while lines:
            unclosed = yield from self._rows(lines, ends_open=ends_open)
            if unclosed is None:
                return []
            lines = lines[unclosed:]
            if not final:
                return lines
            text = "\n".join(lines) + ("" if ends_open else "\n")
            if len(text) <= OPEN_QUOTE or len(lines) == 1:
                self._reject("truncated", "the file ends inside quotes", self.codec.bytes_of(text))
                self._advance(lines, ends_open=ends_open)
                return []
            self._reject("unterminated_quote", "a quote is never closed", self.codec.bytes_of(lines[0] + "\n"))
            self._advance(lines[:1], ends_open=False)
            lines = lines[1:]
        return []

    def _rows(self, lines: list[str], *, ends_open: bool) -> Generator[Parsed, None, int | None]:
        """Parse rows; returns the index of the line at which an unclosed record begins, or None."""
        assert self._header is not None, "the header comes first"  # noqa: S101
        width, read, keeps = len(self._header), self._read_row, self._reader.keeps_record
        odd = _is_odd(lines)
        reader = csv.reader(lines, delimiter=self._delimiter or ",", strict=True)
        first_line, done, first = self.line, 0, 0
        while True:
            try:
                for row in reader:
                    end = reader.line_num
                    if len(row) == width and end == first + 1 and not odd and not keeps:
                        try:
                            self._accept(read(row), first_line + first)
                        except RecordRejected as exc:
                            self._reject_lines(exc, lines, first, end, ends_open, first_line + first)
                    else:
                        self._row(row, lines, first, end, ends_open, first_line + first)
                    first = end
                    if self._is_full:
                        self._advance(lines[done:first], ends_open=ends_open and first == len(lines))
                        done = first
                        yield self._flush()
                break
            except csv.Error as exc:
                end = reader.line_num
                if _UNCLOSED in str(exc):
                    self._advance(lines[done:first], ends_open=False)
                    return first
                self._reject_lines(_malformed(exc), lines, first, end, ends_open, first_line + first)
                first = end
        self._advance(lines[done:], ends_open=ends_open)
        return None

    def _row(self, row: list[str], lines: list[str], first: int, end: int, ends_open: bool, line: int) -> None:
        """Any row that is not a plain one."""
        if not row or (len(row) == 1 and not lines[first].strip()):
            return  # a blank line
        assert self._header is not None, "the header comes first"  # noqa: S101
        text = _text(lines, first, end, ends_open)
        try:
            clean(text)
            if end > first + 1:  # the reader was given lines without their ends; here those belong to a field
                row = next(csv.reader(_kept(text), delimiter=self._delimiter or ",", strict=True))
            if len(row) != len(self._header):
                cut = ends_open and end == len(lines) and len(row) < len(self._header)
                raise RecordRejected(
                    "truncated" if cut else "ragged_row",
                    f"the row has {len(row)} fields, the header {len(self._header)}",
                )
            facts = self._read_row(row)
            self._accept(with_raw(facts, text.rstrip("\r\n")) if self._reader.keeps_record else facts, line)
        except RecordRejected as exc:
            self._reject_lines(exc, lines, first, end, ends_open, line)

    def _reject_lines(
        self, exc: RecordRejected, lines: list[str], first: int, end: int, ends_open: bool, line: int
    ) -> None:
        self._reject(exc.code, str(exc), self.codec.bytes_of(_text(lines, first, end, ends_open)), line)

    def _advance(self, lines: Sequence[str], *, ends_open: bool) -> None:
        if not lines:
            return
        self.offset += self.codec.size_of("\n".join(lines)) + (0 if ends_open else self.codec.size_of("\n"))
        self.line += len(lines)

    def _read_header(self, lines: list[str], final: bool) -> int | None:
        """Find the header; how many lines it took, or None if more are needed."""
        begin = next((index for index, line in enumerate(lines) if line.strip()), None)
        if begin is None:
            return len(lines)
        wanted = (self._delimiter,) if self._delimiter else DELIMITERS
        problem: RecordRejected | None = None
        for delimiter in wanted:
            reader = csv.reader(lines[begin:], delimiter=delimiter, strict=True)
            try:
                header = next(reader)
                self._take_header(header, delimiter)
            except csv.Error as exc:
                if _UNCLOSED in str(exc) and not final:
                    return None
                problem = problem or RecordRejected("malformed_header", f"the header cannot be read: {exc}")
            except RecordRejected as exc:
                if problem is None or exc.code == "duplicate_column":
                    problem = exc
            else:
                return begin + reader.line_num
        raise problem or RecordRejected("malformed_header", "the file has no header")

    def _take_header(self, header: list[str], delimiter: str) -> None:
        doubled = next((name for index, name in enumerate(header) if name.strip() and name in header[:index]), None)
        if doubled is not None:
            raise RecordRejected("duplicate_column", f"the header names {doubled[:48]!r} twice")
        self._read_row: Callable[[Sequence[str]], PaymentFacts] = self._reader.row_reader(header)
        self._header, self._delimiter = header, delimiter


def _is_odd(lines: list[str]) -> bool:
    """Whether some character needs a look at each row: NUL, or a byte that did not decode."""
    text = "\n".join(lines)
    if "\x00" in text:
        return True
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _text(lines: list[str], first: int, end: int, ends_open: bool) -> str:
    text = "\n".join(lines[first:end])
    return text if ends_open and end == len(lines) else text + "\n"


def _kept(text: str) -> list[str]:
    parts = text.split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _malformed(exc: csv.Error) -> RecordRejected:
    words = str(exc)
    if _FIELD_LIMIT in words:
        return RecordRejected("field_too_large", f"a field has more than {MAX_FIELD} characters")
    return RecordRejected("malformed_row", words)
