"""
CSV as RFC 4180 has it: a header, CRLF, quotes where they are needed; nested values are JSON, nothing is empty.

A spreadsheet takes text that begins with `=`, `+`, `-` or `@` for a formula, and would run what a stranger wrote into
a reference. Such text has an apostrophe in front, as has text that begins with one itself: who takes one apostrophe
away has the text again. Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from tillstream.escape import escaped

# those of other widths, which some spreadsheets fold into the plain ones; those that make a cell end
_ACTIVE = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n", "'")


def lines(rows: Iterable[Sequence[object]], *, to_terminal: bool = False) -> str:
    """The rows as CSV; for a terminal, without what one would obey."""
    told = io.StringIO(newline="")
    writer = csv.writer(told, lineterminator="\r\n")
    writer.writerows([_cell(value, to_terminal=to_terminal) for value in row] for row in rows)
    return told.getvalue()


def harmless(text: str) -> str:
    """`text` as no spreadsheet takes it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_ACTIVE) else text


def _cell(value: object, *, to_terminal: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = harmless(value)
    elif isinstance(value, Mapping | Sequence | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return "".join(char if char.isprintable() else escaped(char) for char in text) if to_terminal else text
