"""
What a fault test plays on: topics, a database, real `till worker` processes, a generator's truth and the checker.

Nothing here sleeps for a guessed time: every wait is for a condition, and has a deadline that says what did not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families

from schemas.letter import is_text
from schemas.topic import Topics, sink_app_id, topics
from streams.partition import partition_of
from streams.provision import provision
from tests import foreign, services
from tests.database import migrated
from tests.faults import oracle
from tests.faults.truth import REFUSED_SCHEME, Sent, Truth
from tillstream.embedded.process import Command, Process

ROOT = Path(__file__).parents[2]
SESSION_S = 3.0
CONNECTORS_SOON = {
    "kafka_session_timeout_s": "3s",
    "connector_refresh_s": "200ms",
    "connector_heartbeat_s": "500ms",
    "monitor_interval_s": "500ms",
    "monitor_heartbeat_timeout_s": "4s",
}  # settings of connector workers that are succeeded soon
STOP_S = 12.0
LOG_LINES = 120
_LOOK_S = 0.03
_PATIENCE = 4.0  # times a deadline: it tells what never happens; how soon it happens is a benchmark's business
_OBSERVE_S = 0.1
_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'till-sink' AND wait_event_type = 'Lock'
"""


async def until(
    condition: Callable[[], Awaitable[object] | object], *, within_s: float = 30.0, what: str | Callable[[], str] = ""
) -> None:
    """Wait until the condition holds; what did not happen in time is told."""
    within_s *= _PATIENCE
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {within_s:.0f} s: {told or inspect.getsource(condition).strip()}")
        await asyncio.sleep(_LOOK_S)


