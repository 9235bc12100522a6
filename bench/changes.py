"""
How fast a database's changes reach the topic, and how late a change is in the payments table.

Throughput: a table of the same history as the other contenders', committed in transactions of a thousand rows before
the worker starts, so that it reads as fast as it can. Latency: from the commit of a row in the source database to the
commit of its event in the sink's, both as PostgreSQL's own commit timestamps, at a steady rate.

`python -m bench.changes` measures these two alone, and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from bench.contender import Contender, running
from bench.contest import COUNT_SINK, worker
from bench.history import COLUMNS, PARTITIONS, records, rows
from bench.stack import Stack, running_stack
from bench.watch import Measured, watch
from connectors.registry import specs
from sinks.pool import close_pool, open_pool
from tillstream.control.connector import create
from tillstream.embedded.port import LOOPBACK

TRANSACTION_ROWS = 1_000
ROWS_PER_S = 500
COMMITS_PER_S = 100
WARM_S = 4.0
END_S = 30.0
SECRET = "TILL_SECRET_SOURCE"
SLOT = "bench"
_NUMBERS = itertools.count(1)  # each round has topics and a database of its own
TABLE = """
CREATE TABLE payments (
    id bigserial PRIMARY KEY, reference text NOT NULL, parent_reference text, type text NOT NULL, status text NOT NULL,
    amount bigint NOT NULL, asset text NOT NULL, scheme text NOT NULL, effective_at timestamptz
)
"""
_FILL = f"""
INSERT INTO payments ({", ".join(COLUMNS)})
SELECT reference, nullif(parent, ''), type, status, amount::bigint, asset, scheme, nullif(at, '')::timestamptz
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       AS r(reference, parent, type, status, amount, asset, scheme, at)
"""
_INSERT = """
INSERT INTO payments (reference, type, status, amount, asset, scheme) VALUES ($1, 'payin', 'succeeded', 1, 'EUR', '')
"""
_SOURCE = "SELECT reference, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM payments"
_SINK = """
SELECT p.reference, extract(epoch FROM pg_xact_commit_timestamp(e.xmin))::float8 AS at
  FROM payment_events e JOIN payments p ON p.payment = e.payment
