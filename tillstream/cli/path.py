"""Paths of `/api/v1` that hold a name: whatever it is, it leads nowhere else."""

from __future__ import annotations

from urllib.parse import quote

from schemas.errors import NotFound


def part(text: str) -> str:
    """A text as one part of a path."""
    told = quote(text, safe="", errors="replace")
    return told.replace(".", "%2E") if told in {".", ".."} else told


def connector_path(wanted: str, below: str = "") -> str:
    """
    Of a connector by name, id or number.

    Raises:
        NotFound: nothing has no name.
    """
    if not wanted:
        raise NotFound("there is no connector ''", hint="`till connector list` shows all")
    return f"/connectors/{part(wanted)}{below}"


def run_path(wanted: str, below: str = "") -> str:
    """
    Of a run by its id, the beginning of it, or its number.

    Raises:
        NotFound: nothing has no name.
    """
    if not wanted:
        raise NotFound("there is no run ''", hint="`till run list` shows them")
    return f"/runs/{part(wanted)}{below}"