@dataclass(slots=True)
class Worker:
    """One `till worker` process, head of a session of its own. It cannot outlive the test."""

    name: str
    home: Path
    process: Process

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a frozen one is alive."""
        return self.process.alive

    @property
    def log(self) -> str:
        """Everything it has said."""
        return self.process.command.log.read_text("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone."""
        self.process.signal(number)

    async def ended(self, *, within_s: float = 40.0) -> int:
        """Its exit status, or minus the signal that ended it."""
        await until(lambda: not self.alive, within_s=within_s, what=f"{self.name} ends")
        return self.process.exit_status or 0

    async def stop(self) -> int:
        """Ask it to end, and wait for its exit status."""
        self.send(signal.SIGTERM)
        return await self.ended(within_s=STOP_S)

    async def says(self, text: str, *, times: int = 1, within_s: float = 30.0) -> None:
        """Wait until the log holds the text."""
        await until(lambda: self.log.count(text) >= times, within_s=within_s, what=f"{self.name} says {text!r}")

    async def ready(self, *, within_s: float = 40.0) -> None:
        """Wait until /readyz has nothing to say."""
        await until(
            lambda: self._is({}),
            within_s=within_s,
            what=f"{self.name} is ready (it has {self.log.count(chr(10))} lines)",
        )

    async def waits_for(self, subject: str, text: str = "", *, within_s: float = 30.0) -> None:
        """Wait until /readyz says 503 because of `subject`, in words that hold `text`."""

        async def told() -> bool:
            reasons = await self.reasons() or {}
            return subject in reasons and text in reasons[subject]

        await until(told, within_s=within_s, what=f"{self.name} tells that it waits for {subject} {text!r}")

    async def reasons(self) -> dict[str, str] | None:
        """What /readyz holds against it; None while nobody answers."""
        answer = await self._get("/readyz")
        return None if answer is None else json.loads(answer)["reasons"]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, as /metrics tells it; 0 while nobody answers."""
        return sum(await self._samples(name, labels))

    async def has(self, name: str, **labels: str) -> bool:
        """Whether /metrics tells of it at all."""
        return bool(await self._samples(name, labels))

    async def _samples(self, name: str, labels: Mapping[str, str]) -> list[float]:
        text = (await self._get("/metrics") or b"").decode()
        return [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    async def shows(self, name: str, at_least: float = 1, *, within_s: float = 30.0, **labels: str) -> None:
        """Wait until /metrics says so."""

        async def told() -> bool:
            return await self.metric(name, **labels) >= at_least

        await until(told, within_s=within_s, what=f"{self.name} shows {name} of {at_least} for {labels}")

    async def _is(self, reasons: dict[str, str]) -> bool:
        assert self.alive, f"{self.name} ended with status {self.process.exit_status}"
        return await self.reasons() == reasons

    async def _get(self, path: str) -> bytes | None:
        url = self._url()
        if url is None:
            return None
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
                session.get(url + path) as answer,
            ):
                assert answer.status in {200, 503}, f"{path} answers {answer.status}"
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _url(self) -> str | None:
        for file in (self.home / "run").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(file.read_text())
                if told["pid"] == self.process.pid:
                    return str(told["url"])
        return None


@dataclass(slots=True)
class Stage:
    """One installation on some broker and some database."""

    bootstrap: str
    dsn: str
    home: Path
    prefix: str
    topics: Topics
    settings: Mapping[str, str]
    pool: asyncpg.Pool
    admin: AIOKafkaAdminClient
    producer: AIOKafkaProducer
    workers: list[Worker] = field(default_factory=list)
    looks: int = 0  # of the observer
    observer: asyncio.Task[None] | None = None

    @property
    def group(self) -> str:
        """The sinks' consumer group."""
        return sink_app_id(self.prefix)

    @property
    def events(self) -> str:
        """The name of the events topic."""
        return self.topics.events.name

    def worker(self, name: str, *, failpoints: str = "", role: str = "sink", **settings: str) -> Worker:
        """Start a real worker; `settings` are `TILL_*` variables in lower case and without their prefix."""
        variables = {**self.settings, "failpoints": failpoints, **settings}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TILL_")}
        environment |= {f"TILL_{key.upper()}": value for key, value in variables.items()}
        command = Command(
            (sys.executable, "-m", "tillstream", "worker", role),
            log=self.home / f"{name}.log",
            environment=environment,
            directory=ROOT,
        )
        worker = Worker(name, self.home, Process(command))
        self.workers.append(worker)
        return worker

    async def publish(self, records: Sequence[Sent], *, partition: int | None = None) -> None:
        """Put them on the events topic, in order, each where its key belongs or where told; return when acked."""
        async with asyncio.timeout(60):
            acks = []
            for sent in records:
                chosen = (
                    partition_of(sent.key or b"", self.topics.events.partitions) if partition is None else partition
                )
                if not all(is_text(name) for name, _ in sent.headers):
                    await self.producer.flush()
                    batch = foreign.batch_with(sent.key, sent.value, sent.headers)
                    await foreign.send(self.producer, self.events, chosen, batch)
                    continue
                acks.append(
                    await self.producer.send(
                        self.events, sent.value, key=sent.key, headers=list(sent.headers), partition=chosen
                    )
                )
            await self.producer.flush()
            await asyncio.gather(*acks)

    async def committed(self) -> dict[int, int]:
        """The group's offsets, as the broker holds them; of partitions that it never committed, none."""
        try:
            found = await self.admin.list_consumer_group_offsets(self.group)
        except (KafkaError, OSError):  # the broker is away, or is just making its first group
            return {}
        return {tp.partition: meta.offset for tp, meta in found.items() if tp.topic == self.events and meta.offset >= 0}

    async def stored(self) -> dict[int, int] | None:
        """The sink's next offsets; None while the database is away."""
        query = "SELECT log_partition, next_offset FROM sink_offsets WHERE topic = $1"
        try:
            return dict(await self.pool.fetch(query, self.events))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return None

    async def ends(self) -> dict[int, int]:
        """The end of each partition that has a record."""
        ends: dict[int, int] = {}
        for record in await oracle.records_of(self.bootstrap, self.events):
            ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
        return ends

    async def drained(self, *, within_s: float = 60.0) -> None:
        """Wait until the sink and the group stand at the end of every partition."""
        ends = await self.ends()
        last: dict[str, Any] = {}

        async def at_the_end() -> bool:
            last.update(group=await self.committed(), sink=await self.stored())
            return bool(last["group"] == last["sink"] == ends)

        await until(at_the_end, within_s=within_s, what=lambda: f"the log ends at {ends}, but {last}")

    async def check(self, truth: Truth, *, resent: bool = False) -> None:
        """Drain, and compare everything with the truth."""
        await self.drained()
        await self.judge(truth, resent=resent)

    async def judge(self, truth: Truth, *, resent: bool = False) -> None:
        """Compare everything with the truth, as it is."""
        seen = await oracle.look(
            self.bootstrap, self.events, self.topics.dead_letters.name, await self.committed(), self.pool
        )
        oracle.check(truth, seen, resent=resent)

    async def blocked(self) -> bool:
        """Whether a sink is in the midst of a transaction, and waits for a lock that somebody else holds."""
        return bool(await self.pool.fetchval(_BLOCKED))

    async def letters(self) -> int:
        """How many records the dead-letter topic holds."""
        return len(await oracle.records_of(self.bootstrap, self.topics.dead_letters.name))

    @contextlib.asynccontextmanager
    async def observed(self) -> AsyncIterator[None]:
        """
        Watch from outside while the body runs: the group's offsets never go back, and never pass what the sink holds.
        """
        self.observer = asyncio.create_task(self._watch(), name="observer")
        try:
            yield
        finally:
            self.observer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.observer

    async def looked(self, times: int = 10) -> None:
        """Let the observer look so often: longer than a worker waits between two commits."""
        enough = self.looks + times

        def has_looked() -> bool:
            if self.observer is not None and self.observer.done():
                self.observer.result()
            return self.looks >= enough

        await until(has_looked, what="the observer looks")

    async def _watch(self) -> None:
        before: dict[int, int] = {}
        while True:
            group = await self.committed()  # first: the sink may only move on meanwhile
            sink = await self.stored()
            for partition, offset in group.items():
                assert offset >= before.get(partition, 0), f"the group went back from {before} to {group}"
                if sink is not None:
                    assert offset <= sink.get(partition, 0), f"the group is at {group}, and the sink only at {sink}"
            before.update(group)
            self.looks += 1
            await asyncio.sleep(_OBSERVE_S)


