"""The embedded broker under what happens to brokers."""

from __future__ import annotations

import gc
import http.server
import os
import shutil
import socket
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient

from schemas.errors import StackBusy, StackError
from tests import services
from tillstream.embedded.home import default_cache
from tillstream.embedded.jar import Jar, class_path, is_intact, locked_jars, maven_fetch
from tillstream.embedded.kafka import CLIENT, EmbeddedKafka, KafkaOptions, answers
from tillstream.embedded.port import LOOPBACK, find_free
from tillstream.embedded.process import still_runs

PROBE_S = 1.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with services.open_directory() as path:
        yield path


@pytest.fixture(scope="module")
def shared_kafka() -> Iterator[EmbeddedKafka]:
    """For the tests after which the broker is as it was."""
    with services.open_directory() as path:
        broker = EmbeddedKafka(path / "kafka", options=KafkaOptions(heap_mib=256))
        with services.started(broker):
            yield broker


async def send(broker: EmbeddedKafka, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def create(broker: EmbeddedKafka, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()


async def read_all(broker: EmbeddedKafka, topic: str, *, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_what_a_killed_broker_acked_is_there_after_its_restart_on_the_same_port(own_kafka: EmbeddedKafka):
    await create(own_kafka, "events")
    await send(own_kafka, "events", b"before")
    bootstrap, former = own_kafka.bootstrap, psutil.Process(own_kafka.process.pid)

    own_kafka.kill()
    assert not still_runs(former)
    assert not await answers(bootstrap, within_s=PROBE_S)
    await own_kafka.start()
    await send(own_kafka, "events", b"after")

    assert own_kafka.bootstrap == bootstrap
    assert await read_all(own_kafka, "events", count=2) == [b"before", b"after"]


async def test_a_stopped_broker_keeps_its_topics_and_gives_way_when_its_port_is_taken(own_kafka: EmbeddedKafka):
    await create(own_kafka, "events")
    await send(own_kafka, "events", b"kept")
    former = own_kafka.port()
    await own_kafka.stop()

    with socket.create_server((LOOPBACK, former)):
        await own_kafka.start()

    assert own_kafka.port() != former
    assert await read_all(own_kafka, "events", count=1) == [b"kept"]


async def test_a_frozen_broker_answers_nobody_until_it_is_thawed(shared_kafka: EmbeddedKafka):
    shared_kafka.freeze()
    frozen = await answers(shared_kafka.bootstrap, within_s=PROBE_S)
    shared_kafka.thaw()

    assert not frozen
    assert await answers(shared_kafka.bootstrap, within_s=services.CONTAINER_START_S)


async def test_the_broker_makes_no_topic_by_itself_and_forgets_no_offset(shared_kafka: EmbeddedKafka):
    admin = AIOKafkaAdminClient(bootstrap_servers=shared_kafka.bootstrap)
    await admin.start()

    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    config = {row[0]: row[1] for row in response.resources[0][4]}
    await admin.close()

    assert config["auto.create.topics.enable"] == "false"
    assert int(config["offsets.retention.minutes"]) > 60 * 24 * 365 * 10
    assert config["log.retention.ms"] == "-1"
    assert config["group.initial.rebalance.delay.ms"] == "0"
    assert int(config["group.min.session.timeout.ms"]) <= 1_000
    assert all(address.startswith("127.0.0.1:") for address in listening(shared_kafka.process.pid))


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {
        f"{c.laddr.ip.removeprefix('::ffff:')}:{c.laddr.port}" for c in connections if c.status == psutil.CONN_LISTEN
    }


async def test_a_client_that_comes_in_by_a_proxied_listener_is_sent_on_through_the_proxy():
    """Otherwise it leaves the proxy after the first answer, and the proxy's faults reach nobody."""
    advertised = find_free()
    async with services.own_kafka(KafkaOptions(heap_mib=256, proxied={"W1": advertised})) as broker:
        client = AIOKafkaClient(bootstrap_servers=f"{LOOPBACK}:{broker.port('W1')}")
        await client.bootstrap()
        brokers = client.cluster.brokers()
        await client.close()

        assert {node.port for node in brokers} == {advertised}
        assert broker.port("W1") not in {advertised, broker.port(CLIENT)}


async def test_a_second_broker_in_the_same_directory_is_refused_and_told_by_whom(shared_kafka: EmbeddedKafka):
    with pytest.raises(StackBusy, match="is already run by process"):
        await EmbeddedKafka(shared_kafka.directory).start()

    assert await shared_kafka.is_ready()


async def test_a_broker_that_cannot_start_tells_its_last_words_and_leaves_nothing(folder: Path):
    broker = EmbeddedKafka(folder / "kafka", options=KafkaOptions(properties={"log.segment.bytes": "1"}))

    with pytest.raises(StackError, match=r"log\.segment\.bytes"):
        await broker.start()

    assert not broker.alive
    assert not broker.pid


async def test_an_altered_jar_in_the_cache_is_replaced_before_a_broker_runs_it(folder: Path):
    """The real lock and the real jars; one of them with one byte flipped."""
    jars = locked_jars()
    cache = default_cache(os.environ) / "jars"
    class_path(cache, fetch=maven_fetch(os.environ))
    for jar in jars:
        (folder / jar.file_name).symlink_to(cache / jar.file_name)
    altered = folder / jars[0].file_name
    altered.unlink()
    content = bytearray((cache / jars[0].file_name).read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    fetched: list[str] = []

    def copy(jar: Jar, target: Path) -> Path:
        fetched.append(jar.coordinates)
        return Path(shutil.copy(cache / jar.file_name, target))

    paths = class_path(folder, fetch=copy)

    assert fetched == [jars[0].coordinates]
    assert all(is_intact(path, jar) for path, jar in zip(paths, jars, strict=True))


@pytest.fixture
def mirror(folder: Path) -> Iterator[tuple[str, Path]]:
    """A Maven repository on loopback, as companies have one, with the smallest jar of the lock."""
    jar = smallest()
    group, artifact, version = jar.coordinates.split(":")
    root = folder / "repository"
    place = root / group.replace(".", "/") / artifact / version
    place.mkdir(parents=True)
    cache = default_cache(os.environ) / "jars"
    [path] = class_path(cache, fetch=maven_fetch(os.environ), jars=(jar,))
    shutil.copy(path, place / f"{artifact}-{version}.jar")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_address[1]}", place / f"{artifact}-{version}.jar"
        server.shutdown()
        thread.join()
    # jgo leaves a response that it could not use to the garbage collector, which warns about its socket.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def smallest() -> Jar:
    return min(locked_jars(), key=lambda jar: jar.size_bytes)


def test_a_jar_comes_from_the_mirror_that_is_named(mirror: tuple[str, Path], folder: Path):
    address, _ = mirror

    [path] = class_path(folder / "c", fetch=maven_fetch({"TILL_MAVEN_REPOSITORY": address}), jars=(smallest(),))

    assert is_intact(path, smallest())


def test_a_mirror_that_delivers_other_bytes_is_refused(mirror: tuple[str, Path], folder: Path):
    address, path = mirror
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(StackError, match=r"is not the file that jars\.lock pins"):
        class_path(folder / "c", fetch=maven_fetch({"TILL_MAVEN_REPOSITORY": address}), jars=(smallest(),))

    assert list((folder / "c").iterdir()) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "mirror"])
def test_a_mirror_that_does_not_have_the_jar_or_does_not_answer_is_told_with_a_way_out(
    mirror: tuple[str, Path], folder: Path, address: str
):
    if address == "mirror":
        address, path = mirror
        path.unlink()

    with pytest.raises(StackError, match="cannot be fetched") as caught:
        class_path(folder / "c", fetch=maven_fetch({"TILL_MAVEN_REPOSITORY": address}), jars=(smallest(),))

    assert "TILL_MAVEN_REPOSITORY" in caught.value.hint
