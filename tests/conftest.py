"""Fixtures that any test may ask for; what is behind them is told in `tests/services.py`."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests import services
from tests.integration import api_kit
from tests.integration.api_kit import Client
from tests.services import Kafka, Postgres
from tillstream.embedded.kafka import EmbeddedKafka
from tillstream.embedded.postgres import EmbeddedPostgres

# Started in the background, tests inherit an ignored Ctrl-C, and would pass it on to processes that they send one to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """The session's broker (`.bootstrap`). Topics are shared: use `topic_prefix` or `new_topic`."""
    with services.running_kafka() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's database server; most tests want `database`."""
    with services.running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    """The DSN of an empty database of the test's own."""
    name = await postgres.create_database()
    yield postgres.dsn_of(name)
    await postgres.drop_database(name)


@pytest.fixture
async def own_kafka() -> AsyncIterator[EmbeddedKafka]:
    """A broker of the test's own, to be killed, frozen and started again. Costs about 3 s."""
    async with services.own_kafka() as broker:
        yield broker


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A database server of the test's own, to be killed, frozen and started again. Costs about 0.5 s."""
    async with services.own_postgres() as server:
        yield server


@pytest.fixture
def topic_prefix() -> str:
    """What the test's topics, groups and app ids begin with, so that tests on one broker do not meet."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
async def new_topic(kafka: Kafka, topic_prefix: str) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await new_topic("events", partitions=4)` makes a topic of the test's own and returns its full name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()

    async def create(name: str, *, partitions: int = 1, **config: str) -> str:
        full = topic_prefix + name
        await admin.create_topics([NewTopic(full, partitions, 1, topic_configs=config)])
        return full

    yield create
    await admin.close()


@pytest.fixture
def till_home() -> Iterator[Path]:
    """A fresh TILL_HOME that PostgreSQL's user can reach, also when the tests run as root."""
    with services.open_directory() as folder:
        yield folder / "home"


@pytest.fixture
async def api(database: str, tmp_path: Path) -> AsyncIterator[Client]:
    """The HTTP API on a socket, over a database with seed 003's default connector; Kafka is away."""
    async with api_kit.api(tmp_path / "home", database, fresh=False) as client:
        yield client