@contextlib.asynccontextmanager
async def open_stage(
    bootstrap: str,
    dsn: str,
    *,
    partitions: int = 2,
    state_partitions: int = 1,
    provisioned: bool = True,
    **settings: str,
) -> AsyncIterator[Stage]:
    """A stage on a database of its own. Its workers are killed in the end; if the test failed, their logs are shown."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    await migrated(dsn)
    with services.open_directory() as home:
        stage = Stage(
            bootstrap,
            dsn,
            home,
            prefix,
            topics(prefix, partitions=partitions, state_partitions=state_partitions),
            {
                "home": str(home),
                "kafka_bootstrap": bootstrap,
                "kafka_session_timeout_s": f"{SESSION_S}s",
                "postgres_dsn": dsn,
                "topic_prefix": prefix,
                "topic_partitions": str(partitions),
                "topic_state_partitions": str(state_partitions),
                "sink_slice_events": "200",
                **settings,
            },
            await asyncpg.create_pool(dsn, min_size=1, max_size=3),
            AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000),
            AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5),
        )
        await refuse_poison(stage.pool)
        try:
            if provisioned:
                await connect(stage)
            yield stage
        finally:
            await _close(stage)


async def refuse_poison(pool: asyncpg.Pool) -> None:
    """Let PostgreSQL refuse a record that everybody before it takes for good."""
    await pool.execute(f"ALTER TABLE payment_events ADD CONSTRAINT refused CHECK (scheme <> '{REFUSED_SCHEME}')")


async def connect(stage: Stage) -> None:
    """Make the stage's topics and connect its clients. For a broker that is not there at first: when it is."""
    await provision(stage.bootstrap, stage.topics.all())
    await stage.admin.start()
    await stage.producer.start()


async def _close(stage: Stage) -> None:
    for worker in stage.workers:
        if worker.alive:
            worker.process.kill()
        tail = "\n".join(worker.log.splitlines()[-LOG_LINES:])
        print(f"--- {worker.name} ended with {worker.process.exit_status}; its last lines:\n{tail}")
    for close in (stage.producer.stop, stage.admin.close):
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            await asyncio.wait_for(close(), 5)
    stage.pool.terminate()
