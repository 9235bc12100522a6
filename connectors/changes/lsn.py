"""Places in PostgreSQL's log of changes (LSN): numbers inside, `16/B374D848` where somebody reads them."""

from __future__ import annotations

import re

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


def parse(text: str) -> int:
    """
    The number.

    Raises:
        ValueError: it is none.
    """
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no place in a log of changes; one reads like 16/B374D848")
    return int(found[1], 16) << 32 | int(found[2], 16)


def spell(lsn: int) -> str:
    """As PostgreSQL spells it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
