"""What `till connector apply` has changed, as lines that a person compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tillstream.cli.output import cell

if TYPE_CHECKING:
    from tillstream.control.apply import Applied
    from tillstream.control.difference import Difference


def lines_of(done: Applied, *, dry_run: bool) -> list[str]:
    """What became of one connector, then `+ - ~` for each key that is other than before."""
    return [f"connector {done.name} {_word(done, dry_run=dry_run)}", *map(_line, done.differences)]


def _word(done: Applied, *, dry_run: bool) -> str:
    match done.change.value:
        case "created":
            return "would be created" if dry_run else "created"
        case "changed":
            return f"would be changed, to version {done.version}" if dry_run else f"changed, version {done.version}"
        case _:
            return "is as described"


def _line(found: Difference) -> str:
    before, after = _parts(found)
    if found.before is None:
        return f"  + {found.key}: {after}"
    if found.after is None:
        return f"  - {found.key}: {before}"
    return f"  ~ {found.key}: {before} -> {after}"


def _parts(found: Difference) -> Iterator[str]:
    for value in (found.before, found.after):
        yield cell(json.dumps(value, ensure_ascii=False))
