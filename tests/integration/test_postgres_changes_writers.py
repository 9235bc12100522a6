"""
Eight writers whose transactions end out of order, roll back, or stay open across a restart: none of their rows is lost.

The naive poll of seed 001 reads the same table at the same time, and shows that the test bites.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.testing import Memory, eventually, running
from tests.integration.changes_kit import SourceDatabase, source_database

WRITERS = 8
TRANSACTIONS = 30  # of each writer
ROLLED_BACK = 0.1
NUMBERED_EARLY = 0.1  # ids that were taken well before their row was written, as hi/lo generators do
INSERT = "INSERT INTO payments (id, reference, amount) VALUES ($1, $2, 1)"
MODES: dict[str, dict[str, Any]] = {
    "logical": {"snapshot": "never"},
    "watermark": {"mode": "watermark"},
    "closed_window": {"mode": "closed_window", "updated_at": "changed_at", "delay_s": 0.2},
}


@pytest.fixture
async def source(database: str) -> AsyncIterator[SourceDatabase]:
    async with source_database(database) as made:
        await made.table()
        await made.execute("ALTER TABLE payments ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id()")
        await made.execute("ALTER TABLE payments ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
        await made.execute(f"GRANT pg_read_all_stats TO {made.reader}")
        await made.publish("payments")
        yield made


async def write(connection: Any, writer: int, committed: set[str]) -> None:
    """Transactions of random length, most of them committed."""
    rng = random.Random(writer)
    for number in range(TRANSACTIONS):
        early = None
        if rng.random() < NUMBERED_EARLY:
            early = await connection.fetchval("SELECT nextval('payments_id_seq')")
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        transaction = connection.transaction()
        await transaction.start()
        rows = [f"w{writer}-{number}-{row}" for row in range(rng.randint(1, 3))]
        for row in rows:
            identifier = early or await connection.fetchval("SELECT nextval('payments_id_seq')")
            early = None
            await connection.execute(INSERT, identifier, row)
            await asyncio.sleep(rng.uniform(0.0, 0.02))
        if rng.random() < ROLLED_BACK:
            await transaction.rollback()
        else:
            await transaction.commit()
            committed.update(rows)


async def poll_naively(connection: Any, seen: set[str]) -> None:
    """`id > last`, for ever."""
    last = 0
    while True:
        for row in await connection.fetch("SELECT id, reference FROM payments WHERE id > $1 ORDER BY id", last):
            last = row["id"]
            seen.add(row["reference"])
        await asyncio.sleep(0.005)


def published(memory: Memory) -> set[str]:
    return {event.payment.reference for event in memory.events if event.payment}


@contextlib.asynccontextmanager
async def reading(source: SourceDatabase, memories: dict[str, Memory], epoch: int) -> AsyncIterator[None]:
    """A runner for each mode."""
    async with contextlib.AsyncExitStack() as exits:
        for mode, memory in memories.items():
            await exits.enter_async_context(running(source.runner(memory, epoch=epoch, **MODES[mode])))
        yield


async def test_no_mode_loses_a_row_and_the_naive_poll_does(source: SourceDatabase) -> None:
    memories = {mode: Memory() for mode in MODES}
    committed: set[str] = set()
    naive: set[str] = set()
    open_across = await source.connect()
    held = open_across.transaction()
    await held.start()
    await open_across.execute(INSERT, 1_000_000, "open across the restart")
    connections = [await source.connect() for _ in range(WRITERS)]
    poller = asyncio.create_task(poll_naively(await source.connect(), naive))
    writing = [asyncio.create_task(write(each, number, committed)) for number, each in enumerate(connections)]

    async with reading(source, memories, 1):
        await eventually(lambda: len(committed) > TRANSACTIONS and published(memories["logical"]))
    async with reading(source, memories, 2):
        await asyncio.gather(*writing)
        await held.commit()
        committed.add("open across the restart")
        for memory in memories.values():
            await eventually(lambda memory=memory: published(memory) >= committed)
    poller.cancel()

    for mode, memory in memories.items():
        assert published(memory) == committed, mode
        assert memory.letters == [], mode
    lost = committed - naive
    assert len(lost) > len(committed) * 0.05
