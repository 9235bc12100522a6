"""Exit statuses of `till`, and which error has which. docs/cli.md lists them."""

from __future__ import annotations

from enum import IntEnum

from schemas.errors import BrokerError, ConfigError, Conflict, Disposition, NotFound, StackBusy, TillError, TimedOut


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
    ExitStatus.UNREACHABLE: "Kafka or PostgreSQL does not answer; trying again may help.",
    ExitStatus.TIMED_OUT: "It was not done within its deadline.",
    ExitStatus.PARTIAL: "Some of it was done, and some refused.",
    ExitStatus.CONFIG: "Settings or a connector's configuration are wrong.",
    ExitStatus.INTERRUPTED: "Interrupted by Ctrl-C.",
}


def status_of(error: TillError) -> ExitStatus:
    """The status for an error that ended a command."""
    if isinstance(error, NotFound):
        return ExitStatus.NOT_FOUND
    if isinstance(error, Conflict | StackBusy):
        return ExitStatus.CONFLICT
    if isinstance(error, TimedOut):
        return ExitStatus.TIMED_OUT
    if isinstance(error, ConfigError):
        return ExitStatus.CONFIG
    if error.disposition is Disposition.RETRY or isinstance(error, BrokerError):
        return ExitStatus.UNREACHABLE
    return ExitStatus.FAILED
