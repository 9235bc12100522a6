"""
Facts that every log line of a task shares: the provider, the component, the task's id.

They follow the coroutine, so that a source logs them without knowing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_bound: ContextVar[Mapping[str, object]] = ContextVar("facts", default=MappingProxyType({}))


@contextmanager
def bound(**facts: object) -> Iterator[None]:
    """Add facts to every line that `extra` serves inside, also in tasks started there; `a_b` shows as `a-b`."""
    token = _bound.set({**_bound.get(), **_spelled(facts)})
    try:
        yield
    finally:
        _bound.reset(token)


def extra(**facts: object) -> dict[str, dict[str, object]]:
    """The `extra` argument of a log call: the bound facts and these."""
    return {"facts": {**_bound.get(), **_spelled(facts)}}


def _spelled(facts: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in facts.items()}
