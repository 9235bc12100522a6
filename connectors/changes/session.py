"""
One connection to the source database, made through the guard, and what its failures mean for the connector.

The session is read-only, but for what makes a publication. The server ends it when we have been frozen, and so frees
what it holds: the lock by which one connector alone reads a slot.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import asyncpg

from connectors.changes.server import Server, Tls
from connectors.context import SourceContext
from schemas.errors import (
    ChangesLost,
    SourceError,
    SourceMisconfigured,
    SourceUnauthorised,
    SourceUnavailable,
    TillError,
)

OLDEST_VERSION = 130_000  # the first with xid8, pg_current_snapshot and wal_status
IDLE_MS = 20_000  # a worker that says nothing for so long is frozen or gone, and another one may read
_NOTICES_MS = 5_000  # how soon a server at work notices that we are gone
_SINCE_14 = 140_000
_LOCK_MS = 10_000
_GRACE_S = 5.0  # the server's own timeout comes first, and says more
_CLOSE_S = 5.0


class Session:
    """A connection that translates its errors. One statement at a time."""

    # asyncpg ships no types
    def __init__(self, connection: Any, server: Server) -> None:
        self._connection = connection
        self.server = server
        self.version: int = connection.get_server_version().major * 10_000

    @property
    def is_open(self) -> bool:
        """Whether it may still be used."""
        return not self._connection.is_closed()

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Any]:
        """All rows. Raises what `told` raises."""
        with told(self.server):
            rows: Sequence[Any] = await self._connection.fetch(statement, *arguments)
            return rows

    async def row(self, statement: str, *arguments: object) -> Any:
        """The first row, or None."""
        with told(self.server):
            return await self._connection.fetchrow(statement, *arguments)

    async def value(self, statement: str, *arguments: object) -> Any:
        """The first row's first value, or None."""
        with told(self.server):
            return await self._connection.fetchval(statement, *arguments)

    async def change(self, statement: str) -> None:
        """The only way to change anything: a transaction of its own that may write."""
        with told(self.server):
            async with self._connection.transaction():
                await self._connection.execute("SET TRANSACTION READ WRITE")
                await self._connection.execute(statement)

    @contextlib.asynccontextmanager
    async def portal(self, statement: str, *arguments: object, repeatable: bool = False) -> AsyncIterator[Portal]:
        """
        The statement's rows, a few at a time, in a transaction; with `repeatable` all of it sees one state.

        Whoever leaves early, by an error or at a stop, ends the session: a rollback might wait for ever.
        """
        isolation = "repeatable_read" if repeatable else "read_committed"
        try:
            with told(self.server):
                transaction = self._connection.transaction(isolation=isolation, readonly=True)
                await transaction.start()
            yield Portal(self, self._connection, statement, arguments)
            with told(self.server):
                await transaction.commit()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """End it at once, whatever it is at."""
        self._connection.terminate()

    async def close(self) -> None:
        """End it, within a bound. Raises nothing."""
        with contextlib.suppress(Exception):  # it may be broken in any way, and is of no use any more
            await self._connection.close(timeout=_CLOSE_S)


class Portal:
    """Rows of one statement, fetched as they are wanted; other statements may run in between."""

    def __init__(self, session: Session, connection: Any, statement: str, arguments: Sequence[object]) -> None:
        self._session = session
        self._connection = connection
        self._statement = statement
        self._arguments = arguments
        self._cursor: Any = None

    async def fetch(self, rows: int) -> Sequence[Any]:
        """The next rows, fewer only at the end. The first call runs the statement."""
        with told(self._session.server):
            if self._cursor is None:
                self._cursor = await self._connection.cursor(self._statement, *self._arguments)
            found: Sequence[Any] = await self._cursor.fetch(rows)
            return found


async def connect(server: Server, context: SourceContext) -> Session:
    """
    A session at the first of the host's addresses that answers.

    Raises:
        SourceUnavailable: retry. SourceUnauthorised, SourceMisconfigured: pause.
    """
    guard = context.guard(server.allow_networks)
    addresses = await guard.resolve(server.host, server.port, timeout_s=server.connect_s)
    if context.production and not server.tls.is_verified and not all(each.is_loopback for each in addresses):
        raise SourceMisconfigured(
            f"{server.host}: sslmode={server.tls} would send the password to whoever answers, which production refuses",
            hint="use sslmode=verify-full, with `ca` where the authority is your own (or verify-ca where the "
            "certificate does not name the host)",
        )
    encryption = _encryption(server, context)
    password = context.secrets.resolve(server.password)
    problem: SourceError = SourceUnavailable(f"{server.host}: no address")
    for address in addresses:
        try:
            with told(server):
                connection = await asyncpg.connect(
                    host=str(address),
                    port=server.port,
                    user=server.user,
                    password=password,  # never None, or a file of the worker's owner would be asked for one
                    database=server.database,
                    ssl=encryption,
                    direct_tls=False,
                    target_session_attrs="any",
                    timeout=server.connect_s,
                    command_timeout=server.answer_s + _GRACE_S,
                    server_settings=_settings(server, context),
                )
        except SourceUnavailable as exc:
            problem = exc
            continue
        session = Session(connection, server)
        try:
            await _prepare(session)
        except BaseException:
            session.abandon()
            raise
        return session
    raise problem


