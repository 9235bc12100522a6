"""
Facts that every log line of a task shares: the provider, the component, the task's id.

They follow the coroutine, so that a source logs them without knowing them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_FAILED = -1
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


class Listings:
    """
    Tells of one folder's listings in seed 000's words: as information where something changed, else for debugging.

    A folder is listed every few seconds, and two lines for each time would bury everything else.
    """

    def __init__(self, logger: logging.Logger, folder: str) -> None:
        self._logger = logger
        self._folder = folder
        self._found: int | None = None  # by the last listing, or `_FAILED`

    def found(self, files: int) -> None:
        """A listing that found so many files."""
        self._tell(files)
        self._logger.log(self._level(files), "Found %d files", files, extra=extra())
        self._found = files

    def failed(self) -> None:
        """A listing that was tried in vain; the error is somebody else's to tell."""
        self._tell(_FAILED)
        self._found = _FAILED

    def _tell(self, found: int) -> None:
        self._logger.log(self._level(found), "Opening directory '%s'...", self._folder, extra=extra())

    def _level(self, found: int) -> int:
        return logging.DEBUG if found == self._found else logging.INFO
