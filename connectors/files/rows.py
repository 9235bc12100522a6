"""
What every file format shares: text with exact byte offsets, places to resume from, records too large to hold.

A parser is pure: it is fed blocks of bytes and gives batches, each with the place after its last record. A new parser
that is given that place, and the bytes from its offset on, goes on exactly there.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from connectors.files.text import Codec, Encoding, detect
from connectors.mapping import RecordMapper
from connectors.source import Rejection, SourceRecord

BATCH_ROWS = 2_000  # enough to fill the producer's batches, few enough to keep the event loop free
MAX_RECORD = 16 * 1_048_576  # characters; a field may have 10 MB, its record a little more
KEPT_HEAD = 2 * 1_048_576  # characters that a letter keeps of what is larger than that
_BATCH_RAW_BYTES = 4 * 1_048_576  # rejections keep their bytes, so they fill a batch by size too
_MARK_BYTES = 4  # the longest byte order mark


class Parsed(NamedTuple):
    """Some records in file order, and the place after the last of them: a JSON object."""

    records: list[SourceRecord]
    rejections: list[Rejection]
    place: dict[str, Any]  # the format's own, see `Parser.place`
    filtered: int = 0
    note: str = ""


class TooLarge:
    """A record that is passed over because it cannot be held: its head, its size, its hash."""

    def __init__(self, reason: str, *, offset: int, line: int) -> None:
        self.begins_at = (offset, line)
        self._reason = reason
        self._head = b""
        self._size_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Pass over some more of it."""
        self._head += data[: max(0, KEPT_HEAD - len(self._head))]
        self._size_bytes += len(data)
        self._digest.update(data)

    def rejection(self, position: str) -> Rejection:
        """The letter-to-be, once its end is found."""
        message = f"a record of {self._size_bytes} bytes; at most about {MAX_RECORD} can be read"
        return Rejection(
            position, self._reason, message, self._head, self.begins_at[1], self._size_bytes, self._digest.hexdigest()
        )


class Parser(ABC):
    """Blocks of bytes → batches of records. `row` counts records, `line` is the number of the next line, from 1."""

    format: str

    def __init__(self, mapper: RecordMapper, encoding: Encoding, place: Mapping[str, Any] | None = None) -> None:
        self._mapper = mapper
        self._encoding = encoding
        self._codec: Codec | None = None
        self._head = b""
        self._carry = ""
        self._fresh: list[str] = []
        self._passing: TooLarge | None = None
        self._records: list[SourceRecord] = []
        self._rejections: list[Rejection] = []
        self._raw_bytes = 0
        self._filtered = 0
        self.note = ""  # what an operator should know of the file though its records can be used
        self.offset: int = place["offset"] if place else 0
        self.row: int = place["row"] if place else 0
        self.line: int = place["line"] if place else 1
        if place:
            self._use(Codec(place["encoding"]))

    def place(self) -> dict[str, Any]:
        """Where it stands, between two records: before one that is being passed over."""
        codec = self._codec.name if self._codec else self._encoding.value
        offset, line = self._passing.begins_at if self._passing else (self.offset, self.line)
        return {"format": self.format, "offset": offset, "row": self.row, "line": line, "encoding": codec}

    def feed(self, block: bytes, *, final: bool, at_once: bool = False) -> Iterator[Parsed]:
        """
        The batches that the next block completes; with `final` also what is left. A record of many blocks may wait for
        more of them, unless it is wanted `at_once`.

        Raises:
            RecordRejected: the file as a whole cannot be read.
        """
        if self._codec is None:
            block = self._head + block
            if len(block) < _MARK_BYTES and not final:
                self._head = block
                return
            codec, mark = detect(block, self._encoding)
            self._use(codec)
            self.offset += mark
            block = block[mark:]
        text, dangling = self._decode(block, final=final)
        self._fresh.append(text)
        if not (final or at_once) and sum(map(len, self._fresh)) < len(self._carry):
            return  # a record of many blocks is tried again only when it has doubled
        text = "".join([self._carry, *self._fresh])
        self._fresh.clear()
        yield from self._consume(text, final=final)
        if dangling:
            self._reject("truncated", "the file ends in the middle of a character", dangling)
        if self._records or self._rejections or self._filtered:
            yield self._flush()

    @abstractmethod
    def _consume(self, text: str, *, final: bool) -> Iterator[Parsed]:
        """Parse `text`, which begins at `offset`; what is incomplete goes to `_carry`."""

    def _use(self, codec: Codec) -> None:
        self._codec = codec
        self._decoder = codec.decoder()

    @property
    def codec(self) -> Codec:
        """The file's encoding, once it is known."""
        assert self._codec is not None, "nothing was fed yet"  # noqa: S101
        return self._codec

    def _decode(self, block: bytes, *, final: bool) -> tuple[str, bytes]:
        try:
            return self._decoder.decode(block, final), b""
        except UnicodeDecodeError:  # only UTF-16 with half a character at its end: everything else is escaped
            pending, _ = self._decoder.getstate()
            whole = bytes(pending) + block
            return whole[:-1].decode(self.codec.name, "surrogatepass"), whole[-1:]

    def _accept(self, record: SourceRecord | None) -> None:
        """A record, or nothing where a rule leaves it out; its position is `row` and its number, from 1."""
        self.row += 1
        if record is None:
            self._filtered += 1
        else:
            self._records.append(record)

    def _reject(self, reason: str, message: str, raw: bytes, line: int | None = None) -> None:
        self.row += 1
        self._rejections.append(Rejection(f"row {self.row}", reason, message, raw, line or self.line))
        self._raw_bytes += len(raw)

    def _advance(self, text: str) -> None:
        """`text` has been dealt with."""
        self.offset += self.codec.size_of(text)
        self.line += text.count("\n")

    def _reject_too_large(self, text: str, line: int) -> None:
        """A record that happened to be held, but is one of those that are not: its fate must not depend on blocks."""
        record = TooLarge("record_too_large", offset=0, line=line)
        record.add(self.codec.bytes_of(text))
        self._reject_passed(record)

    def _begin_passing(self, reason: str = "record_too_large") -> None:
        """Here begins a record too large to hold."""
        self._passing = TooLarge(reason, offset=self.offset, line=self.line)

    def _pass_line(self, text: str, *, final: bool) -> str:
        """Where a line is too large, go on passing over it; the text after it."""
        if self._passing is None:
            return text
        end = text.find("\n") + 1
        gone = text[:end] if end else text
        self._pass(gone, through=final or end > 0)
        return text[len(gone) :]

    def _pass(self, text: str, *, through: bool) -> None:
        """Pass over some more of a record; `through` is its end."""
        assert self._passing is not None, "nothing is passed over"  # noqa: S101
        self._passing.add(self.codec.bytes_of(text))
        self._advance(text)
        if through:
            self._reject_passed(self._passing)
            self._passing = None

    def _reject_passed(self, record: TooLarge) -> None:
        self.row += 1
        rejection = record.rejection(f"row {self.row}")
        self._rejections.append(rejection)
        self._raw_bytes += len(rejection.raw)

    @property
    def _is_full(self) -> bool:
        return (
            len(self._records) + len(self._rejections) + self._filtered >= BATCH_ROWS
            or self._raw_bytes > _BATCH_RAW_BYTES
        )

    def _flush(self) -> Parsed:
        parsed = Parsed(self._records, self._rejections, self.place(), self._filtered, self.note)
        self._records, self._rejections, self._raw_bytes, self._filtered = [], [], 0, 0
        return parsed
