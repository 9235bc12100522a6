from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from connectors import postgres_changes
from connectors.changes.catalog import table_facts
from connectors.changes.identifier import TableName
from connectors.changes.source import PostgresChangesSource
from connectors.conformance import ConnectorConformance, Stock
from connectors.source import Batch, Cursor, Task
from tests.integration.changes_kit import EVENTS, source_database

GOOD_ROWS = 6
LARGE_ROWS = 6_000
EVENT = "INSERT INTO events (entity_id, event_type, headers) VALUES ($1, $2, $3)"
ONE = '{"amount": "12.50", "currency": "EUR"}'


class SuiteSource(PostgresChangesSource):
    """The suite leaves sources open while others read, so none may keep the slot to itself."""

    async def read(self, task: Task, since: Cursor | None) -> AsyncGenerator[Batch, None]:
        async with contextlib.aclosing(super().read(task, since)) as batches:
            async for batch in batches:
                yield batch
        await self.close()


class _Changes(ConnectorConformance):
    spec = dataclasses.replace(postgres_changes.SPEC, factory=SuiteSource)
    options: ClassVar[dict[str, Any]] = {}
    touched = ""  # what a change sets beside the record's own columns

    @pytest.fixture(autouse=True)
    async def _database(self, database: str) -> AsyncIterator[None]:
        async with source_database(database) as self.database:
            await self.database.table(EVENTS)
            await self.prepare()
            yield

    async def prepare(self) -> None:
        """Before there are any rows."""

    async def stocked(self) -> None:
        """When the rows are there."""

    async def stock(self, folder: Path) -> Stock:
        """Six good rows, two bad ones, one that is filtered; the first four and the next but one in one transaction."""
        database = self.database
        async with database.owner.transaction():
            for entity in ("p-1", "p-2", "p-3"):
                await database.execute(EVENT, entity, "payment.completed", ONE)
            await database.execute(EVENT, "p-1", "payment.refunded", ONE)
        await database.execute(EVENT, "p-4", "order.created", "{}")
        async with database.owner.transaction():
            await database.execute(EVENT, "p-2", "payment.failed", ONE)
            await database.execute(EVENT, "bad-1", "payment.completed", '{"amount": "ten", "currency": "EUR"}')
            await database.execute(EVENT, "bad-2", "payment.completed", '{"currency": "EUR"}')
        await database.execute(EVENT, "p-5", "payment.completed", ONE)
        return await self._stock(GOOD_ROWS)

    async def large_stock(self, folder: Path) -> Stock:
        await self.database.execute(
            "INSERT INTO events (entity_id, event_type, headers) SELECT 'p-' || n, 'payment.completed', "
            "jsonb_build_object('amount', n::text, 'currency', 'EUR', 'note', repeat('x', 2000)) "
            f"FROM generate_series(1, {LARGE_ROWS}) n"
        )
        return await self._stock(LARGE_ROWS)

    async def add(self, folder: Path) -> int:
        for entity in ("p-6", "p-1"):
            await self.database.execute(EVENT, entity, "payment.completed", ONE)
        return 2

    async def change(self, folder: Path) -> int:
        await self.database.execute(f"UPDATE events SET event_type = 'payment.failed'{self.touched} WHERE id = 1")
        return 1

    async def _stock(self, published: int) -> Stock:
        await self.stocked()
        source = self.database.source("public.events", mapping="events_table")
        async with source._session("") as session:
            table = await table_facts(session, TableName("public", "events"))
            rows = await session.fetch(f"SELECT {table.selected} FROM public.events WHERE entity_id LIKE 'bad-%'")
        await source.close()
        names = [column.name for column in table.columns]
        config = self.database.config(
            "public.events",
            mapping="events_table",
            idle_s=0,
            interval_s=0.001,
            stop_s=0.5,
            # the suite reads from the beginning many times
            **({} if "mode" in self.options else {"let_go_s": 3_600}),
            **self.options,
        )
        return Stock(
            config,
            published,
            [orjson.dumps(dict(zip(names, row, strict=True))) for row in rows],
            {**config, "tables": ["public.absent"]},
            self.database.secrets,
        )


class TestCopy(_Changes):
    """Rows that were there before the slot: the copy reads them."""

    async def stocked(self) -> None:
        await self.database.publish("events")


class TestStream(_Changes):
    """Rows that come with the stream."""

    options: ClassVar[dict[str, Any]] = {"snapshot": "never"}

    async def prepare(self) -> None:
        await self.database.publish("events")


class TestWatermark(_Changes):
    """Rows that are polled by their transaction's id."""

    options: ClassVar[dict[str, Any]] = {"mode": "watermark"}
    touched = ", txid = pg_current_xact_id()"

    async def prepare(self) -> None:
        await self.database.execute("ALTER TABLE events ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id()")


class TestClosedWindow(_Changes):
    """Rows that are polled by the time of their change."""

    options: ClassVar[dict[str, Any]] = {"mode": "closed_window", "updated_at": "created_at", "delay_s": 0}
    touched = ", created_at = now()"
