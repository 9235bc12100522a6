"""
Connectors as known providers want them, filled in but for what only an operator knows: data, one file a template.

A template's `configuration` is the source's own, without its `placeholders`: those are to be given, and have an example
each. Together they are a configuration that can be; a secret among them is a reference.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from schemas.errors import NotFound
from tillstream.control.connector import Configuration

_FOLDER = resources.files("tillstream.control") / "templates"
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """An option that only an operator knows; `example` shows its form."""

    field: str
    description: str
    # any JSON value
    example: Any


@dataclass(frozen=True, slots=True)
class Template:
    """A connector that is to be filled in. `provider` is empty where it is the operator's to choose."""

    name: str
    summary: str
    kind: str
    provider: str
    configuration: Configuration
    placeholders: tuple[Placeholder, ...]

    def filled(self, given: Configuration) -> dict[str, Any]:
        """The template's options with what is given over them, option by option."""
        return {**self.configuration, **given}


@functools.cache
def templates() -> Mapping[str, Template]:
    """All there are, by name."""
    names = sorted(entry.name.removesuffix(_SUFFIX) for entry in _FOLDER.iterdir() if entry.name.endswith(_SUFFIX))
    return {name: _load(name) for name in names}


def find(name: str) -> Template:
    """
    The template of this name.

    Raises:
        NotFound: there is none.
    """
    if name not in templates():
        raise NotFound(f"there is no template {name!r}", hint=f"there are: {', '.join(templates())}")
    return templates()[name]


def _load(name: str) -> Template:
    held = yaml.safe_load((_FOLDER / f"{name}{_SUFFIX}").read_text("utf-8"))
    asked = tuple(Placeholder(**each) for each in held.pop("placeholders"))
    return Template(name=name, placeholders=asked, **held)
