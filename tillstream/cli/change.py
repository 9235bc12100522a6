"""What a change has changed, as lines that a person compares; and the merge patch from one object to another."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tillstream.cli.output import cell

_PREFIX = "configuration."
_OTHERS = {"pattern", "rest_s"}  # say which files, not how

# what the API tells of one described connector, and of one key
Applied = Mapping[str, Any]
Difference = Mapping[str, Any]


def lines_of(done: Applied, *, dry_run: bool) -> list[str]:
    """What became of one connector, then `+ - ~` for each key that is other than before."""
    head = f"connector {cell(done.get('name'))} {_word(done, dry_run=dry_run)}"
    return [head, *(f"  {line_of(each)}" for each in done.get("differences", ()))]


def line_of(found: Difference) -> str:
    """`+ - ~`, the key, what it was and what it is."""
    key, before, after = cell(found.get("key")), _told(found.get("before")), _told(found.get("after"))
    if found.get("before") is None:
        return f"+ {key}: {after}"
    if found.get("after") is None:
        return f"- {key}: {before}"
    return f"~ {key}: {before} -> {after}"


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
    if done.get("change") != "changed":
        return set()
    keys = (str(found.get("key")) for found in done.get("differences", ()))
    return {re.split(r"[.\[]", key.removeprefix(_PREFIX))[0] for key in keys if key.startswith(_PREFIX)}


# JSON objects
def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """
    The merge patch (RFC 7396) from one object to the other: what is the same in both is not in it.

    So what is masked in both, a secret that an old configuration spells, stays what it is.
    """
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before or not isinstance(value, dict) or not isinstance(before[key], dict):
            if key not in before or _differ(before[key], value):
                patch[key] = value
        elif inner := patch_between(before[key], value):
            patch[key] = inner
    return patch


def _differ(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)  # 1 is not true


def _word(done: Applied, *, dry_run: bool) -> str:
    match done.get("change"):
        case "created":
            return "would be created" if dry_run else "created"
        case "changed":
            version = done.get("version")
            return f"would be changed, to version {version}" if dry_run else f"changed, version {version}"
        case _:
            return "is as described"


def _told(value: object) -> str:
    return cell(json.dumps(value, ensure_ascii=False))
