"""
The register of secrets, which takes them out of any text, in whatever spelling they come back.

A server that repeats our request in its error, a library that quotes a URL, a traceback that shows an argument: none of
them knows that it tells a secret, so what is told is compared with what is secret. There is one register a process.
"""

from __future__ import annotations

import base64
import html
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from urllib.parse import quote, quote_plus

from tillstream.escape import escaped

MASK = "***"
SHORTEST = 4  # characters: removing shorter ones would mangle every line and hide nothing
_SHORTEST_LINE = 16  # of a secret of many lines, such as a key; what is shorter is no secret of its own
_SHORTEST_PART = 5  # of what base64 makes of a secret inside something longer
_MOST_PASSING = 64  # tokens and the like, of which the oldest are worth nothing any more


class Redactor:
    """Removes registered secrets from text, in every spelling a line may hold them in."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lasting: dict[str, set[str]] = {}
        self._passing: OrderedDict[str, set[str]] = OrderedDict()
        self._longest_first: list[str] = []
        self.register(secrets)

    def register(self, secrets: Iterable[str]) -> None:
        """Remove these too from now on. Texts shorter than four characters are not removed."""
        fresh = [secret for secret in secrets if secret not in self._lasting and len(secret.strip()) >= SHORTEST]
        for secret in fresh:
            self._lasting[secret] = spellings_of(secret)
        if fresh:
            self._sort()

    def learn(self, secret: str) -> None:
        """Remove this one too for a while: the last few dozen that were learned are."""
        if len(secret.strip()) < SHORTEST or secret in self._lasting:
            return
        if secret in self._passing:
            self._passing.move_to_end(secret)
            return
        self._passing[secret] = spellings_of(secret)
        if len(self._passing) > _MOST_PASSING:
            self._passing.popitem(last=False)
        self._sort()

    def redact(self, text: str) -> str:
        """`text` without secrets."""
        for spelling in self._longest_first:
            if spelling in text:
                text = text.replace(spelling, MASK)
        return text

    def _sort(self) -> None:
        spellings: set[str] = set().union(*self._lasting.values(), *self._passing.values())
        self._longest_first = sorted(spellings, key=len, reverse=True)


@cache
def process_redactor() -> Redactor:
    """The one register of this process."""
    return Redactor()


def spellings_of(secret: str) -> set[str]:
    """
    As it is, in a URL, in HTML, in base64, alone and as a part of something longer (`user:password`); each of these
    inside JSON or a `repr`, to the second level; and the lines of one that has many.
    """
    lines = [line for line in secret.splitlines() if len(line) >= _SHORTEST_LINE and not line.startswith("-----")]
    found: set[str] = set()
    for text in {secret, secret.strip(), *(lines if len(lines) > 1 else ())}:
        if len(text) < SHORTEST:
            continue
        spellings = set(_plain(text))
        found |= spellings
        for _ in range(2):
            spellings = {inside(spelling) for spelling in spellings for inside in _INSIDE}
            found |= spellings
    return found


def _plain(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield html.escape(secret)
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield quoted
        yield _lower_hex(quoted)
    yield repr(raw)[2:-1]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        yield whole
        yield quote(whole, safe="")
        yield from _parts(encode, raw)


def _parts(encode: Callable[[bytes], bytes], raw: bytes) -> Iterator[str]:
    """What base64 makes of `raw` inside something longer, whatever is around it and wherever a group begins."""
    for offset, begin in enumerate((0, 2, 3)):
        encoded = encode(b"\0" * offset + raw).decode()
        end = len(encoded) - (0, 3, 2)[(offset + len(raw)) % 3]
        if end - begin >= _SHORTEST_PART:
            yield encoded[begin:end]


def _lower_hex(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "%".join((head, *(part[:2].lower() + part[2:] for part in rest)))


_INSIDE: tuple[Callable[[str], str], ...] = (
    escaped,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
)
