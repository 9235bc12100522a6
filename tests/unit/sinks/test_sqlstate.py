"""What PostgreSQL says, and what the pipeline does then."""

from __future__ import annotations

import ssl

import asyncpg
import pytest

from schemas.errors import (
    ConfigError,
    Disposition,
    SinkMisconfigured,
    SinkRefused,
    SinkUnavailable,
    SinkUnclear,
)
from sinks.sqlstate import route, sink_error


@pytest.mark.parametrize(
    ("disposition", "error", "sqlstates"),
    [
        (Disposition.REJECT, SinkRefused, "22000 22003 22008 22021 22P02 22P05 23502 23514 23505 54000 54001 54023"),
        (
            Disposition.RETRY,
            SinkUnavailable,
            "08000 08006 08P01 40001 40P01 40003 53000 53100 53300 55P03 57P01 58030 25006 57014 25P03 26000 42P05",
        ),
        (Disposition.PAUSE, SinkMisconfigured, "42P01 42703 42501 42601 42883 28000 28P01 3D000 3F000 0A000 21000"),
        (Disposition.REJECT, SinkUnclear, "XX000 P0001 ZZ001 23000 23503 23P01 54011 55000 25P02 F0000 99999"),
    ],
)
def test_every_known_code_has_its_class(disposition: Disposition, error: type[Exception], sqlstates: str) -> None:
    for sqlstate in sqlstates.split():
        assert route(sqlstate) is error, sqlstate
        assert route(sqlstate).disposition is disposition


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (asyncpg.exceptions._base.DataError("invalid input"), SinkRefused),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), SinkRefused),
        (OverflowError("int too big"), SinkRefused),
        (RecursionError(), SinkRefused),
        (asyncpg.InterfaceError("connection is closed"), SinkUnavailable),
        (asyncpg.ConnectionDoesNotExistError("gone"), SinkUnavailable),
        (asyncpg.InternalClientError("out of step"), SinkUnavailable),
        (asyncpg.InvalidCachedStatementError("cached plan must not change result type"), SinkUnavailable),
        (asyncpg.CannotConnectNowError("the database system is starting up"), SinkUnavailable),
        (asyncpg.ClientConfigurationError("invalid DSN"), SinkMisconfigured),
        (ssl.SSLCertVerificationError("certificate has expired"), SinkMisconfigured),
        (ConnectionResetError(), SinkUnavailable),
        (TimeoutError(), SinkUnavailable),
        (OSError("no route to host"), SinkUnavailable),
        (EOFError(), SinkUnavailable),
        (asyncpg.UndefinedTableError('relation "payments" does not exist'), SinkMisconfigured),
        (asyncpg.InvalidPasswordError("password authentication failed"), SinkMisconfigured),
        (asyncpg.CardinalityViolationError("a second time"), SinkMisconfigured),
        (asyncpg.CharacterNotInRepertoireError("invalid byte sequence"), SinkRefused),
    ],
)
def test_what_the_driver_raises_is_told_in_our_terms(exc: Exception, error: type[Exception]) -> None:
    assert type(sink_error(exc)) is error


def test_bugs_and_errors_of_others_are_not_ours_to_tell() -> None:
    assert sink_error(KeyError("a")) is None
    assert sink_error(AssertionError()) is None
    assert sink_error(ConfigError("another part's")) is None


def test_a_told_error_stays_itself() -> None:
    told = SinkRefused("a record")

    assert sink_error(told) is told


def test_messages_carry_the_code_and_only_the_first_line() -> None:
    exc = asyncpg.NotNullViolationError('null value in column "amount"\nDETAIL:  Failing row contains (secret).')

    told = sink_error(exc)

    assert told is not None
    assert (str(told), told.sqlstate) == ('null value in column "amount"', "23502")
