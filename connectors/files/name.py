"""File names as valid, printable UTF-8: names are bytes, and may hold anything but a slash and NUL."""

from __future__ import annotations

import os


def printable(name: str) -> str:
    r"""
    The name for logs, lineage and cursors; different names stay different.

    Undecodable bytes, control characters, invisible and direction-changing characters become `\xNN` or `\uNNNN`, and a
    backslash becomes two.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if "\udc80" <= character <= "\udcff":
        return f"\\x{os.fsencode(character)[0]:02x}"
    if character.isprintable():  # false for controls, format characters such as U+202E, separators and surrogates
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
