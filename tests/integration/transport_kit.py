"""What the transport's tests share: real worker processes, their journals, and a look at the group from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

ROOT = Path(__file__).parents[2]
_PATIENCE = 4.0  # times a deadline: it tells what never happens
Result = TypeVar("Result")


async def until(condition: Callable[[], Result], *, within_s: float = 20.0, what: str = "") -> Result:
    """The condition's first true result."""
    within_s *= _PATIENCE
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what or condition}")
        await asyncio.sleep(0.03)
    return found


@dataclass(slots=True)
class Worker:
    """One worker process."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def exit_status(self, *, within_s: float = 15.0) -> int:
        await until(lambda: self.process.poll() is not None, within_s=within_s, what=f"{self.name} ends\n{self.log()}")
        return int(self.process.returncode)

    async def stop(self) -> int:
        self.send(signal.SIGTERM)
        return await self.exit_status()

    async def ready(self, *, within_s: float = 20.0) -> None:
        await until(lambda: self._last("ready"), within_s=within_s, what=f"{self.name} is ready\n{self.log()[-3000:]}")

    def owned(self) -> dict[str, list[int]]:
        """Partition → slices in flight, bytes in flight, position, as the worker last said."""
        return self._last("owned") or {}

    def events(self, kind: str) -> list[Any]:
        path = self.folder / f"{self.name}.events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event[kind] for line in lines if kind in (event := json.loads(line))]

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def _last(self, kind: str) -> Any:
        found = self.events(kind)
        return found[-1] if found else None


@dataclass(slots=True)
class Bench:
    """A topic, a group, and the workers of one test."""

    bootstrap: str
    topic: str
    group: str
    folder: Path
    admin: AIOKafkaAdminClient
    producer: AIOKafkaProducer
    reader: AIOKafkaConsumer
    workers: list[Worker] = field(default_factory=list)

    def worker(self, name: str = "worker", **mood: Any) -> Worker:
        """Start a worker. What it needs to end is added to the test's clean-up."""
        app = {"session_timeout_s": 4.0, "heartbeat_s": 0.5, "commit_interval_s": 0.2, **mood.pop("app", {})}
        where = {"bootstrap": self.bootstrap, "topic": self.topic, "group": self.group, "folder": str(self.folder)}
        argument = json.dumps({**where, "name": name, "app": app, **mood})
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.transport_worker", argument], cwd=ROOT, stdout=log, stderr=log
            )
        worker = Worker(name, self.folder, process)
        self.workers.append(worker)
        return worker

    async def produce(self, values: Iterable[bytes | None], *, partitions: int = 1, key: bytes | None = b"k") -> int:
        """Send them round robin; returns how many."""
        sent = []
        for number, value in enumerate(values):
            sent.append(await self.producer.send(self.topic, value, key=key, partition=number % partitions))
        await asyncio.gather(*sent)
        return len(sent)

    @asynccontextmanager
    async def load(self, *, partitions: int = 2) -> AsyncIterator[None]:
        """1 000 records a second or so while the block runs, however long workers take to come up."""

        async def send_on() -> None:
            while not enough.is_set():
                await self.produce([b"x"] * 100, partitions=partitions)
                await asyncio.sleep(0.1)

        enough = asyncio.Event()
        sending = asyncio.create_task(send_on())
        try:
            yield
        finally:
            enough.set()
            await sending

    async def all_done(self, *, within_s: float = 30.0) -> None:
        """Wait until every record of the log had its effect, and the group has committed it."""
        total = sum((await self.ends()).values())
        await until(lambda: len(self.done()) == total, within_s=within_s)
        await self.all_committed(within_s=within_s)

    def applied(self) -> list[tuple[int, int, str]]:
        """Partition, offset and value of every effect, of all workers, duplicates included."""
        lines = [line for path in self.folder.glob("*.journal") for line in path.read_text().splitlines()]
        return [(int(part), int(offset), value) for part, offset, value in (line.split(" ", 2) for line in lines)]

    def done(self) -> set[tuple[int, int]]:
        """Partition and offset of every record that had its effect."""
        return {(partition, offset) for partition, offset, _ in self.applied()}

    async def committed(self) -> dict[int, int]:
        """The group's offsets, as the broker holds them."""
        try:
            found = await self.admin.list_consumer_group_offsets(self.group)
        except GroupCoordinatorNotAvailableError:  # the broker's first group is being made
            return {}
        return {tp.partition: meta.offset for tp, meta in found.items() if tp.topic == self.topic and meta.offset >= 0}

    async def ends(self) -> dict[int, int]:
        """The end of each partition's log, if it ever had a record."""
        partitions = await self.producer.partitions_for(self.topic)
        found = await self.reader.end_offsets([TopicPartition(self.topic, partition) for partition in partitions])
        return {tp.partition: offset for tp, offset in found.items() if offset}

    async def all_committed(self, *, within_s: float = 20.0) -> None:
        """Wait until the group has committed the end of every partition."""
        deadline = time.monotonic() + within_s
        while (committed := await self.committed()) != (ends := await self.ends()):
            assert time.monotonic() < deadline, f"committed {committed}, ends {ends}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def bench(bootstrap: str, topic: str, folder: Path) -> AsyncIterator[Bench]:
    """A bench whose workers are killed in the end, whatever happened."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=1)
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    for client in (admin, producer, reader):
        await client.start()
    made = Bench(bootstrap, topic, f"{topic}-group", folder, admin, producer, reader)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
        await reader.stop()
        await producer.stop()
        await admin.close()
