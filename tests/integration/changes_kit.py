"""A source database for tests of the change stream: real, read by a role that may do little, cleaned up afterwards."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import asyncpg

from connectors import postgres_changes
from connectors.changes.config import PostgresChangesConfig
from connectors.changes.source import PostgresChangesSource
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.envelope import Connector
from connectors.runner import Runner
from connectors.secret import GivenSecrets
from connectors.source import Batch, Cursor, Task
from connectors.testing import CONNECTOR, Faults, Memory, run_ids

PASSWORD = "${env:SOURCE_PASSWORD}"
LOOPBACK = "127.0.0.0/8"
EVENTS = """
CREATE TABLE events (
    id bigserial PRIMARY KEY,
    entity_id text NOT NULL,
    event_type text NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
)
"""
PAYMENTS = """
CREATE TABLE payments (
    id bigserial PRIMARY KEY,
    reference text NOT NULL,
    parent_reference text,
    type text NOT NULL DEFAULT 'payin',
    status text NOT NULL DEFAULT 'succeeded',
    asset text NOT NULL DEFAULT 'EUR',
    amount numeric NOT NULL,
    effective_at timestamptz,
    note text
)
"""


@dataclass(slots=True)
class SourceDatabase:
    """One database of a server, as its owner sees it. `reader` may read the tables that were granted, and use slots."""

    dsn: str
    owner: Any  # asyncpg ships no types
    host: str
    port: int
    name: str
    reader: str
    reader_password: str
    _open: list[Any] = field(default_factory=list)

    async def execute(self, statement: str, *arguments: object) -> None:
        """As the owner."""
        await self.owner.execute(statement, *arguments)

    async def value(self, statement: str, *arguments: object) -> Any:
        """As the owner."""
        return await self.owner.fetchval(statement, *arguments)

    async def reconnect(self) -> None:
        """The owner again, after the server was another one for a while."""
        self.owner.terminate()
        self.owner = await asyncpg.connect(self.dsn)

    async def connect(self) -> Any:
        """A further session of the owner; closed with the database."""
        connection = await asyncpg.connect(self.dsn)
        self._open.append(connection)
        return connection

    async def table(self, statement: str = PAYMENTS, *names: str) -> None:
        """Make a table that the reader may read."""
        await self.execute(statement)
        for name in names or [statement.split()[2]]:
            await self.execute(f"GRANT SELECT ON {name} TO {self.reader}")

    async def publish(self, *tables: str, slot: str = "till") -> None:
        """A publication of the tables, and a slot, both of this name. A slot is the server's: others get their own."""
        await self.execute(f"CREATE PUBLICATION {slot} FOR TABLE {', '.join(tables)}")
        await self.make_slot(slot)

    async def make_slot(self, slot: str = "till") -> None:
        """A slot; slots of one server have different names."""
        await self.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", self.slot(slot))

    async def drop_slot(self, slot: str = "till") -> None:
        """Drop it."""
        await self.execute("SELECT pg_drop_replication_slot($1)", self.slot(slot))

    def slot(self, slot: str = "till") -> str:
        """The name that the server knows it by."""
        return f"{slot}_{self.name}"[:63]

    async def confirmed(self, slot: str = "till") -> str:
        """Where the slot stands."""
        return str(
            await self.value(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", self.slot(slot)
            )
        )

    def config(self, *tables: str, **options: Any) -> dict[str, Any]:
        """A connector's configuration."""
        of_the_stream = {"slot": self.slot(), "publication": "till", "let_go_s": 0.0}
        return {
            **(of_the_stream if options.get("mode", "logical") == "logical" else {}),
            "host": self.host,
            "port": self.port,
            "database": self.name,
            "user": self.reader,
            "password": PASSWORD,
            "sslmode": "disable",
            "allow_networks": [LOOPBACK],
            "tables": list(tables) or ["public.payments"],
            "poll_s": 0.02,
            "interval_s": 0.01,
            "idle_s": 0.02,
            "checkpoint_s": 0.0,
            "error_backoff_s": 0.05,
            "stop_s": 2.0,
            **options,
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the configuration's references stand for."""
        return {PASSWORD: self.reader_password}

    def source(
        self, *tables: str, secrets: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> PostgresChangesSource:
        """A source; close it."""
        config = PostgresChangesConfig.model_validate(self.config(*tables, **options))
        given = GivenSecrets({**self.secrets, **secrets})
        return PostgresChangesSource(config, SourceContext(CONNECTOR.id, CONNECTOR.name, SystemClock(), secrets=given))

    def runner(
        self,
        memory: Memory,
        *tables: str,
        epoch: int = 1,
        faults: Faults | None = None,
        connector: Connector = CONNECTOR,
        **options: Any,
    ) -> Runner:
        """A runner of the real source on ports in memory."""
        ports = replace(memory.ports(SystemClock(), faults), secrets=GivenSecrets(self.secrets))
        config = PostgresChangesConfig.model_validate(self.config(*tables, **options))
        return Runner(connector, postgres_changes.SPEC, config, ports, epoch=epoch, new_run_id=run_ids(epoch))


@contextlib.asynccontextmanager
async def source_database(dsn: str) -> AsyncIterator[SourceDatabase]:
    """The database at `dsn`, with a reader; afterwards nothing is left of what would keep it from being dropped."""
    owner = await asyncpg.connect(dsn)
    name = await owner.fetchval("SELECT current_database()")
    host, port = _address(dsn)
    reader, password = f"reader_{secrets.token_hex(6)}", f"pw-{secrets.token_hex(12)}"
    await owner.execute(f"CREATE ROLE {reader} LOGIN REPLICATION PASSWORD '{password}'")
    database = SourceDatabase(dsn, owner, host, port, name, reader, password)
    try:
        yield database
    finally:
        for connection in database._open:
            connection.terminate()
        await clean(database.owner, reader)
        await database.owner.close()


async def clean(owner: Any, reader: str) -> None:
    """End the reader's sessions, drop the database's slots and the reader."""
    await owner.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", reader)
    await owner.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
        "WHERE database = current_database() AND active_pid IS NOT NULL"
    )
    await owner.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )
    await owner.execute(f"DROP OWNED BY {reader}")
    await owner.execute(f"DROP ROLE {reader}")


def _address(dsn: str) -> tuple[str, int]:
    """Where the server of a DSN listens on TCP: a socket's port is that of the address beside it."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    port = parts.port or int(query.get("port", ["5432"])[0])
    host = parts.hostname or "127.0.0.1"
    return unquote(host), port


async def one_task(source: PostgresChangesSource) -> Task:
    """The only task that it lists."""
    (task,) = [item async for page in source.tasks({}) for item in page if isinstance(item, Task)]
    return task


async def read(source: PostgresChangesSource, since: Cursor | None = None) -> list[Batch]:
    """Everything that a reading of its only task gives."""
    task = await one_task(source)
    return [batch async for batch in source.read(task, since)]


def references(batches: list[Batch]) -> list[str]:
    """The references of the records, in order."""
    return [record.payment.reference for batch in batches for record in batch.records]


OTHER = Connector(UUID("0190a000-0000-7000-8000-000000000002"), "other", "other")
Statement = Callable[[], str]
