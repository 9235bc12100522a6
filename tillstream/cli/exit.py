"""Exit statuses of `till`, and which error has which. docs/cli.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from schemas.errors import (
    BrokerError,
    ConfigError,
    Conflict,
    Disposition,
    NotFound,
    PreconditionFailed,
    StackBusy,
    TillError,
    TimedOut,
)
from tillstream.cli.problem import ApiProblem


class ExitStatus(IntEnum):
    """What a script can tell from the status alone."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 5
    UNREACHABLE = 6
    TIMED_OUT = 7
    PARTIAL = 8
    CONFIG = 9
    INTERRUPTED = 130


MEANINGS: dict[ExitStatus, str] = {
    ExitStatus.OK: "It was done, or what was checked holds.",
    ExitStatus.FAILED: "It failed, or what was checked does not hold.",
    ExitStatus.USAGE: "The command line is wrong.",
    ExitStatus.NOT_FOUND: "What was named is not there.",
    ExitStatus.CONFLICT: "The present state does not allow it.",
    ExitStatus.UNREACHABLE: "The API, Kafka or PostgreSQL does not answer; trying again may help.",
    ExitStatus.TIMED_OUT: "It was not done within its deadline.",
    ExitStatus.PARTIAL: "Some of it was done, and some refused.",
    ExitStatus.CONFIG: "Settings or a connector's configuration are wrong.",
    ExitStatus.INTERRUPTED: "Interrupted by Ctrl-C.",
}


# of problems whose code is no error's of ours: what the API itself refuses
_BY_HTTP: dict[int, ExitStatus] = {
    400: ExitStatus.USAGE,
    404: ExitStatus.NOT_FOUND,
    409: ExitStatus.CONFLICT,
    412: ExitStatus.CONFLICT,
    413: ExitStatus.USAGE,
    422: ExitStatus.USAGE,
    428: ExitStatus.CONFLICT,
    408: ExitStatus.UNREACHABLE,
    429: ExitStatus.UNREACHABLE,
    502: ExitStatus.UNREACHABLE,
    503: ExitStatus.UNREACHABLE,
    504: ExitStatus.TIMED_OUT,
}


def status_of(error: TillError) -> ExitStatus:
    """The status for an error that ended a command; the API's problems have that of the error they tell of."""
    if not isinstance(error, ApiProblem):
        return _status_of(type(error))
    kind = _kinds().get(error.code)
    return _BY_HTTP.get(error.status, ExitStatus.FAILED) if kind is None else _status_of(kind)


def _status_of(kind: type[TillError]) -> ExitStatus:
    if issubclass(kind, NotFound):
        return ExitStatus.NOT_FOUND
    if issubclass(kind, Conflict | PreconditionFailed | StackBusy):
        return ExitStatus.CONFLICT
    if issubclass(kind, TimedOut):
        return ExitStatus.TIMED_OUT
    if issubclass(kind, ConfigError):
        return ExitStatus.CONFIG
    if kind.disposition is Disposition.RETRY or issubclass(kind, BrokerError):
        return ExitStatus.UNREACHABLE
    return ExitStatus.FAILED


def _kinds() -> dict[str, type[TillError]]:
    """Our errors by their code."""

    def below(kind: type[TillError]) -> Iterator[type[TillError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    return {kind.code: kind for kind in below(TillError) if kind is not ApiProblem and kind.code != TillError.code}
