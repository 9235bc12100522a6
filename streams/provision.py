"""Topics are created here, from the one table, and nowhere else: brokers' auto-creation makes topics nobody chose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.errors import BrokerUnavailable, ConfigError
from schemas.topic import TopicSpec

_TOPIC_EXISTS = TopicAlreadyExistsError.errno
_REQUEST_TIMEOUT_MS = 15_000


async def provision(bootstrap: str, specs: Sequence[TopicSpec], *, replication: int = 1) -> list[str]:
    """
    Create what is missing of `specs`; the names created. Safe to run twice and from several processes.

    Raises:
        BrokerUnavailable: retry. ConfigError: a topic is there with another number of partitions, which decides
            keys' order.
    """
    async with _admin(bootstrap) as admin:
        created = await _create(admin, specs, replication)
        await _compare(admin, specs)
        return created


async def missing(bootstrap: str, specs: Sequence[TopicSpec]) -> list[str]:
    """
    The names that `provision` would create; nothing is changed.

    Raises:
        As `provision`.
    """
    async with _admin(bootstrap) as admin:
        lacking = await _missing(admin, specs)
        await _compare(admin, [spec for spec in specs if spec not in lacking])
        return [spec.name for spec in lacking]


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    except KafkaError as exc:
        raise BrokerUnavailable(f"cannot provision topics at {bootstrap}: {type(exc).__name__} {exc}") from exc
    finally:
        await admin.close()


async def _missing(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> list[TopicSpec]:
    existing = set(await admin.list_topics())
    return [spec for spec in specs if spec.name not in existing]


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> list[str]:
    lacking = await _missing(admin, specs)
    if not lacking:
        return []
    response = await admin.create_topics(
        [NewTopic(spec.name, spec.partitions, replication, topic_configs=spec.settings) for spec in lacking]
    )
    created = []
    for name, code, *rest in response.topic_errors:
        if code == 0:
            created.append(name)
        elif code != _TOPIC_EXISTS:
            raise for_code(code)(f"{name}: {rest[0] if rest else ''}")
    return created


async def _compare(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    wanted = {spec.name: spec.partitions for spec in specs}
    if not wanted:
        return  # asked for none, a broker describes all
    for topic in await admin.describe_topics(list(wanted)):
        name, found = topic["topic"], len(topic["partitions"])
        if topic["error_code"] == 0 and found != wanted[name]:
            raise ConfigError(
                f"topic {name} has {found} partitions, the settings say {wanted[name]}",
                hint="set the partition count to what the topic has; a topic's partitions decide where its keys go",
            )
