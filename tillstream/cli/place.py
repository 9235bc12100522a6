"""Where a record came from, as people read it: a file's line, a page of an API, a row of a table, or the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


# objects of the API, here and below
def place_of(letter: Mapping[str, Any]) -> str:
    """Where a dead letter's record was: a file by its name alone."""
    if letter["path"] and "://" not in letter["path"]:
        return _line_of(PurePath(letter["path"]).name, letter["line"])
    if letter["offset"] is None:  # it never was in a topic
        return _object_of(letter)
    return log_place(letter)


def origin_of(event: Mapping[str, Any]) -> str:
    """Where a payment's event came from: its file's line; or its page, as its source calls it."""
    if event["path"] and "://" not in event["path"]:
        return _line_of(event["path"], event["line"])
    return _object_of(event)


def log_place(row: Mapping[str, Any]) -> str:
    """Its place in the log: topic, partition and offset."""
    return f"{row['topic']}/{row['partition']}@{row['offset']}"


def _line_of(file: str, line: int | None) -> str:
    return f"{file}{f':{line}' if line else ''}"


def _object_of(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["source_object"], row["position"])))


def short(identifier: str | None) -> str:
    """As much of a run's id as names it."""
    return (identifier or "")[:8]
