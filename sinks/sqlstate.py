"""
What each failure of PostgreSQL, or of its client, means for the pipeline: one table, and nothing else decides.

Source: the SQLSTATE classes of PostgreSQL's appendix A, sorted by what measured failures call for (docs/decisions).
"""

from __future__ import annotations

import asyncio
import ssl

import asyncpg

from schemas.errors import SinkError, SinkMisconfigured, SinkRefused, SinkUnavailable, SinkUnclear, TillError

# The longest prefix that matches decides.
ROUTES: dict[str, type[SinkError]] = {
    # Data: some record of the statement cannot be stored.
    "22": SinkRefused,  # data exception: NUL, out of range, bad datetime
    "23502": SinkRefused,  # not null
    "23505": SinkRefused,  # unique, on a natural key
    "23514": SinkRefused,  # check
    "54000": SinkRefused,  # an index row too large
    "54001": SinkRefused,  # nested too deep
    "54023": SinkRefused,
    # Infrastructure: waiting heals it.
    "08": SinkUnavailable,  # connection
    "25006": SinkUnavailable,  # read-only after a failover
    "25P03": SinkUnavailable,  # idle in a transaction for too long: we were frozen
    "25P04": SinkUnavailable,  # transaction timeout
    "26000": SinkUnavailable,  # a prepared statement is gone (a pooler, a restart): prepared again on a new connection
    "40": SinkUnavailable,  # deadlock, serialization
    "42P05": SinkUnavailable,  # a prepared statement is there already (a pooler): as above
    "53": SinkUnavailable,  # disk full, out of memory, too many connections
    "55P03": SinkUnavailable,  # lock timeout
    "55006": SinkUnavailable,  # the database is being worked on
    "57014": SinkUnavailable,  # statement timeout
    "57P": SinkUnavailable,  # shutdown, crash, cannot connect now
    "58": SinkUnavailable,  # system
    # Configuration, and statements of ours that do not fit the database: dead-letters nothing.
    "0A": SinkMisconfigured,
    "21": SinkMisconfigured,  # the same key twice in one upsert: our bug
    "28": SinkMisconfigured,  # password, role
    "3D": SinkMisconfigured,  # no such database
    "3F": SinkMisconfigured,  # no such schema
    "42": SinkMisconfigured,  # missing table or column, no permission
}
_LONGEST = 5
_SHORTEST = 2

# What asyncpg raises for a value that it cannot encode, before anything is sent.
_UNENCODABLE = (asyncpg.exceptions._base.DataError, UnicodeError, OverflowError, RecursionError)  # noqa: SLF001 - it has no public name
# A DSN that is none, a certificate that proves nothing: waiting mends neither.
_UNUSABLE = (asyncpg.ClientConfigurationError, ssl.SSLCertVerificationError)
_UNREACHABLE = (OSError, EOFError, TimeoutError, asyncio.TimeoutError)


def route(sqlstate: str) -> type[SinkError]:
    """The class of error that `sqlstate` is; one that nobody classified is unclear."""
    for length in range(_LONGEST, _SHORTEST - 1, -1):
        found = ROUTES.get(sqlstate[:length])
        if found is not None:
            return found
    return SinkUnclear


def sink_error(exc: BaseException) -> SinkError | None:
    """
    The sink error that `exc` means, or None where it is a bug of ours, or not about the database at all.

    Messages hold the server's primary message, which names tables and columns but no row content.
    """
    if isinstance(exc, SinkError):
        return exc
    if isinstance(exc, TillError):
        return None
    if isinstance(exc, asyncpg.InvalidCachedStatementError):
        return SinkUnavailable("a cached plan no longer fits its table; it is planned anew", sqlstate="0A000")
    if isinstance(exc, asyncpg.PostgresError):
        sqlstate = exc.sqlstate or ""
        return route(sqlstate)(_text(exc), sqlstate=sqlstate)
    if isinstance(exc, _UNUSABLE):
        return SinkMisconfigured(f"PostgreSQL cannot be reached like that: {_text(exc)}", hint="correct the DSN")
    if isinstance(exc, _UNENCODABLE):
        return SinkRefused(f"a value cannot be sent to PostgreSQL: {type(exc).__name__}")
    if isinstance(exc, (asyncpg.InterfaceError, *_UNREACHABLE)):
        return SinkUnavailable(f"PostgreSQL does not answer: {_text(exc) or type(exc).__name__}")
    if isinstance(exc, asyncpg.InternalClientError):
        # Its state machine is out of step, as after pg_terminate_backend on an idle connection: a new one is in step.
        return SinkUnavailable(f"the PostgreSQL client failed: {_text(exc)}")
    return None


def _text(exc: BaseException) -> str:
    return str(exc).partition("\n")[0].strip()