"""


@dataclass(frozen=True, slots=True)
class ChangeLatency:
    """In milliseconds, over all rows after the warm-up."""

    p50_ms: float
    p99_ms: float
    most_ms: float
    rows: int
    connector_rss_mib: float


@dataclass(slots=True)
class Changes:
    """The contest: a source database on the stack's server, and installations that follow it."""

    stack: Stack

    async def throughput(self, total: int, most_s: float) -> Measured:
        """Rows that were committed before the worker started."""
        async with self._installation() as (prefix, topic, source, dsn, _):
            await fill(source, total)
            command, log = [worker("connector")], self.stack.home / f"{prefix}.log"
            async with running("changes", command, log=log, environment=self._environment(dsn, prefix)) as contenders:
                return await watch(
                    lambda: self.stack.end_offsets(topic, PARTITIONS),
                    contenders,
                    self.stack.services,
                    total=total,
                    most_s=most_s,
                )

    async def latency(self, seconds: float) -> ChangeLatency:
        """
        Rows at a steady rate.

        Raises:
            TimeoutError: some never arrived.
        """
        async with self._installation() as (prefix, _, source, dsn, looking):
            log, environment = self.stack.home / f"{prefix}.log", self._environment(dsn, prefix)
            commands = [worker("sink"), worker("connector")]
            async with running("changes", commands, log=log, environment=environment) as (sink, connector):
                await fill(source, 1)
                await _wait_for(looking, 1, [])
                began_s = time.time()
                count = await _write(source, seconds + WARM_S)
                await _wait_for(looking, count + 1, [sink, connector])
                committed = {row["reference"]: row["at"] for row in await source.fetch(_SOURCE)}
                stored = {row["reference"]: row["at"] for row in await looking.fetch(_SINK)}
                connector.look()
        taken = sorted(
            (at - committed[reference]) * 1_000
            for reference, at in stored.items()
            if committed[reference] >= began_s + WARM_S
        )
        return ChangeLatency(
            taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1], len(taken), connector.peak_rss_mib
        )

    @contextlib.asynccontextmanager
    async def _installation(self) -> AsyncIterator[tuple[str, str, Any, str, Any]]:
        """A fresh source with a slot, and an installation with a connector that follows it."""
        number = next(_NUMBERS)
        prefix = f"changes-{number}"
        made = await self.stack.topics(prefix, partitions=PARTITIONS)
        name = f"source_{number}"
        async with self.stack.database() as (dsn, looking):
            await looking.execute(f"CREATE DATABASE {name}")
            source = await asyncpg.connect(self.stack.postgres.dsn_of(name))
            try:
                await source.execute(TABLE)
                await source.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE payments")
                await source.fetch("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", SLOT)
                await self._create_connector(dsn, name)
                yield prefix, made.events.name, source, dsn, looking
            finally:
                await _drop_slot(source)
                await source.close()
                await looking.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _create_connector(self, dsn: str, database: str) -> None:
        pool = await open_pool(dsn, size=1)
        configuration = {
            "host": LOOPBACK,
            "port": self.stack.postgres.port,
            "database": database,
            "user": urlsplit(self.stack.postgres.dsn).username,
            "password": f"${{env:{SECRET}}}",
            "sslmode": "disable",
            "allow_networks": [f"{LOOPBACK}/32"],
            "tables": ["public.payments"],
            "slot": SLOT,
            "snapshot": "never",
        }
        await create(pool, name="acme", spec=specs()["postgres_changes"], configuration=configuration)
        await close_pool(pool)

    def _environment(self, dsn: str, prefix: str) -> dict[str, str]:
        return {
            "TILL_HOME": str(self.stack.home / "workers" / prefix),
            "TILL_KAFKA_BOOTSTRAP": self.stack.kafka.bootstrap,
            "TILL_POSTGRES_DSN": dsn,
            "TILL_TOPIC_PREFIX": prefix,
            "TILL_TOPIC_PARTITIONS": str(PARTITIONS),
            "TILL_LOG_LEVEL": "warning",
            SECRET: urlsplit(self.stack.postgres.dsn).password or "",
        }


async def fill(source: Any, count: int, *, seed: int = 0, prefix: str = "pay") -> None:
    """Commit rows, a thousand at a time."""
    made = list(rows(records(count, seed=seed, prefix=prefix)))
    for start in range(0, count, TRANSACTION_ROWS):
        columns = zip(*made[start : start + TRANSACTION_ROWS], strict=True)
        await source.execute(_FILL, *(list(column) for column in columns))


async def _write(source: Any, seconds: float) -> int:
    """Rows at a steady rate; how many."""
    each = ROWS_PER_S // COMMITS_PER_S
    began_s, commits = time.monotonic(), int(seconds * COMMITS_PER_S)
    for number in range(commits):
        await asyncio.sleep(max(0.0, began_s + number / COMMITS_PER_S - time.monotonic()))
        async with source.transaction():
            await source.executemany(_INSERT, [(f"steady-{number}-{row}",) for row in range(each)])
    return commits * each


async def _drop_slot(source: Any) -> None:
    """Whoever still reads it."""
    await source.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active", SLOT
    )
    await source.execute("SELECT pg_drop_replication_slot($1)", SLOT)


async def _wait_for(looking: Any, count: int, contenders: Sequence[Contender]) -> None:
    deadline = time.monotonic() + END_S
    while int(await looking.fetchval(COUNT_SINK)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} rows arrived")
        for contender in contenders:
            contender.look()
        await asyncio.sleep(0.1)


async def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.changes", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    async with running_stack() as stack:
        contest = Changes(stack)
        measured = await contest.throughput(given.rows, most_s=60.0)
        print(f"{measured.per_second:,.0f} rows/s, {measured.rss_mib:.0f} MiB, others took {measured.others:.0%}")
        print({who: round(us, 1) for who, us in measured.cpu_us.items()}, "µs a row")
        print(await contest.latency(given.seconds))


if __name__ == "__main__":
    asyncio.run(main())
