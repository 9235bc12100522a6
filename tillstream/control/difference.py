"""What is other than before, key by key; and RFC 7396, which says what shall be other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from connectors.secret_text import masked


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is other than before; None: it was not there, or is not there any more."""

    key: str
    before: object | None
    after: object | None


# a configuration is any JSON object
Hide = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""The same object as people may see it: `***` in place of secrets."""


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str = "", *, hide: Hide
) -> Iterator[Difference]:
    """What differs between two JSON objects; keys are paths, with dots, and values are what `hide` leaves of them."""
    old, new = dict(flat(before, path)), dict(flat(after, path))
    told_old, told_new = dict(flat(hide(before), path)), dict(flat(hide(after), path))
    for key in [*old, *(key for key in new if key not in old)]:
        if json.dumps(old.get(key), sort_keys=True) != json.dumps(new.get(key), sort_keys=True) or (key in old) != (
            key in new
        ):
            yield Difference(key, told_old.get(key), told_new.get(key))


def hiding(model: type[BaseModel] | None) -> Hide:
    """Hides the secrets that the `configuration` in a document spells. Without a model its names alone tell them."""

    def hide(document: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**document, "configuration": masked(document["configuration"], model)}

    return hide


def flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf with its path; an empty object is a leaf."""
    for key, each in value.items():
        place = f"{path}.{key}" if path else key
        if isinstance(each, dict) and each:
            yield from flat(each, place)
        else:
            yield place, each


# any JSON
def merged(target: Any, patch: Any) -> Any:
    """`target` as the merge patch wants it: null takes a key away, objects merge, all else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found
