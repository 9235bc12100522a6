"""
Numbered SQL files become the schema: each once, in order, in a transaction, under one advisory lock.

Safe to run twice and from several processes at once. A file that was applied must never change; its checksum is
compared.
Why not a library: those that are kept need another driver (docs/decisions).
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from importlib import resources

import asyncpg

from schemas.errors import SinkMisconfigured, SinkUnavailable
from sinks.pool import Connection
from sinks.sqlstate import sink_error

logger = logging.getLogger(__name__)

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql", re.ASCII)
_LOCK = 0x7469_6C6C_6D69_6772  # "tillmigr"
_CONNECT_S = 10.0
_STATEMENT_S = 3600.0

_TABLE = """
CREATE TABLE IF NOT EXISTS till_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sinks/migrations`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration that this version knows, in order."""
    folder = resources.files("sinks").joinpath("migrations")
    files = sorted(file.name for file in folder.iterdir() if _FILE.fullmatch(file.name))
    return [Migration(int(name[:4]), name, folder.joinpath(name).read_text("utf-8")) for name in files]


async def migrate(dsn: str) -> list[str]:
    """
    Bring the database at `dsn` to this version; the names of the files applied now, none if it was there already.

    Raises:
        SinkUnavailable: retry. SinkMisconfigured: pause; no permission, or an applied file is not the one we hold.
    """
    try:
        held = await asyncpg.connect(dsn, timeout=_CONNECT_S, command_timeout=_STATEMENT_S)
        try:
            # A session's lock, because each file has a transaction of its own; closing the connection releases it.
            await held.execute(f"SELECT pg_advisory_lock({_LOCK})")
            return await _apply_all(held)
        finally:
            await held.close(timeout=_CONNECT_S)
    except ValueError as exc:
        raise SinkMisconfigured(
            "the DSN cannot be read", hint="correct the DSN: postgresql://user@host:port/name"
        ) from exc
    except Exception as exc:
        told = sink_error(exc)
        if told is None or told is exc:
            raise
        if isinstance(told, SinkUnavailable | SinkMisconfigured):
            raise told from exc
        raise SinkMisconfigured(f"a migration failed: {told}", sqlstate=told.sqlstate) from exc


async def pending(held: Connection) -> list[str]:
    """
    The names of the files that the database lacks.

    Raises:
        SinkMisconfigured: pause; an applied file is not the one we hold, or the database is newer than we are.
    """
    if await held.fetchval("SELECT to_regclass('till_migrations') IS NULL"):
        return [migration.name for migration in migrations()]
    return [migration.name for migration in await _missing(held)]


async def _apply_all(held: Connection) -> list[str]:
    await held.execute("SET client_min_messages = warning")
    await held.execute(_TABLE)
    applied = []
    for migration in await _missing(held):
        async with held.transaction():
            await held.execute(migration.sql)
            await held.execute(
                "INSERT INTO till_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
        applied.append(migration.name)
        logger.info("migration applied", extra={"facts": {"file": migration.name}})
    return applied


async def _missing(held: Connection) -> list[Migration]:
    rows = await held.fetch("SELECT number, name, checksum FROM till_migrations ORDER BY number")
    known = {migration.number: migration for migration in migrations()}
    for row in rows:
        ours = known.pop(row["number"], None)
        if ours is None:
            raise SinkMisconfigured(
                f"the database has migration {row['name']}, which this version does not know",
                hint="run a version at least as new as the one that migrated the database",
            )
        if ours.checksum != row["checksum"]:
            raise SinkMisconfigured(
                f"migration {ours.name} was changed after it was applied",
                hint="restore the file, and put the change into a new one",
            )
    return list(known.values())
