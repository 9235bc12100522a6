"""
A connector as a file, `connector.yaml`: what `till connector apply` brings about, and `till source check -f` tries.

    name: axis                      how operators call it; names the connector that is created or changed
    kind: sftp                      the source; never changes
    provider: AXIS                  who moves the money; optional, the name; frozen by the first run
    status: ACTIVE                  or PAUSED; optional, as it is, and so is FAILED
    schedule: {cron: "0 3 * * *"}   and timezone, enabled; optional, as it is; a connector with a cron does not poll
    configuration:                  the source's own options: `till source show sftp`
      host: sftp.bank.example

Several connectors may stand in one file, parted by `---`. Only plain YAML is read: no dates, no `yes`, no `22:30` that
turns into a number, no anchors, no key twice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from schemas.errors import ConfigError
from tillstream.control.connector import Configuration, ConnectorStatus, Standing
from tillstream.control.schedule import Schedule, form_problems

MAX_BYTES = 1_048_576  # a connector has a few kilobytes
_KEYS = ("name", "kind", "provider", "status", "schedule", "configuration")
_NEEDED = ("name", "kind", "configuration")
_WIDTH = 120
_QUOTED = re.compile(r"\s*(?:'(?!<)[^']{2,}'|\"(?!<)[^\"]{2,}\")")
_HINT = "see docs/sources.md, or `till source show KIND`"


@dataclass(frozen=True, slots=True)
class Document:
    """One connector as it is described. `place` is where; None: nothing is said of it."""

    place: str
    name: str
    kind: str
    configuration: Configuration
    provider: str | None = None
    status: ConnectorStatus | None = None
    schedule: Schedule | None = None


def documents(text: str, *, place: str) -> list[Document]:
    """
    The connectors that a file describes, in its order.

    Raises:
        ConfigError: everything that is wrong with their form, all at once; their configuration is not looked into.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{place}: has more than {MAX_BYTES} characters")
    try:
        # the loader below is a safe one, made safer
        bodies = [each for body in yaml.load_all(text, Loader=_Plain) if body is not None for each in _listed(body)]
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{place}: has a number that is too long, or is nested too deeply", hint=_HINT) from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{place}: is no YAML that can be used: {_told(exc)}", hint=_HINT) from exc
    if not bodies:
        raise ConfigError(f"{place}: describes no connector", hint=_HINT)
    places = [place if len(bodies) == 1 else f"{place}, document {number + 1}" for number in range(len(bodies))]
    problems = [
        f"{where}: {problem}" for where, body in zip(places, bodies, strict=True) for problem in _problems(body)
    ]
    names = [body.get("name") for body in bodies if isinstance(body, dict)]
    problems += [f"{place}: name: {name!r} is there twice" for name in {*names} if name and names.count(name) > 1]
    if problems:
        raise ConfigError("\n  ".join(["what is described cannot be:", *problems]), hint=_HINT)
    return [_document(where, body) for where, body in zip(places, bodies, strict=True)]


def dumped(described: Sequence[Mapping[str, Any]]) -> str:
    """
    Connectors as a file that `documents` reads as the same again: their keys in its order, none of them anchors.

    It holds no character that a terminal would obey or hide.
    """
    kept = [{key: each[key] for key in _KEYS if each.get(key) is not None} for each in described]
    text = _written(kept, allow_unicode=True)
    return text if all(line.isprintable() for line in text.split("\n")) else _written(kept, allow_unicode=False)


def _written(described: Sequence[Mapping[str, Any]], *, allow_unicode: bool) -> str:
    several = len(described) > 1
    told: str = yaml.dump_all(
        described,
        Dumper=_Writer,
        sort_keys=False,
        allow_unicode=allow_unicode,
        width=_WIDTH,
        explicit_start=several,
    )
    return told


# what a file holds may be anything
def _listed(body: Any) -> list[Any]:
    """A list of connectors, as JSON has them, is as good as documents one after another."""
    return body if isinstance(body, list) and body and all(isinstance(each, dict) for each in body) else [body]


# what a file holds may be anything
def _problems(body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        yield f"must be a mapping with the keys {', '.join(_KEYS)}; got {type(body).__name__}"
        return
    for key in body:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield f"{key}: is no key of a connector; there are {', '.join(_KEYS)}{meant}"
    for key in _NEEDED:
        if key not in body:
            yield f"{key}: is missing"
    for key in ("name", "kind", "provider"):
        if key in body and not isinstance(body[key], str):
            yield f"{key}: must be text; got {type(body[key]).__name__}"
    status = body.get("status", Standing.ACTIVE.value)
    if status not in [each.value for each in Standing]:
        allowed = ", ".join(each.value for each in Standing)
        yield f"status: must be one of {allowed}; got {type(status).__name__}"
    yield from form_problems(body.get("schedule"))
    if not isinstance(body.get("configuration", {}), dict):
        yield f"configuration: must be a mapping; got {type(body['configuration']).__name__}"


def _document(place: str, body: Mapping[str, Any]) -> Document:
    status = Standing(body["status"]).wanted if "status" in body else None
    plan = _schedule(body["schedule"]) if body.get("schedule") is not None else None
    return Document(place, body["name"], body["kind"], body["configuration"], body.get("provider"), status, plan)


def _schedule(body: Mapping[str, Any]) -> Schedule:
    """Who writes a cron line means it, unless they say otherwise."""
    return Schedule(**{"enabled": bool(body.get("cron")), **body})


def _told(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    # what stands between quotes in it stands in the file, and may be a secret; a place tells as much
    problem = _QUOTED.split(getattr(exc, "problem", None) or str(exc))[0]
    return f"line {mark.line + 1}, character {mark.column + 1}: {problem}" if mark else problem


class _Plain(yaml.SafeLoader):
    """
    YAML without its traps: a scalar is null, true, false, a decimal number, or text.

    No anchors (a small file could become a huge one), no key twice (the first would be lost).
    """

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)

    # PyYAML types its nodes' values as anything
    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, and keys that are no text."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = "a key is no text: put it between quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = "a key is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_SCALARS = {
    "tag:yaml.org,2002:null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "tag:yaml.org,2002:float": (r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-+0123456789")),
}
_Plain.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Plain.add_implicit_resolver(_tag, re.compile(f"^{_pattern}$", re.ASCII), _first)


class _Writer(yaml.SafeDumper):
    """Writes what `_Plain` and readers of the whole YAML read as it was: text that either takes for more is quoted."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's own
        """Write everything out."""
        return True

    def represent_str(self, data: str) -> ScalarNode:
        """Between quotes where characters would have to be escaped: outside of them YAML folds some into others."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Writer.add_representer(str, _Writer.represent_str)

_Writer.yaml_implicit_resolvers = {
    first: [*_Plain.yaml_implicit_resolvers.get(first, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])]
    for first in {*_Plain.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}