def _settings(server: Server, context: SourceContext) -> dict[str, str]:
    return {
        "application_name": f"tillstream {context.connector}"[:63],
        "search_path": "pg_catalog",  # nobody's function stands in for one of PostgreSQL's
        "default_transaction_read_only": "on",
        "statement_timeout": str(int(server.answer_s * 1_000)),
        "lock_timeout": str(_LOCK_MS),
        "idle_in_transaction_session_timeout": str(IDLE_MS),
        # How values are spelled must not depend on the database's or the role's settings.
        "timezone": "UTC",
        "datestyle": "ISO, YMD",
        "intervalstyle": "iso_8601",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "jit": "off",
        "row_security": "off",  # rows that a policy hides would be lost without a word: the server refuses instead
    }


async def _prepare(session: Session) -> None:
    if session.version < OLDEST_VERSION:
        raise SourceMisconfigured(
            f"{session.server.shown} is PostgreSQL {session.version // 10_000}; 13 is the oldest that can be read",
            hint="upgrade the database, or export files from it",
        )
    if session.version >= _SINCE_14:
        await session.fetch(
            "SELECT set_config('idle_session_timeout', $1, false), "
            "set_config('client_connection_check_interval', $2, false)",
            str(IDLE_MS),
            str(_NOTICES_MS),
        )


class _Named(ssl.SSLContext):
    """Verifies a name although an address was connected to."""

    host: str = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,  # noqa: ARG002 asyncpg gives the address
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.host, session)


def _encryption(server: Server, context: SourceContext) -> ssl.SSLContext | bool:
    if server.tls is Tls.DISABLE:
        return False
    made = _Named(ssl.PROTOCOL_TLS_CLIENT)
    made.host = server.host
    made.check_hostname = server.tls is Tls.VERIFY_FULL
    if server.tls is Tls.REQUIRE:
        made.verify_mode = ssl.CERT_NONE
    elif server.ca:
        try:
            made.load_verify_locations(cadata=context.secrets.resolve(server.ca))
        except ssl.SSLError as exc:
            raise SourceMisconfigured(
                f"{server.ca} holds no certificate in PEM form", hint="put the authority's certificate there"
            ) from exc
    else:
        made.load_default_certs()
    return made


# The longest prefix of a SQLSTATE that matches decides; what nobody classified is tried again.
_MEANINGS: dict[str, type[SourceError]] = {
    "0A": SourceMisconfigured,
    "22": SourceMisconfigured,  # a cursor or an option that does not fit the table
    "25006": SourceUnavailable,  # read-only after a failover
    "28": SourceUnauthorised,
    "3D": SourceMisconfigured,
    "3F": SourceMisconfigured,
    "42": SourceMisconfigured,  # missing table or column; no permission
    "42704": ChangesLost,  # no such slot, no such publication
    "55000": ChangesLost,  # the slot was invalidated, or cannot be what we need it to be
    "58P01": ChangesLost,  # the log of changes it needs was removed
}
_HINTS = {
    "28": "check user and password, and whether pg_hba.conf lets this address in",
    "42501": "grant what is missing; `till source check` names the statement",
    "42P01": "correct `tables`, or make the table",
    "3D": "correct `database`",
    "57014": "raise `answer_s` if the server is at work for that long, such as decoding a very large transaction",
}
_NO_TLS = "rejected SSL upgrade"  # asyncpg's words


@contextlib.contextmanager
def told(server: Server) -> Iterator[None]:
    """
    Let the database's errors be ours.

    Raises:
        SourceUnavailable: retry. SourceUnauthorised, SourceMisconfigured, ChangesLost: pause.
    """
    try:
        yield
    except TillError:
        raise
    except asyncpg.PostgresError as exc:
        raise _of_server(exc, server) from exc
    except ssl.SSLCertVerificationError as exc:
        raise SourceMisconfigured(
            f"{server.host}: {exc.verify_message}",
            hint="give the authority that signed the server's certificate as `ca`, and the name in it as `host`",
        ) from exc
    except ConnectionError as exc:
        if _NO_TLS in str(exc):
            raise SourceMisconfigured(
                f"{server.host}:{server.port} offers no encryption",
                hint="switch ssl on there; or sslmode=disable, where the network between is trusted",
            ) from exc
        raise _unreachable(exc, server) from exc
    except (OSError, EOFError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise _unreachable(exc, server) from exc


def _of_server(exc: Any, server: Server) -> SourceError:
    state = exc.sqlstate or ""
    found = next((_MEANINGS[state[:length]] for length in (5, 2) if state[:length] in _MEANINGS), SourceUnavailable)
    hint = next((_HINTS[state[:length]] for length in (5, 2) if state[:length] in _HINTS), None)
    detail = f": {exc.detail}" if getattr(exc, "detail", None) and state[:2] == "55" else ""
    return found(f"{server.shown}: {exc.args[0] if exc.args else type(exc).__name__}{detail} ({state})", hint=hint)


def _unreachable(exc: BaseException, server: Server) -> SourceUnavailable:
    said = getattr(exc, "strerror", None) or str(exc) or "no answer in time"
    return SourceUnavailable(f"{server.shown}: {said}")
