"""Text that stays on its line: whatever a terminal would obey or hide is shown instead."""

from __future__ import annotations

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    r"""`text` as it stands between double quotes: `\n`, `\"`, `\u202e` for whatever a terminal would obey or hide."""
    if text.isprintable() and "\\" not in text and '"' not in text:
        return text
    return "".join(_ESCAPES.get(char) or (char if char.isprintable() else _code(char)) for char in text)


def _code(char: str) -> str:
    point = ord(char)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
