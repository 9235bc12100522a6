"""
A page for each kind of source, from its spec: options with their values, what fails and how, what is measured.

Errors, reasons and metrics are read from the source's own modules, so that no list of them has to be kept.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from connectors.mapping import RecordConfig
from connectors.network import NetworkConfig
from connectors.spec import ConnectorConfig, SourceSpec
from connectors.word import Called
from schemas import errors, metric
from schemas.errors import SourceError
from schemas.metric import METRICS, Metric
from tillstream.reason import codes

ROOT = Path(__file__).parents[1]
_PACKAGE = "connectors"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_UNITS = {
    "_per_s": "a second",
    "_ms": "milliseconds",
    "_s": "seconds",
    "_bytes": "bytes",
    "_mib": "MiB",
    "_days": "days",
    "_days_back": "days",
}
_SCALARS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    time: "a time such as 07:30",
    NoneType: "nothing",
}
_SHARED: tuple[tuple[type[BaseModel], str, str], ...] = (
    (RecordConfig, "How records are read", "Options of every source whose records are mapped."),
    (NetworkConfig, "The network", "Options of every source that connects to somewhere."),
    (ConnectorConfig, "Options of every connector", "They act before anything is published."),
)


_RUNNING = "How to run it, and what it tells of itself: [connectors.md](../connectors.md)."
_PASSWORDS = " How to give it a password: [step by step](../connectors.md#a-password)."


def index(specs: Mapping[str, SourceSpec], *, note: str) -> str:
    """The page that lists the kinds."""
    rows = [(f"[`{spec.kind}`](sources/{spec.kind}.md)", spec.summary, spec.resumes_from) for spec in specs.values()]
    return "\n".join(
        [
            "# Sources\n",
            note,
            "A connector is a configured source. `till connector create NAME --kind KIND -O key=value …` makes one.",
            "Each page below shows one as a file; `samples/` has more, with their inputs and what becomes of them.\n",
            table(("kind", "what it reads", "resumes from"), rows),
            "How to run one, and give it a password: [connectors.md](connectors.md).",
            "What files may look like: [files.md](files.md).",
            "How to write another: [writing-a-source.md](writing-a-source.md).\n",
        ]
    )


def page(spec: SourceSpec, *, note: str) -> str:
    """One kind's page."""
    parts = [f"# `{spec.kind}`\n", note, f"{spec.summary}\n", f"**Resumes from:** {spec.resumes_from}.\n"]
    parts += [f"{spec.notes.strip()}\n"] if spec.notes else []
    parts += list(_example(spec))
    parts += [f"{_RUNNING}{_PASSWORDS if _takes_secrets(spec.config) else ''}\n"]
    parts += list(_options(spec))
    failures = table(("code", "what happens", "meaning", "hint"), _errors(spec))
    parts += ["## What fails, and what happens then\n", failures]
    parts += ["## Why a record is rejected\n", f"{', '.join(f'`{code}`' for code in _reasons(spec))}.\n"]
    parts += ["## What is measured\n", table(("metric", "kind", "labels", "meaning"), _metrics(spec))]
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# options


def _example(spec: SourceSpec) -> Iterator[str]:
    if spec.example:
        described = {"name": "example", "kind": spec.kind, "configuration": dict(spec.example)}
        text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=110).strip()
        yield f"```yaml\n# connector.yaml\n{text}\n```\n"
    cases = sorted(path.parent for path in (ROOT / "samples" / spec.kind).glob("*/connector.yaml"))
    if cases:
        links = ", ".join(f"[{case.name}](../../samples/{spec.kind}/{case.name}/connector.yaml)" for case in cases)
        yield f"More of them, with what becomes of their records: {links}.\n"


def _options(spec: SourceSpec) -> Iterator[str]:
    groups: dict[type[BaseModel] | None, list[str]] = {}
    for name in spec.config.model_fields:
        groups.setdefault(_home_of(spec.config, name), []).append(name)
    yield "## Its own options\n"
    yield from _fields(spec.config, groups.get(None, []))
    for model, title, text in _SHARED:
        if model in groups:
            yield f"## {title}\n"
            yield f"{text}\n"
            yield from _fields(spec.config, groups[model])


def words(info: FieldInfo) -> str:
    """What an option takes, in words."""
    return _Described.of(info).words


def plain(text: str) -> str:
    """Markdown for a terminal: a link is its text, with the file beside it where that says more."""
    return _LINK.sub(lambda link: link[1] if link[1] in link[2] else f"{link[1]} ({link[2].removeprefix('../')})", text)


def _takes_secrets(config: type[BaseModel]) -> bool:
    return any("${env:NAME}" in _Described.of(info).words for info in config.model_fields.values())


