"""Instants as one types them: ISO 8601 with an offset, or a day, which begins at midnight UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

import typer

HELP = "ISO 8601 with offset, or a date (UTC)"


_FRACTION = re.compile(r"\.\d+(?=Z$)")


def seconds(instant: str | None) -> str | None:
    """An instant of the API without what is less than a second."""
    return None if instant is None else _FRACTION.sub("", instant)


def instant_of(text: str | None, option: str) -> datetime | None:
    """
    The instant; None where nothing was typed.

    Raises:
        typer.BadParameter: it is none, or names no offset.
    """
    if not text:
        return None
    try:
        if len(text) == len("2025-01-10"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 instant, such as 2025-01-10T12:00:00Z", param_hint=option
        ) from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} names no offset; add Z for UTC", param_hint=option)
    return at
