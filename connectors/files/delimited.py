"""
CSV and its relatives (RFC 4180): a header, quotes, newlines inside quotes, one delimiter.

The standard library's reader decides where a record ends, and counts its lines; from the lines come exact bytes,
offsets and numbers. A row that is wrong is rejected alone. A quote that is never closed costs its own line, not the
file's rest.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.files.rows import MAX_RECORD, Parsed, Parser
from connectors.files.text import Encoding
from connectors.mapping import ReadRow, RecordMapper, with_raw
from connectors.record import clean
from schemas.errors import RecordRejected

DELIMITERS = (",", ";", "|", "\t", "~")  # what banks and gateways were seen to use
MAX_FIELD = 10 * 1_048_576  # characters
OPEN_QUOTE = 65_536  # characters after which an unclosed quote is taken for a stray one, not for a cut file
_UNCLOSED = "unexpected end of data"  # csv's words; a test pins them
_FIELD_LIMIT = "field larger than field limit"


@dataclass(slots=True)
class _Body:
    """Consecutive whole lines, without their newlines; the last one may lack its own in the file (`ends_open`)."""

    lines: list[str]
    first_line: int
    ends_open: bool
    odd: bool

    def text(self, first: int, end: int) -> str:
        """The lines from `first` to before `end`, as they are in the file."""
        text = "\n".join(self.lines[first:end])
        return text if first == end or (self.ends_open and end == len(self.lines)) else text + "\n"

    def after(self, count: int) -> _Body:
        """The same without its first lines."""
        return _Body(self.lines[count:], self.first_line + count, self.ends_open, self.odd)


class DelimitedParser(Parser):
    """Rows of a file with a header. `delimiter` None: the one of `DELIMITERS` with which the header makes sense."""

    format = "csv"

    def __init__(
        self,
        mapper: RecordMapper,
        encoding: Encoding,
        place: Mapping[str, Any] | None = None,
        *,
        delimiter: str | None = None,
    ) -> None:
        super().__init__(mapper, encoding, place)
        csv.field_size_limit(MAX_FIELD)  # one for the process; the default is 128 KiB
        self._delimiter = delimiter
        self._header: list[str] | None = None
        self._read_row: ReadRow
        if place and place.get("header") is not None:
            self._take_header(list(place["header"]), place["delimiter"])

    def place(self) -> dict[str, Any]:
        """As every parser's, and the header with its delimiter."""
        return {**super().place(), "header": self._header, "delimiter": self._delimiter}

    def _consume(self, text: str, *, final: bool) -> Iterator[Parsed]:
        text = self._pass_line(text, final=final)
        cut = len(text) if final else text.rfind("\n") + 1
        whole, self._carry = text[:cut], text[cut:]
        if whole:
            lines = whole.split("\n")
            if not lines[-1]:
                lines.pop()
            odd = len(whole) > MAX_RECORD or _is_odd(whole)
            body = _Body(lines, self.line, not whole.endswith("\n"), odd)
            incomplete = yield from self._parse(body, final=final)
            self._carry = incomplete + self._carry
        if len(self._carry) > MAX_RECORD:
            yield from self._make_room()

    def _make_room(self) -> Iterator[Parsed]:
        """The carry has grown too large: by one line without end, or by a quote without its second."""
        line, newline, rest = self._carry.partition("\n")
        if not newline:
            self._begin_passing()
            self._carry = self._pass_line(line, final=False)
            return
        self._carry = ""
        self._reject_open_line(line + newline)
        yield from self._consume(rest, final=False)

    def _reject_open_line(self, line: str) -> None:
        """A line in which a quote opens, and nothing that belongs to it closes it."""
        if len(line) > MAX_RECORD:
            self._reject_too_large(line, self.line)
        else:
            self._reject("unterminated_quote", "a quote is never closed", self.codec.bytes_of(line))
        self._advance(line)

    def _parse(self, body: _Body, *, final: bool) -> Generator[Parsed, None, str]:
        """Parse whole lines; returns the text of a record that is not complete yet."""
        if self._header is None:
            used = self._read_header(body.lines, final=final)
            if used is None:
                return body.text(0, len(body.lines))
            self._advance(body.text(0, used))
            body = body.after(used)
        while body.lines:
            open_at, closed = yield from self._rows(body)
            if open_at is None:
                return ""
            body = body.after(open_at)
            text = body.text(0, len(body.lines))
            if not closed and not final:
                return text
            if not closed and len(text) <= OPEN_QUOTE:
                self._reject("truncated", "the file ends inside quotes", self.codec.bytes_of(text))
                self._advance(text)
                return ""
            self._reject_open_line(body.text(0, 1))
            body = body.after(1)
        return ""

    def _rows(self, body: _Body) -> Generator[Parsed, None, tuple[int | None, bool]]:
        """
        Parse rows; returns the index of the line at which the quotes of a record stay open, or None.

        They may be closed in the end, further away than a record is long; then the second value is true.
        """
        assert self._header is not None, "the header comes first"  # noqa: S101
        width, read, plain = len(self._header), self._read_row, not (body.odd or self._mapper.keeps_record)
        reader = csv.reader(body.lines, delimiter=self._delimiter or ",", strict=True)
        done = first = 0
        while True:
            try:
                for row in reader:
                    end = reader.line_num
                    if plain and len(row) == width and end == first + 1:
                        try:
                            self._accept(read(row, f"row {self.row + 1}", body.first_line + first))
                        except RecordRejected as exc:
                            self._reject_lines(exc, body, first, end)
                    elif not self._row(row, body, first, end):
                        self._advance(body.text(done, first))
                        return first, True
                    first = end
                    if self._is_full:
                        self._advance(body.text(done, first))
                        done = first
                        yield self._flush()
                break
            except csv.Error as exc:
                if _UNCLOSED in str(exc):
                    self._advance(body.text(done, first))
                    return first, False
                end = reader.line_num
                if end > first + 1 and len(body.text(first, end)) > MAX_RECORD:
                    self._advance(body.text(done, first))
                    return first, True
                self._reject_lines(_malformed(exc), body, first, end)
                first = end
        self._advance(body.text(done, len(body.lines)))
        return None, False

    def _row(self, row: list[str], body: _Body, first: int, end: int) -> bool:
        """Any row that is not a plain one; False if its quotes span more than a record may have."""
        text = body.text(first, end)
        if len(text) > MAX_RECORD:
            if end > first + 1:
                return False
            self._reject_too_large(text, body.first_line + first)
            return True
        if not text.strip():
            return True
        assert self._header is not None, "the header comes first"  # noqa: S101
        try:
            clean(text)
            if end > first + 1:  # the reader was given lines without their ends; here those belong to a field
                row = next(csv.reader(_with_ends(text), delimiter=self._delimiter or ",", strict=True))
            if len(row) != len(self._header):
                cut = body.ends_open and end == len(body.lines) and len(row) < len(self._header)
                raise RecordRejected(
                    "truncated" if cut else "ragged_row",
                    f"the row has {len(row)} fields, the header {len(self._header)}",
                )
            record = self._read_row(row, f"row {self.row + 1}", body.first_line + first)
            if record is not None and self._mapper.keeps_record:
                record = with_raw(record, text.rstrip("\r\n"))
            self._accept(record)
        except RecordRejected as exc:
            self._reject_lines(exc, body, first, end)
        return True

    def _reject_lines(self, exc: RecordRejected, body: _Body, first: int, end: int) -> None:
        if len(text := body.text(first, end)) > MAX_RECORD:
            self._reject_too_large(text, body.first_line + first)
            return
        raw = self.codec.bytes_of(body.text(first, end))
        self._reject(exc.code, str(exc), raw, body.first_line + first)

    def _read_header(self, lines: list[str], *, final: bool) -> int | None:
        """Find the header; how many lines it took, or None if more are needed."""
        begin = next((index for index, line in enumerate(lines) if line.strip()), None)
        if begin is None:
            return len(lines)
        problem: RecordRejected | None = None
        for delimiter in (self._delimiter,) if self._delimiter else DELIMITERS:
            reader = csv.reader(lines[begin:], delimiter=delimiter, strict=True)
            try:
                self._take_header(next(reader), delimiter)
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
        for name in header:
            clean(name)
        self._read_row = self._mapper.row_reader(header)
        self._header, self._delimiter = header, delimiter
        self.note = self._mapper.unmet(header)


def _is_odd(text: str) -> bool:
    """Whether some character needs a look at each row: NUL, or a byte that did not decode."""
    if "\x00" in text:
        return True
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _with_ends(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def _malformed(exc: csv.Error) -> RecordRejected:
    words = str(exc)
    if _FIELD_LIMIT in words:
        return RecordRejected("field_too_large", f"a field has more than {MAX_FIELD} characters")
    return RecordRejected("malformed_row", words)
