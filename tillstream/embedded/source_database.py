"""
A database of somebody else's: a shop's events (seed 001's table), a role that may read their changes, and what the shop
writes.

It lies in a server of ours, beside our own database, and has nothing to do with it. Its events follow from their
numbers alone, so what was read can be checked against what was written.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from tillstream.embedded.port import LOOPBACK
from tillstream.embedded.postgres import EmbeddedPostgres

PUBLICATION = "till"
STOCK = 8  # events of one round of the shop, and what it has sold before anybody reads it
_ORDERS = 4  # in a round
_PASSWORD_BYTES = 18
_TABLE = """
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity_id text NOT NULL,
    event_type text NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_WRITE = "INSERT INTO events (entity_id, event_type, headers) VALUES ($1, $2, $3)"
_READERS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1"
_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1"


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the table, but for its id and its time."""

    entity_id: str
    event_type: str
    headers: dict[str, str]


def event(number: int) -> Event:
    """
    What the shop does as its `number`-th deed, from 0 on: eight in a round, of four orders.

    Two in a round are no payments. One of the first round is none that could be understood.
    """
    round_, step = divmod(number, STOCK)
    order, kind = (
        (1, "order.created"),
        (1, "payment.completed"),
        (2, "payment.completed"),
        (1, "payment.refunded"),
        (3, "payment.failed"),
        (4, "order.created"),
        (4, "payment.completed"),
        (4, "payment.refunded"),
    )[step]
    entity = round_ * _ORDERS + order
    spelled = f"{Decimal(995 + entity * 125) / 100:.2f}" if number != STOCK - 1 else "all of it"
    is_payment = kind.startswith("payment.")
    return Event(f"order-{entity:04d}", kind, {"amount": spelled, "currency": "EUR"} if is_payment else {})


@dataclass(frozen=True, slots=True)
class SourceDatabase:
    """The database `name` of a running server, and the role that reads it."""

    server: EmbeddedPostgres
    name: str

    @property
    def reader(self) -> str:
        """Who may read it."""
        return f"{self.name}_reader"

    def configuration(self, password: str) -> dict[str, Any]:
        """What a connector of kind `postgres_changes` needs to get here. `password` is a secret's reference."""
        return {
            "host": LOOPBACK,
            "port": self.server.port,
            "database": self.name,
            "user": self.reader,
            "password": password,
            "publication": PUBLICATION,
        }

    async def create(self) -> str:
        """Make it anew, empty. Returns the reader's password."""
        await self.drop()
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        await self._run("postgres", f'CREATE DATABASE "{self.name}"')
        await self._run(
            self.name,
            "SET log_min_error_statement = panic",  # no statement with a password in the server's log
            f"CREATE ROLE \"{self.reader}\" LOGIN REPLICATION PASSWORD '{password}'",
            _TABLE,
            f'GRANT SELECT ON events TO "{self.reader}"',
            f"CREATE PUBLICATION {PUBLICATION} FOR TABLE events",
        )
        return password

    async def drop(self) -> None:
        """Remove it with its slots, which would hold the server's log back for ever, and its reader. Safe to repeat."""
        connection = await asyncpg.connect(self.server.dsn_of("postgres"))
        try:
            if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", self.reader):
                await connection.execute(f'ALTER ROLE "{self.reader}" NOLOGIN')
            await connection.execute(_READERS, self.reader)
            await connection.execute(_SLOTS, self.name)
            await connection.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
            await connection.execute(f'DROP ROLE IF EXISTS "{self.reader}"')
        finally:
            await connection.close()

    async def write(self, first: int, count: int = 1) -> None:
        """Let the shop do so many deeds, from the `first` on, in one transaction."""
        connection = await asyncpg.connect(self.server.dsn_of(self.name))
        try:
            rows = [(each.entity_id, each.event_type, json.dumps(each.headers)) for each in _events(first, count)]
            await connection.executemany(_WRITE, rows)
        finally:
            await connection.close()

    async def _run(self, database: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.server.dsn_of(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


def _events(first: int, count: int) -> Iterator[Event]:
    return (event(number) for number in range(first, first + count))
