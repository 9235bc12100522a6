"""The reasons for which records are rejected, as our own code spells them. A plugin's are its own, and not here."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from schemas import errors
from schemas.errors import Disposition, SinkError

ROOT = Path(__file__).parents[1]
_PACKAGES = ("schemas", "connectors", "streams", "sinks")
# Calls that reject a record, and the place of the reason among their arguments.
_CALLS = {"RecordRejected": 0, "PydanticCustomError": 0, "Rejection": 1, "rejected": 0, "_reject": 0}


@cache
def reasons() -> Mapping[str, tuple[str, ...]]:
    """Each reason, and the packages that decide it, sorted. Reads our sources: a second of work, once."""
    found: dict[str, set[str]] = {}
    for package in _PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                for code in codes(node):
                    found.setdefault(code, set()).add(package)
    for each in vars(errors).values():  # what the sink refuses has its error's code
        if inspect.isclass(each) and issubclass(each, SinkError) and each.disposition is Disposition.REJECT:
            found.setdefault(each.code, set()).add("sinks")
    return {code: tuple(sorted(found[code])) for code in sorted(found)}


def codes(node: ast.AST) -> Iterator[str]:
    """The reasons for a rejection that a call spells out."""
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    place = _CALLS.get(name)
    if place is None or len(node.args) <= place:
        return
    code = node.args[place]
    for each in (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
            yield each.value
