"""
Requests as a configuration spells them: a path, parameters and a body with places for what changes from page to page.

    {from} {to} {date} {merchant_code} {size} {page} {offset} {cursor} {after_id} {after_time}

A parameter whose place has no value yet, such as the cursor of a first page, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from yarl import URL

from connectors.http.client import Call

PLACES = frozenset("from to date merchant_code size page offset cursor after_id after_time".split())
_PLACE = re.compile(r"\{([a-z_]+)\}")

# what a page's request is made of, by place; None: it has no value there
Values = Mapping[str, str | int | None]


def places_of(template: object) -> frozenset[str]:
    """The places that a path, parameters or a body name, in whatever depth."""
    return frozenset(_places(template))


def call(url: URL, *, method: str, path: str, query: Mapping[str, str], body: Any, values: Values) -> Call:
    """The request for one page, below `url`."""
    target = URL(str(url).rstrip("/") + _in_path(path, values)) if path else url
    params = {name: text for name, template in query.items() if (text := _in_text(template, values)) is not None}
    return Call(target.update_query(params) if params else target, method, json=_in_body(body, values))


def _places(template: object) -> Iterator[str]:
    if isinstance(template, str):
        yield from (name for name in _PLACE.findall(template) if name in PLACES)
    elif isinstance(template, Mapping):
        for item in template.values():
            yield from _places(item)
    elif isinstance(template, list | tuple):
        for item in template:
            yield from _places(item)


def unknown_places(template: str) -> frozenset[str]:
    """What is written like a place and is none."""
    return frozenset(_PLACE.findall(template)) - PLACES


def _in_path(template: str, values: Values) -> str:
    text = _PLACE.sub(lambda match: quote(_text(values.get(match[1])), safe=""), template)
    return text if text.startswith("/") else f"/{text}"


def _in_text(template: str, values: Values) -> str | None:
    names = [name for name in _PLACE.findall(template) if name in PLACES]
    if any(values.get(name) is None for name in names):
        return None
    return _PLACE.sub(lambda match: _text(values[match[1]]) if match[1] in PLACES else match[0], template)


def _in_body(template: Any, values: Values) -> Any:
    """A text that is one place and nothing else becomes the value itself: a number stays a number."""
    if isinstance(template, Mapping):
        return {name: _in_body(item, values) for name, item in template.items()}
    if isinstance(template, list | tuple):
        return [_in_body(item, values) for item in template]
    if not isinstance(template, str):
        return template
    whole = _PLACE.fullmatch(template)
    if whole and whole[1] in PLACES:
        return values.get(whole[1])
    return _in_text(template, values)


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)
