"""
What a shell may offer where a name or an id is typed: as the API knows them, or nothing where none answers at once.

A shell that completes tells of no error and does not wait: nothing is logged, printed or raised here.
"""
# ruff: noqa: PLC0415  imports wait until something is completed: `till --help` stays fast

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import typer

PATIENCE_S = 1.0  # a person waits at the prompt
_SHORT = 8  # characters of a run's id, which name it as well
_LETTER = 12
Offers = list[tuple[str, str]]
"""Words, each with a hint for shells that show one."""


def connectors(ctx: typer.Context, incomplete: str) -> Offers:
    """Names of connectors."""
    return _offers(ctx, "/connectors", {"q": incomplete or None}, lambda row: (row["name"], row["kind"]))


def runs(ctx: typer.Context) -> Offers:
    """The latest runs' ids."""
    return _offers(ctx, "/runs", {}, lambda row: (row["id"][:_SHORT], f"{row['connector']} {row['status']}"))


def letters(ctx: typer.Context) -> Offers:
    """The latest open dead letters' ids."""
    return _offers(
        ctx, "/dead-letters", {}, lambda row: (row["id"][:_LETTER], f"{row['connector']} {row['reason']}".strip())
    )


def replays(ctx: typer.Context) -> Offers:
    """The latest replays' ids."""
    return _offers(ctx, "/replays", {}, lambda row: (row["id"], row["status"]))


def kinds() -> Offers:
    """Kinds of source, plugins too."""

    def look() -> Offers:
        from connectors.registry import specs

        return [(kind, "") for kind in sorted(specs())]

    return _quietly(look)


def contexts() -> Offers:
    """Names of contexts."""

    def look() -> Offers:
        import os

        from tillstream.cli import contextfile

        return list(contextfile.read(contextfile.path_of(os.environ)).urls.items())

    return _quietly(look)


# rows of JSON
def _offers(
    ctx: typer.Context, path: str, params: Mapping[str, str | None], offer: Callable[[dict[str, Any]], tuple[str, str]]
) -> Offers:
    def look() -> Offers:
        _heed_flags(ctx)
        return [offer(row) for row in _asked(path, {"limit": "200", **params})["data"]]

    return _quietly(look)


def _heed_flags(ctx: typer.Context) -> None:
    """What stands before the command: a shell that completes runs no callback."""
    root = ctx.find_root()
    if root.command.callback is not None:
        root.command.callback(**root.params)


# any JSON
def _asked(path: str, params: Mapping[str, str | None]) -> Any:
    from urllib.request import ProxyHandler, build_opener

    from tillstream.cli.address import finder

    query = urlencode({name: value for name, value in params.items() if value is not None})
    opener = build_opener(ProxyHandler({}))  # an API is asked as commands ask it: directly
    with opener.open(f"{finder()().url}/api/v1{path}?{query}", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def _quietly(look: Callable[[], Offers]) -> Offers:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return look()
    except Exception:  # whatever it is: a person at the prompt is told nothing
        return []
