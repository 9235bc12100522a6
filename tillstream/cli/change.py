"""What `till connector apply` has changed, as lines that a person compares."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tillstream.cli.output import cell

if TYPE_CHECKING:
    from tillstream.control.apply import Applied
    from tillstream.control.difference import Difference

_PREFIX = "configuration."
_OTHERS = {"pattern", "rest_s"}  # say which files, not how


def lines_of(done: Applied, *, dry_run: bool) -> list[str]:
    """What became of one connector, then `+ - ~` for each key that is other than before."""
    return [f"connector {done.name} {_word(done, dry_run=dry_run)}", *map(_line, done.differences)]


def advice(name: str, changed: Iterable[str]) -> str:
    """What an operator may want next, where one of the changed keys says how records are read; empty otherwise."""
    from connectors.files.config import FilesConfig
    from connectors.mapping import RecordConfig
    from connectors.spec import ConnectorConfig

    ways = {*RecordConfig.model_fields, *FilesConfig.model_fields} - set(ConnectorConfig.model_fields) - _OTHERS
    if ways.isdisjoint(changed):
        return ""
    return (
        "objects of which no record could be used are read again by themselves; where single records were rejected, "
        f"read again with `till connector run {name} --force`"
    )


def keys_of(done: Applied) -> set[str]:
    """The keys of the configuration that an apply has changed in what was there before."""
    if done.change.value != "changed":
        return set()
    keys = (found.key.removeprefix(_PREFIX) for found in done.differences if found.key.startswith(_PREFIX))
    return {re.split(r"[.\[]", key)[0] for key in keys}


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
