"""What we sent in confidence, taken out of what we tell: some servers repeat a request's headers in their errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST = 3  # what is shorter is no secret, and its mask would make any text unreadable


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret masked, as it is, in base64, as part of an address and as a JSON text."""
    spellings = {spelling for secret in secrets if len(secret) >= _SHORTEST for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, MASK)
    return text


def excerpt(data: bytes, secrets: Iterable[str], *, limit: int = 200) -> str:
    """The beginning of an answer for a message: one line, printable, without secrets."""
    # a secret that the cut would fall into is whole within the larger head
    head = redacted(data[: 16 * limit].decode("utf-8", "replace"), secrets)
    return " ".join("".join(char if char.isprintable() else " " for char in head).split())[:limit]


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield json.dumps(secret)[1:-1]
