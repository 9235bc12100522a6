"""A real sink that a synchronous test drives, such as Hypothesis' own, and that is emptied between examples."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sinks.fold import PaymentState
from sinks.postgres import PostgresSink
from tests.database import migrated
from tests.model.history import state_of
from tests.services import Postgres

TABLES = ("payments", "payment_events", "event_repeats", "event_deaths", "run_ledger", "sink_offsets")
Result = TypeVar("Result")


class Harness:
    """One sink, one loop."""

    def __init__(self, runner: asyncio.Runner, sink: PostgresSink) -> None:
        self.runner = runner
        self.sink = sink

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for it."""
        return self.runner.run(work)

    def empty(self) -> None:
        """DELETE rather than TRUNCATE: no file is created and nothing waits for a lock."""
        self.run(self._execute("; ".join(f"DELETE FROM {self.sink.schema}.{table}" for table in TABLES)))
        self.sink._reached.clear()  # of a database that was emptied on purpose

    def payments(self) -> dict[bytes, PaymentState]:
        """The table, as the fold's own values."""
        rows = self.run(self._fetch(f"SELECT * FROM {self.sink.schema}.payments"))
        return {row["payment"].bytes: state_of(row) for row in rows}

    def ledger(self) -> dict[tuple[Any, ...], tuple[int, int]]:
        """Counts and sums, keyed as the memory sink keys them."""
        rows = self.run(self._fetch(f"SELECT * FROM {self.sink.schema}.run_ledger"))
        return {
            (row["run"], row["topic"], row["log_partition"], row["outcome"]): (row["events"], int(row["digest_sum"]))
            for row in rows
        }

    def contents(self) -> dict[bytes, bytes]:
        """Of each event row its digest and its content's."""
        rows = self.run(self._fetch(f"SELECT digest, content FROM {self.sink.schema}.payment_events"))
        return {row["digest"].bytes: row["content"].bytes for row in rows}

    async def _execute(self, sql: str) -> None:
        await self.sink.pool.execute(sql)

    async def _fetch(self, sql: str) -> list[Any]:
        return list(await self.sink.pool.fetch(sql))


@contextmanager
def harness(dsn: str, *, pool_size: int = 2) -> Iterator[Harness]:
    """A migrated, empty sink at `dsn`."""

    async def opened() -> PostgresSink:
        await migrated(dsn)
        return await PostgresSink.open(dsn, pool_size=pool_size)

    with new_runner() as runner:
        sink = runner.run(opened())
        try:
            yield Harness(runner, sink)
        finally:
            runner.run(sink.close())


def new_runner() -> asyncio.Runner:
    """A runner that leaves the thread's current loop, which is pytest-asyncio's, alone."""
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


@contextmanager
def temporary_database(server: Postgres) -> Iterator[str]:
    """The DSN of an empty database, for fixtures that outlive a test."""
    with new_runner() as runner:
        name = runner.run(server.create_database())
        try:
            yield server.dsn_of(name)
        finally:
            runner.run(server.drop_database(name))


def gather(*work: Awaitable[Result]) -> Coroutine[Any, Any, list[Result]]:
    """All of it at once, as a coroutine."""

    async def together() -> list[Result]:
        return list(await asyncio.gather(*work))

    return together()
