"""Instants on the command line: as people give them, and as the API tells them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import typer

_DAY_CHARS = len("2025-01-10")


def given(text: str | None, option: str) -> datetime | None:
    """
    ISO 8601 with an offset, or a day, which begins in UTC; None for none.

    Raises:
        typer.BadParameter: it is neither.
    """
    if not text:
        return None
    try:
        if len(text) == _DAY_CHARS:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 instant, such as 2025-01-10T12:00:00Z", param_hint=option
        ) from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} names no offset; add Z for UTC", param_hint=option)
    return at


def told(value: object) -> object:
    """What the API tells as an instant, for a cell of a table; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return value
    return at if at.tzinfo is not None else value
