"""One history in any order, with duplicates, live or replayed: always the same tables."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import asyncpg
import pytest

from sinks.hash import TableHash, table_hash
from sinks.migrate import migrate
from sinks.postgres import PostgresSink
from streams.reader import find_range
from streams.replay import Replayed, replay
from tests.faults.stage import Stage, open_stage
from tests.faults.truth import History, Sent
from tests.services import Kafka, Postgres

SHUFFLES = 4
RECORDS = 1_200
REPEATED = 300


@pytest.fixture
async def databases(postgres: Postgres) -> list[str]:
    """One for each shuffle, and one to replay into. Dropped with the server: sessions may still be open on them."""
    names = [await postgres.create_database() for _ in range(SHUFFLES + 1)]
    return [postgres.dsn_of(name) for name in names]


async def test_shuffles_and_replays_of_one_history_leave_identical_tables(kafka: Kafka, databases: list[str]) -> None:
    history = History(seed=16)
    records = history.tangle(payments=150, records=RECORDS)
    async with AsyncExitStack() as stack:
        stages = [
            await stack.enter_async_context(open_stage(kafka.bootstrap, dsn, partitions=number + 1))
            for number, dsn in enumerate(databases[:SHUFFLES])
        ]
        for seed, stage in enumerate(stages):
            await stage.publish(_shuffled(records, seed))

        worker = stages[-1].worker("live")
        await asyncio.gather(*(_replayed(stage, stage.dsn) for stage in stages[:-1]))
        await stages[-1].drained()
        live = [await table_hash(stage.pool) for stage in stages]
        first = await _replayed(stages[-1], databases[-1])
        second = await _replayed(stages[-1], databases[-1])

        assert len(set(live)) == 1
        assert await _hash_of(databases[-1]) == live[0]
        assert (first.records, first.applied + first.duplicate) == (RECORDS + REPEATED, RECORDS)
        assert (second.applied, second.duplicate, second.redelivered) == (0, 0, RECORDS + REPEATED)
        assert await worker.stop() == 0


def _shuffled(records: list[Sent], seed: int) -> list[Sent]:
    rng = random.Random(seed)
    mixed = [*records, *rng.sample(records, REPEATED)]
    rng.shuffle(mixed)
    return mixed


async def _replayed(stage: Stage, dsn: str) -> Replayed:
    """The whole topic, from zero, into the database."""
    await migrate(dsn)
    sink = await PostgresSink.open(dsn, pool_size=2)
    try:
        return await replay(stage.bootstrap, await find_range(stage.bootstrap, stage.events), sink)
    finally:
        await sink.close()


async def _hash_of(dsn: str) -> TableHash:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings={"timezone": "UTC"}) as pool:
        return await table_hash(pool)
