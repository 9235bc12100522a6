"""The broker and the database of a benchmark: embedded, in a fresh directory on a disk, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench.flat import CREATE_FLAT
from bench.watch import Services
from schemas.topic import Topics, topics
from sinks.migrate import migrate
from streams.provision import provision
from tillstream.embedded.kafka import EmbeddedKafka, KafkaOptions
from tillstream.embedded.postgres import EmbeddedPostgres

TEMPLATE = "bench_template"


@dataclass(slots=True)
class Stack:
    """A running broker and database server, and what the instrument asks them."""

    home: Path
    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres
    # asyncpg and aiokafka ship no types
    _ends: Any
    _admin: Any
    _server: Any
    _made: int = field(default=0)

    @property
    def services(self) -> Services:
        """Their process ids."""
        return Services(self.kafka.pid or 0, self.postgres.pid or 0)

    async def topics(self, prefix: str, *, partitions: int) -> Topics:
        """The topics of an installation of its own."""
        made = topics(prefix, partitions=partitions)
        await provision(self.kafka.bootstrap, made.all())
        return made

    async def end_offsets(self, topic: str, partitions: int) -> int:
        """Records in the topic, as nothing was ever deleted from it."""
        found = await self._ends.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        return int(sum(found.values()))

    async def members(self, group: str) -> int:
        """Members of a stable group; 0 while it rebalances."""
        for response in await self._admin.describe_consumer_groups([group]):
            for _, _, state, _, _, members, *_ in response.groups:
                return len(members) if state == "Stable" else 0
        return 0

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[str, Any]]:
        """A fresh migrated database and a connection to it for looking; the server has nothing left to write."""
        self._made += 1
        name = f"bench_{self._made}"
        await self._server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        await self._server.execute("CHECKPOINT")
        dsn = self.postgres.dsn_of(name)
        looking = await asyncpg.connect(dsn)
        try:
            yield dsn, looking
        finally:
            await looking.close()
            await self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def running_stack(parent: Path | None = None, settings: Mapping[str, str] | None = None) -> AsyncIterator[Stack]:
    """
    Start both, make the database that others are copies of; stop and delete everything afterwards.

    `settings` are further ones of the database server.
    """
    home = Path(tempfile.mkdtemp(prefix="till-bench-", dir=parent))
    home.chmod(0o711)  # as root, PostgreSQL runs under another user
    kafka = EmbeddedKafka(home / "kafka", options=KafkaOptions(heap_mib=512))
    # Commit times of rows are what latency is measured by.
    postgres = EmbeddedPostgres(home / "postgres", settings={"track_commit_timestamp": "on", **(settings or {})})
    async with contextlib.AsyncExitStack() as exits:
        exits.callback(shutil.rmtree, home, ignore_errors=True)
        for service in (kafka, postgres):
            await service.start()
            exits.push_async_callback(service.stop)
        server = await asyncpg.connect(postgres.dsn_of("postgres"))
        exits.push_async_callback(server.close)
        await server.execute(f"CREATE DATABASE {TEMPLATE}")
        await _migrate(postgres.dsn_of(TEMPLATE))
        ends = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
        await ends.start()
        exits.push_async_callback(ends.stop)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        exits.push_async_callback(admin.close)
        yield Stack(home, kafka, postgres, ends, admin, server)


async def _migrate(dsn: str) -> Sequence[str]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(CREATE_FLAT)
    finally:
        await connection.close()
    return await migrate(dsn)
