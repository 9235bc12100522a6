"""
Bytes → text, so that every character can be turned back into exactly the bytes it came from.

Invalid bytes become lone surrogates (UTF-8 and single-byte sets: `surrogateescape`; UTF-16: `surrogatepass`), which the
record's reader refuses; their row alone is rejected, with its own bytes.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import RecordRejected


class Encoding(StrEnum):
    """Encodings that can be configured. A byte order mark wins over them."""

    UTF_8 = "utf-8"
    CP1252 = "cp1252"
    LATIN_1 = "latin-1"


_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoding, reversible."""

    name: str

    @property
    def _errors(self) -> str:
        return "surrogatepass" if self.name.startswith("utf-16") else "surrogateescape"

    def decoder(self) -> codecs.IncrementalDecoder:
        """Decodes block after block."""
        return codecs.getincrementaldecoder(self.name)(self._errors)

    def bytes_of(self, text: str) -> bytes:
        """The original bytes of a piece of decoded text."""
        return text.encode(self.name, self._errors)

    def size_of(self, text: str) -> int:
        """How many bytes that were."""
        return len(text) if text.isascii() and self.name == "utf-8" else len(self.bytes_of(text))


def detect(head: bytes, configured: Encoding) -> tuple[Codec, int]:
    """
    The encoding by its byte order mark, else the configured one; and the mark's length.

    Raises:
        RecordRejected: `unsupported_encoding`, for UTF-32.
    """
    if head.startswith(_UTF32_MARKS):
        raise RecordRejected("unsupported_encoding", "the file is UTF-32", hint="write it as UTF-8")
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Codec(name), len(mark)
    return Codec(configured.value), 0
