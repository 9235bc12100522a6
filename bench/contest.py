"""The contests: how each contender is set up and started, and what of it is counted. Each call is one round."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contender import Order, module, running
from bench.flat import COUNT
from bench.history import PARTITIONS, records, write_csv
from bench.sftp import Downloads
from bench.stack import Stack
from bench.watch import Measured, watch
from connectors.registry import specs
from schemas.topic import Topics, sink_app_id
from sinks.pool import close_pool, open_pool
from tillstream.control.connector import create

POLL_S = 0.1  # of the connector, where files are dropped into its folder
COUNT_SINK = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sink_offsets"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. `most_s` bounds a round: a slow contender need not see all events."""

    events: int
    produced: int
    most_s: float
    rounds: int
    latency_s: float


FULL = Scale(events=240_000, produced=600_000, most_s=30.0, rounds=3, latency_s=60.0)
QUICK = Scale(events=160_000, produced=240_000, most_s=8.0, rounds=1, latency_s=15.0)


@dataclass(slots=True)
class Contest:
    """One run: a stack, the topic that all consumers read, and the scale."""

    stack: Stack
    topics: Topics
    prefix: str
    scale: Scale
    downloads: Downloads
    _round: int = 0

    async def limit(self, connections: int) -> Measured:
        """The sink's statement, fed from memory."""
        return await self._consumer(
            f"limit_{connections}",
            lambda order: [module("limit", order)],
            count=COUNT_SINK,
            connections=connections,
        )

    async def till(self, workers: int) -> Measured:
        """Sink workers of Tillstream in one consumer group."""

        async def joined() -> bool:
            return await self.stack.members(sink_app_id(self.prefix)) == workers

        return await self._consumer(
            f"till_{workers}",
            lambda _: [worker("sink")] * workers,
            count=COUNT_SINK,
            is_warm=joined,
        )

    async def flat(self, name: str) -> Measured:
        """A consumer that is not Tillstream, with its flat upsert."""
        return await self._consumer(name, lambda order: [module(name, order)], count=COUNT)

    async def producer(self, name: str) -> Measured:
        """Something that fills a topic of its own."""
        prefix = self._fresh(name)
        made = await self.stack.topics(prefix, partitions=PARTITIONS)
        topic, total = made.events.name, self.scale.produced
        order = Order(self.stack.kafka.bootstrap, topic, prefix, prefix, events=total, path=str(self.stack.home))
        async with running(name, [module(name, order)], log=self.stack.home / f"{prefix}.log") as contenders:
            return await watch(
                lambda: self.stack.end_offsets(topic, PARTITIONS),
                contenders,
                self.stack.services,
                total=total,
                most_s=self.scale.most_s,
            )

    async def directory(self) -> Measured:
        """One large file, dropped into the folder of a connector worker."""
        prefix = self._fresh("directory")
        made = await self.stack.topics(prefix, partitions=PARTITIONS)
        folder = self.stack.home / prefix
        folder.mkdir()
        async with self.stack.database() as (dsn, _):
            await create_connector(dsn, folder, poll_s=POLL_S)
            whole = self.stack.home / f"{prefix}.csv"
            write_csv(whole, records(self.scale.produced))
            environment = self.environment(dsn, prefix)
            log = self.stack.home / f"{prefix}.log"
            async with running("directory", [worker("connector")], log=log, environment=environment) as contenders:
                whole.rename(folder / whole.name)
                return await watch(
                    lambda: self.stack.end_offsets(made.events.name, PARTITIONS),
                    contenders,
                    self.stack.services,
                    total=self.scale.produced,
                    most_s=self.scale.most_s,
                )

    def environment(self, dsn: str, prefix: str) -> dict[str, str]:
        """What a worker of an installation is told."""
        return {
            "TILL_HOME": str(self.stack.home / "workers" / prefix),
            "TILL_KAFKA_BOOTSTRAP": self.stack.kafka.bootstrap,
            "TILL_POSTGRES_DSN": dsn,
            "TILL_TOPIC_PREFIX": prefix,
            "TILL_TOPIC_PARTITIONS": str(PARTITIONS),
            "TILL_LOG_LEVEL": "warning",
        }

    async def _consumer(
        self,
        name: str,
        commands: Callable[[Order], Sequence[Sequence[str]]],
        *,
        count: str,
        connections: int = 1,
        is_warm: Callable[[], Awaitable[bool]] | None = None,
    ) -> Measured:
        group = self._fresh(name)
        async with self.stack.database() as (dsn, looking):
            order = Order(
                self.stack.kafka.bootstrap,
                self.topics.events.name,
                self.prefix,
                group,
                dsn=dsn,
                events=self.scale.events,
                connections=connections,
                path=str(self.stack.home / group),
            )
            log, environment = self.stack.home / f"{group}.log", self.environment(dsn, self.prefix)
            async with running(name, commands(order), log=log, environment=environment) as contenders:
                return await watch(
                    lambda: _counted(looking, count),
                    contenders,
                    self.stack.services,
                    total=self.scale.events,
                    most_s=self.scale.most_s,
                    is_warm=is_warm,
                )

    def _fresh(self, name: str) -> str:
        self._round += 1
        return f"{name.replace('_', '-')}-{self._round}"


async def _counted(looking: Any, statement: str) -> int:
    return int(await looking.fetchval(statement))


def worker(role: str) -> list[str]:
    """The command of one worker."""
    return [sys.executable, "-m", "tillstream", "worker", role]


async def create_connector(dsn: str, folder: Path, *, poll_s: float) -> None:
    """A directory connector that takes what was renamed into the folder at its next look."""
    pool = await open_pool(dsn, size=1)
    configuration = {"directory": str(folder), "poll_s": poll_s, "rest_s": 0}
    await create(pool, name="acme", spec=specs()["directory"], configuration=configuration)
    await close_pool(pool)
