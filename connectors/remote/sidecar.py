r"""
What a file of checksums says about one file: `sha256sum`'s lines, its `--tag` form, or nothing but the 64 digits.

Source of the forms: GNU coreutils, "md5sum invocation" and "cksum output modes": the digest, two blanks or a blank and
`*`, the name; a line that begins with a backslash has `\n`, `\r` and `\\` escaped in its name.
"""

from __future__ import annotations

import re

MAX_BYTES = 65_536
_BARE = re.compile(rb"([0-9a-fA-F]{64})")
_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64})(?: [ *]|[ \t]+\*?)(.+)", re.DOTALL)
_TAG = re.compile(rb"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPES = {b"\\n": b"\n", b"\\r": b"\r", b"\\\\": b"\\"}
_MARK = b"\xef\xbb\xbf"


def expected_sha256(text: bytes, name: bytes) -> str:
    """
    The SHA-256 that `text` gives the file `name`, in lower case hex.

    Raises:
        ValueError: it gives it none, or two; the words say why.
    """
    lines = [line for line in text.removeprefix(_MARK).replace(b"\r\n", b"\n").split(b"\n") if line.strip()]
    if not lines:
        raise ValueError("it is empty")
    if len(lines) == 1 and (bare := _BARE.fullmatch(lines[0].strip())):
        return bare[1].decode().lower()
    found: set[str] = set()
    readable = False
    for line in lines:
        digest, named = _parsed(line)
        readable = readable or bool(digest)
        if digest and named.rsplit(b"/", 1)[-1] == name:
            found.add(digest)
    if len(found) == 1:
        return found.pop()
    if found:
        raise ValueError("it gives this file two different checksums")
    raise ValueError("it is about another file" if readable else "it holds no SHA-256")


def _parsed(line: bytes) -> tuple[str, bytes]:
    """A line's digest and name; empty where it has none."""
    if match := _TAG.fullmatch(line.strip()):
        escaped, named, digest = match.groups()
    elif match := _LINE.fullmatch(line.lstrip()):
        escaped, digest, named = match.groups()
    else:
        return "", b""
    named = named.rstrip(b" \t\r") if not escaped else re.sub(rb"\\[nr\\]", lambda found: _ESCAPES[found[0]], named)
    return digest.decode().lower(), named
