"""
Texts with secrets in them: `Bearer ${env:TOKEN}` as a header, a parameter, a value of a body.

What stands under a name that speaks of a credential is a secret, and has to be named by reference, alone or inside a
text. References are filled in when the text is sent; what a configuration shows has none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from connectors.secret import REFERENCE, Secrets, names_secret
from schemas.errors import SourceMisconfigured

MASK = "***"
_NAMES = re.compile(
    r"authori[sz]|authentic|auth$|cookie|token|key(?!word|board)|secret|pass?w|passphrase|pwd|credential|signature|hmac"
    r"|jwt|bearer|session",
    re.IGNORECASE,
)
_SCHEMES = re.compile(r"bearer\s+\S|(?:basic|digest|token)\s+\S{8,}$", re.IGNORECASE)  # of an Authorization header
_PLACE = re.compile(r"\{[a-z_]+\}")  # what is filled in from page to page, such as a cursor
_SHORTEST = 4  # characters: what is shorter could not be kept secret, and is none


class MayHoldSecrets:
    """Marks a configuration's field of texts by name, in which secrets stand by reference: `Annotated[…, it()]`."""


def is_credential(name: str) -> bool:
    """Whether what stands under this name is a secret, as far as a name tells."""
    return _NAMES.search(name) is not None


def problems_of(given: Mapping[str, Any]) -> Iterator[str]:  # Any: JSON
    """What is wrong with texts by name, in whatever depth: a secret that is spelled, a reference that is none."""
    for path, value, in_confidence in _leaves(given, "", in_confidence=False):
        if isinstance(value, str) and "${" in REFERENCE.sub("", value):
            yield f"{path}: what begins with ${{ is no reference; one reads ${{env:NAME}} or ${{file:NAME}}"
        elif _is_spelled(value, in_confidence=in_confidence):
            yield f"{path} holds a secret; it is given by reference, also inside a text: Bearer ${{env:NAME}}"


def holds_reference(template: object) -> bool:
    """Whether a text, or one in whatever depth below, names a secret."""
    if isinstance(template, Mapping):
        return any(map(holds_reference, template.values()))
    if isinstance(template, list | tuple):
        return any(map(holds_reference, template))
    return isinstance(template, str) and REFERENCE.search(template) is not None


def filled(text: str, secrets: Secrets) -> tuple[str, frozenset[str]]:
    """
    A header's text with its secrets in it, and these.

    Raises:
        SourceMisconfigured: pause; one of them cannot be had, or is no single line.
    """
    used: set[str] = set()

    def fill(match: re.Match[str]) -> str:
        value = one_line(secrets.resolve(match[0]))
        used.add(value)
        return value

    return REFERENCE.sub(fill, text), frozenset(used)


def one_line(value: str) -> str:
    """
    A secret without the newline that its file ends with.

    Raises:
        SourceMisconfigured: pause; a header cannot hold it.
    """
    value = value.strip()
    if not value.isprintable():
        raise SourceMisconfigured("a credential holds characters that no header may hold")
    return value


# a configuration is any JSON object
def masked(given: Mapping[str, Any], model: type[BaseModel] | None = None) -> dict[str, Any]:
    """
    A configuration as it may be shown: `***` in place of secrets that it spells, as old ones may.

    `model` tells which of its options hold none, whatever they are called.
    """
    ways = _ways(model) if model else {}
    return {name: _shown(name, value, ways.get(name)) for name, value in given.items()}


class _Way(Enum):
    """How an option is shown whose field says what it holds."""

    HIDDEN = auto()  # it is a secret
    SEARCHED = auto()  # secrets may be in it
    PLAIN = auto()


def _shown(name: str, value: Any, way: _Way | type[BaseModel] | None) -> Any:
    if way is None:
        return _hidden(value, in_confidence=is_credential(name))
    if way is _Way.PLAIN:
        return value
    if isinstance(way, _Way):
        return _hidden(value, in_confidence=way is _Way.HIDDEN)
    if isinstance(value, list | tuple):
        return [masked(each, way) if isinstance(each, Mapping) else each for each in value]
    return masked(value, way) if isinstance(value, Mapping) else value


@cache  # a list of connectors asks for each option of each of them
def _ways(model: type[BaseModel]) -> Mapping[str, _Way | type[BaseModel]]:
    return {name: _way(field) for name, field in model.model_fields.items()}


def _way(field: FieldInfo) -> _Way | type[BaseModel]:
    if names_secret(field):
        return _Way.HIDDEN
    if any(isinstance(each, MayHoldSecrets) for each in field.metadata):
        return _Way.SEARCHED
    return next(_models(field.annotation), _Way.PLAIN)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def _hidden(value: Any, *, in_confidence: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _hidden(inner, in_confidence=in_confidence or is_credential(str(name)))
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hidden(inner, in_confidence=in_confidence) for inner in value]
    return MASK if _is_spelled(value, in_confidence=in_confidence) else value


def _leaves(value: Any, path: str, *, in_confidence: bool) -> Iterator[tuple[str, Any, bool]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            below = in_confidence or is_credential(str(name))
            yield from _leaves(inner, f"{path}.{name}" if path else str(name), in_confidence=below)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{number}", in_confidence=in_confidence)
    else:
        yield path, value, in_confidence


def _is_spelled(value: Any, *, in_confidence: bool) -> bool:
    """Whether it is a secret itself, or the mask of one, instead of a reference or a text around one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    text = str(value)
    if REFERENCE.search(text):
        return False
    is_long = len(_PLACE.sub("", text)) >= _SHORTEST
    return (in_confidence and (is_long or text == MASK)) or _SCHEMES.match(text.strip()) is not None