def _home_of(config: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The shared model that a field comes from; None: it is the source's own, or changed by it."""
    definer = next(each for each in config.__mro__ if name in vars(each).get("__annotations__", {}))
    return next((model for model, _, _ in _SHARED if definer is model), None)


def _fields(config: type[BaseModel], names: Sequence[str]) -> Iterator[str]:
    described = {name: _Described.of(config.model_fields[name]) for name in names}
    yield table(
        ("key", "value", "unit", "default", "what it is"),
        [
            (f"`{name}`", described[name].words, _unit(name), _default(info), info.description or "")
            for name in names
            for info in (config.model_fields[name],)
        ],
    )
    for name in names:
        for model in described[name].models:
            yield f"### Of `{name}`: {model.__name__}\n"
            yield from _fields(model, list(model.model_fields))


@dataclass(slots=True)
class _Described:
    """What a field takes, in words, and the models among it."""

    words: str
    models: list[type[BaseModel]] = field(default_factory=list)

    @classmethod
    def of(cls, info: FieldInfo) -> _Described:
        found = cls("")
        found.words = found._of(info.annotation, tuple(info.metadata))
        return found

    def _of(self, annotation: Any, metadata: tuple[Any, ...] = ()) -> str:  # Any: types are values here
        called = next((each.words for each in metadata if isinstance(each, Called)), "")
        if called:
            return called
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._of(arguments[0], tuple(_metadata(arguments[1:])))
        if origin in (Union, UnionType):
            return " or ".join(self._of(each, metadata) for each in arguments if each is not NoneType) + (
                ", or nothing" if NoneType in arguments else ""
            )
        if origin is Literal:
            return "one of " + ", ".join(f"`{each}`" if each else "nothing" for each in arguments)
        if origin in (tuple, list, frozenset, set):
            return " ".join(["a list:", self._of(arguments[0]), *_bounds(metadata, "entries")])
        if origin is dict:
            return f"names, each with {self._of(arguments[1])}"
        return self._scalar(annotation, metadata)

    def _scalar(self, annotation: Any, metadata: tuple[Any, ...]) -> str:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in self.models:
                self.models.append(annotation)
            return f"{annotation.__name__} (below)"
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return "one of " + ", ".join(f"`{each.value}`" for each in annotation)
        return " ".join([_SCALARS.get(annotation, "text"), *_bounds(metadata, "characters")])


def _metadata(given: Sequence[Any]) -> Iterator[Any]:
    for each in given:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _bounds(metadata: Sequence[Any], counted: str) -> Iterator[str]:
    for each in metadata:
        match each:
            case Ge(ge=least):
                yield f"≥ {_number(least)}"
            case Gt(gt=least):
                yield f"> {_number(least)}"
            case Le(le=most):
                yield f"≤ {_number(most)}"
            case Lt(lt=most):
                yield f"< {_number(most)}"
            case MinLen(min_length=least) if least > 1:
                yield f"of at least {least} {counted}"
            case MinLen():
                yield "(not empty)"
            case MaxLen(max_length=most):
                yield f"of at most {most} {counted}"
            case _:
                pass


def _number(value: Any) -> str:  # Any: whatever can be compared
    return f"{value:,.12g}".replace(",", "\u202f")


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or value in (None, "", (), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{getattr(each, 'value', each)}`" for each in value)
    return f"`{value:.12g}`" if isinstance(value, int | float) else f"`{getattr(value, 'value', value)}`"


# errors and metrics, as the source's modules name them


def _errors(spec: SourceSpec) -> list[tuple[str, str, str, str]]:
    named = _names(spec)
    found = [
        each
        for each in vars(errors).values()
        if inspect.isclass(each) and issubclass(each, SourceError) and each.__name__ in named
    ]
    happens = {"retry": "it is tried again", "pause": "the connector pauses until somebody mends it"}
    return [
        (
            f"`{each.code}`",
            happens.get(each.disposition.value, each.disposition.value),
            (inspect.getdoc(each) or "").partition("\n")[0].partition(" Disposition:")[0],
            each.hint,
        )
        for each in found
        if each.hint and each.disposition.value in happens
    ]


def _reasons(spec: SourceSpec) -> list[str]:
    shared = ["mapping", "record", "adapter"] if issubclass(spec.config, RecordConfig) else []
    trees = [_tree(f"{_PACKAGE}.{each}") for each in shared]
    trees += [_tree("schemas.money"), *(_tree(module) for module in _modules(spec))]
    found = {code for tree in trees for node in ast.walk(tree) for code in codes(node)}
    return sorted(found)


def _metrics(spec: SourceSpec) -> list[tuple[str, str, str, str]]:
    named = _names(spec)
    own = {name for name, value in vars(metric).items() if isinstance(value, Metric) and name in named}
    shared = {"RECORDS_TOTAL", "RUNS_TOTAL", "CONNECTOR_STATE", "CONNECTOR_HEALTHY", "SOURCE_LAG_SECONDS"}
    wanted = {getattr(metric, name).name for name in own | shared}
    return [
        (f"`{each.name}`", each.kind.value, ", ".join(each.labels), each.help)
        for each in METRICS
        if each.name in wanted
    ]


def _names(spec: SourceSpec) -> set[str]:
    """Every name and attribute that the source's own modules use."""
    found: set[str] = set()
    for module in _modules(spec):
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
    return found


def _modules(spec: SourceSpec) -> list[str]:
    """The source's module and what it imports of the packages beside it: what is shared by all lies beside them."""
    todo, found = [spec.factory.__module__, spec.config.__module__], list[str]()
    while todo:
        module = todo.pop()
        if module in found:
            continue
        found.append(module)
        for node in ast.walk(_tree(module)):
            todo += [name for name in _imported(node) if name.count(".") >= 2 and name.startswith(f"{_PACKAGE}.")]
    return sorted(found)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (name for each in node.names if (name := f"{node.module}.{each.name}") and _file(name) is not None)


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    return ast.parse(file.read_text(encoding="utf-8")) if file else ast.parse("")


def _file(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__))
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if path.exists() else None
