"""
Bodies of answers, within bounds: so many bytes on the wire, so many once inflated, never more than a piece beyond.

The inflating is done here and not by the client library, because a bound must hold inside a single piece as well.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable

from schemas.errors import SourceMisconfigured, SourceUnavailable

MIB = 1_048_576
ACCEPTED_ENCODINGS = "gzip, deflate"
_MOST_MEMBERS = 16  # gzip members one after the other: some servers send a few, an attack sends thousands
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class _TooLarge(Exception):
    pass


class Inflated:
    """Takes the bytes of the wire piece by piece, and keeps what they stand for."""

    def __init__(self, encoding: str, *, limit_bytes: int) -> None:
        self._encoding = encoding.strip().lower()
        self._limit_bytes = limit_bytes
        self._wire_bytes = 0
        self._body = bytearray()
        self._inflating = None if self._encoding in ("", "identity") else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 1
        self._begun = False
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise SourceUnavailable(
                f"the answer is encoded as {self._encoding[:32]!r}, which was not asked for",
                hint="ask the provider why it ignores Accept-Encoding",
            )

    def feed(self, piece: bytes) -> None:
        """
        Take a piece.

        Raises:
            SourceMisconfigured: more than the limit. SourceUnavailable: not what its encoding says.
        """
        self._wire_bytes += len(piece)
        try:
            if self._wire_bytes > self._limit_bytes:
                raise _TooLarge
            if self._inflating is None:
                self._keep(piece)
            else:
                self._inflate(piece)
        except _TooLarge:
            raise SourceMisconfigured(
                f"the answer has more than {self._limit_bytes // MIB} MiB",
                hint="ask for smaller pages (page_size, window_s), or raise max_response_mib",
            ) from None
        except zlib.error:
            raise SourceUnavailable(f"the answer is not the {self._encoding} that it says it is") from None

    def close(self) -> bytes:
        """
        All of it.

        Raises:
            SourceUnavailable: it ends in the middle.
        """
        if self._inflating is not None and self._begun and not self._inflating.eof:
            raise SourceUnavailable(f"the answer's {self._encoding} ends in the middle")
        return bytes(self._body)

    def _keep(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._limit_bytes:
            raise _TooLarge
        self._body += data

    def _inflate(self, piece: bytes) -> None:
        while piece:
            assert self._inflating is not None, "asked only where there is an encoding"  # noqa: S101
            if self._inflating.eof:
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise zlib.error
                self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB)
            if not self._begun and self._encoding == "deflate" and not _is_zlib(piece):
                self._inflating = zlib.decompressobj(-zlib.MAX_WBITS)  # what some servers call deflate
            self._begun = True
            # one byte more than there is room for tells that there is more
            self._keep(self._inflating.decompress(piece, self._limit_bytes - len(self._body) + 1))
            piece = self._inflating.unused_data


def _is_zlib(piece: bytes) -> bool:
    """Whether this begins like RFC 1950: method 8, and a checksum over the first two bytes where there are two."""
    return piece[0] & 0x0F == 8 and (len(piece) < 2 or int.from_bytes(piece[:2]) % 31 == 0)


async def read(pieces: AsyncIterable[bytes], encoding: str, *, limit_bytes: int) -> bytes:
    """
    The whole body, inflated.

    Raises:
        SourceMisconfigured: more than the limit, on the wire or inflated. SourceUnavailable: cut, or no such encoding.
    """
    inflated = Inflated(encoding, limit_bytes=limit_bytes)
    async for piece in pieces:
        inflated.feed(piece)
    return inflated.close()
