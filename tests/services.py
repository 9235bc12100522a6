"""
Where the tests' Kafka and PostgreSQL come from.

In this order: what `TILL_TEST_KAFKA` (host:port) and `TILL_TEST_POSTGRES` (a DSN whose role may create databases) name;
containers, where a Docker daemon answers; the embedded ones. The same tests pass on each.
What a test kills or freezes is always an embedded one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import secrets
import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tillstream.embedded import kafka, postgres
from tillstream.embedded.kafka import EmbeddedKafka, KafkaOptions
from tillstream.embedded.port import LOOPBACK, find_free
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.process import holds

MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_NEEDS_BYTES = 2 * 2**30
KAFKA_IMAGE = "apache/kafka:4.3.1"
POSTGRES_IMAGE = "postgres:18"
DOCKER_S = 2
Result = TypeVar("Result")
CONTAINER_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Kafka:
    """The session's broker; no test kills it. `origin` tells how it came to be."""

    bootstrap: str
    origin: str


@dataclass(frozen=True, slots=True)
class Postgres:
    """The session's database server; no test kills it. `dsn` is its maintenance database."""

    dsn: str
    origin: str

    def dsn_of(self, database: str) -> str:
        """The same server, another database."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))

    async def create_database(self, *, template: str = "template1") -> str:
        """Make a database as a copy of the template, and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected."""
        await self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def running_kafka() -> Iterator[Kafka]:
    """A broker for the session."""
    if named := os.environ.get("TILL_TEST_KAFKA"):
        yield Kafka(named, origin="TILL_TEST_KAFKA")
    elif docker_answers():
        with _kafka_container() as bootstrap:
            yield Kafka(bootstrap, origin="docker")
    else:
        with open_directory() as folder:
            broker = EmbeddedKafka(folder / "kafka")
            with started(broker):
                yield Kafka(broker.bootstrap, origin="embedded")


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A database server for the session, on a memory disk where there is one."""
    if named := os.environ.get("TILL_TEST_POSTGRES"):
        yield Postgres(named, origin="TILL_TEST_POSTGRES")
    elif docker_answers():
        with _postgres_container() as dsn:
            yield Postgres(dsn, origin="docker")
    else:
        with open_directory(in_memory=True) as folder:
            server = EmbeddedPostgres(folder / "postgres")
            with started(server):
                yield Postgres(server.dsn_of("postgres"), origin="embedded")


@contextlib.asynccontextmanager
async def own_kafka(options: KafkaOptions | None = None) -> AsyncIterator[EmbeddedKafka]:
    """An embedded broker that the caller may kill, freeze and start again."""
    with open_directory() as folder:
        broker = EmbeddedKafka(folder / "kafka", options=options or KafkaOptions(heap_mib=256))
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()


@contextlib.asynccontextmanager
async def own_postgres(**settings: str) -> AsyncIterator[EmbeddedPostgres]:
    """An embedded server that the caller may kill, freeze and start again."""
    with open_directory(in_memory=True) as folder:
        server = EmbeddedPostgres(folder / "postgres", settings=settings)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@contextlib.contextmanager
def open_directory(*, in_memory: bool = False) -> Iterator[Path]:
    """
    A fresh directory that other users can pass through, removed afterwards.

    pytest's own are closed to others, and as root PostgreSQL runs under another user.
    """
    path = Path(tempfile.mkdtemp(prefix="till-", dir=memory_disk() if in_memory else None))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def memory_disk() -> Path | None:
    """A disk in memory with room for the tests' databases, if there is one."""
    if not os.access(MEMORY_DISK, os.W_OK):
        return None
    return MEMORY_DISK if shutil.disk_usage(MEMORY_DISK).free > MEMORY_DISK_NEEDS_BYTES else None


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker daemon can be asked for containers."""
    import docker

    # A refused connection leaves its socket to the garbage collector, which warns about it.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        try:
            with contextlib.closing(docker.from_env(timeout=DOCKER_S)) as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False
        finally:
            gc.collect()


@contextlib.contextmanager
def started(service: EmbeddedKafka | EmbeddedPostgres) -> Iterator[None]:
    """A service that runs, for fixtures that outlive one test's event loop."""
    _run(service.start())
    try:
        yield
    finally:
        _run(service.stop())


@contextlib.contextmanager
def _kafka_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    # Clients follow the advertised address, so the port must be known before the start.
    port = find_free()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"CLIENT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://{LOOPBACK}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "CLIENT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    }
    for name, value in environment.items():
        container.with_env(name, value)
    with container:
        bootstrap = f"{LOOPBACK}:{port}"
        _wait(lambda: kafka.answers(bootstrap), what=KAFKA_IMAGE)
        yield bootstrap


@contextlib.contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    password = secrets.token_urlsafe(12)
    container = DockerContainer(POSTGRES_IMAGE, tmpfs={"/var/lib/postgresql": "rw"}).with_exposed_ports(5432)
    container.with_env("POSTGRES_PASSWORD", password)
    container.with_command("postgres -c max_connections=200 -c wal_level=logical")
    with container:
        dsn = f"postgresql://postgres:{password}@{LOOPBACK}:{container.get_exposed_port(5432)}/postgres"
        _wait(lambda: postgres.answers(dsn), what=POSTGRES_IMAGE)
        yield dsn


def _wait(condition: Callable[[], Awaitable[bool]], *, what: str) -> None:
    if not _run(holds(condition, within_s=CONTAINER_START_S)):
        raise RuntimeError(f"{what} did not become ready")


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for it in a loop of its own. `asyncio.run` would take the test's current loop away."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
