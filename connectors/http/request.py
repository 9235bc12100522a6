"""
Requests as a configuration spells them: a path, parameters and a body with places for what changes from page to page.

    {from} {to} {date} {merchant_code} {size} {page} {offset} {cursor} {after_id} {after_time}

A parameter whose place has no value yet, such as the cursor of a first page, is left out. Texts of parameters and of
the body may name secrets too, `${env:NAME}`: places and references are filled in at once, so that neither what an API
says nor what a secret holds is taken for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from yarl import URL

from connectors.http.client import Call
from connectors.secret import REFERENCE, Secrets
from connectors.secret_text import holds_reference, one_line

PLACES = frozenset("from to date merchant_code size page offset cursor after_id after_time".split())
_PLACE = re.compile(r"\{([a-z_]+)\}")
_FILLED_IN = re.compile(rf"{REFERENCE.pattern}|\{{(?P<place>[a-z_]+)\}}", re.ASCII)

# what a page's request is made of, by place; None: it has no value there
Values = Mapping[str, str | int | None]


def places_of(template: object) -> frozenset[str]:
    """The places that a path, parameters or a body name, in whatever depth."""
    return frozenset(_places(template))


def call(
    url: URL, *, method: str, path: str, query: Mapping[str, str], body: Any, values: Values, secrets: Secrets
) -> Call:
    """
    The request for one page, below `url`. Parameters that name a secret are not part of its address.

    Raises:
        SourceMisconfigured: pause; a secret cannot be had.
    """
    target = URL(str(url).rstrip("/") + _in_path(path, values)) if path else url
    filling = _Filling(values, secrets)
    params: dict[str, str] = {}
    private: dict[str, str] = {}
    for name, template in query.items():
        if (text := filling.text(template, clean=one_line)) is not None:
            (private if holds_reference(template) else params)[name] = text
    sent = filling.body(body)
    target = target.update_query(params) if params else target
    return Call(target, method, json=sent, params=private, secrets=frozenset(filling.used))


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


class _Filling:
    """Fills in places and secrets, and knows which secrets those were."""

    def __init__(self, values: Values, secrets: Secrets) -> None:
        self._values = values
        self._secrets = secrets
        self.used: set[str] = set()

    def text(self, template: str, *, clean: Callable[[str], str] = str) -> str | None:
        """The text; None where a place of it has no value."""
        if any(self._values.get(name) is None for name in _PLACE.findall(template) if name in PLACES):
            return None

        def fill(match: re.Match[str]) -> str:
            place = match["place"]
            if place is None:
                value = clean(self._secrets.resolve(match[0]))
                self.used.add(value)
                return value
            return _text(self._values[place]) if place in PLACES else match[0]

        return _FILLED_IN.sub(fill, template)

    def body(self, template: Any) -> Any:
        """A text that is one place and nothing else becomes the value itself: a number stays a number."""
        if isinstance(template, Mapping):
            return {name: self.body(item) for name, item in template.items()}
        if isinstance(template, list | tuple):
            return [self.body(item) for item in template]
        if not isinstance(template, str):
            return template
        whole = _PLACE.fullmatch(template)
        if whole and whole[1] in PLACES:
            return self._values.get(whole[1])
        return self.text(template)


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)
