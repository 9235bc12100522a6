"""
A real Kafka broker on loopback: one node, broker and controller in one JVM, booted from its Maven artifacts.

It keeps events and consumers' offsets for ever, makes no topic by itself, and listens on loopback alone, in plain text.
"""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from schemas.errors import StackError
from tillstream.embedded import jar
from tillstream.embedded.home import default_cache
from tillstream.embedded.java import Java, find_java
from tillstream.embedded.port import LOOPBACK, PortBook
from tillstream.embedded.process import Command, Process, child_environment
from tillstream.embedded.service import Service

CLIENT = "CLIENT"
CONTROLLER = "CONTROLLER"
NODE_ID = 1
PROBE_S = 2.0
FORMAT_S = 60.0
SETTINGS_S = 10.0
HUNDRED_YEARS_MIN = 52_560_000
# Kafka's default dedupe buffer is 128 MiB of heap, taken at the start; a development broker compacts little.
CLEANER_BUFFER_BYTES = 16 * 2**20
# One coordinator thread serves them; Kafka's default of 50 only makes the first start slow here.
INTERNAL_PARTITIONS = 4
# A killed broker may register again only after its former self's session has run out: with Kafka's default of 9 s
# a restart after kill -9 took 12 s, with 3 s it takes 5 s (measured). It is six heartbeats long, so that a busy machine
# does not fence it.
BROKER_SESSION_MS = 3_000
BROKER_HEARTBEAT_MS = 500
JAVA_WITH_NATIVE_ACCESS_WARNINGS = 24  # JEP 472


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """
    How the broker runs.

    `proxied` names extra listeners and the port each advertises: a client that comes in through such a listener is told
    to go on through the advertised port, where a fault proxy stands. Clients follow what the broker advertises,
    so without this they leave a proxy after the first answer.
    `properties` are broker settings and have the last word.
    """

    heap_mib: int = 512
    min_session_timeout_ms: int = 1_000
    proxied: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


class EmbeddedKafka(Service):
    """The broker of one directory. Ready means: it answers a metadata request and names itself as a live broker."""

    def __init__(
        self,
        directory: Path,
        *,
        log: Path | None = None,
        options: KafkaOptions | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is where TILL_JAVA, TILL_CACHE, TILL_MAVEN_REPOSITORY are read; by default the process's."""
        super().__init__("kafka", directory=directory, log=log)
        self.options = options or KafkaOptions()
        self._environment = os.environ if environment is None else environment
        self._ports = PortBook(directory / "ports.json")

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port; it stays the same over restarts while its port is free."""
        return f"{LOOPBACK}:{self.port()}"

    def port(self, listener: str = CLIENT) -> int:
        """
        The port on which the broker listens for this listener; for a proxied one, where its proxy leads to.

        Raises:
            StackError: the broker was never started.
        """
        try:
            return self._ports.noted()[listener]
        except KeyError:
            raise StackError(f"the broker in {self.directory} has no listener {listener} yet: start it first") from None

    async def prepare(self) -> Command:
        """Verify the jars, write the configuration, format the log directory if it is new."""
        java = find_java(self._environment)
        jars = await self._jars()
        ports = self._ports.reserve([CLIENT, CONTROLLER, *self.options.proxied])
        configuration = self.directory / "server.properties"
        configuration.write_text(_properties(self.directory, ports, self.options))
        java_command = _java_command(java, jars, self.directory, self.options)
        if not (self.directory / "data" / "meta.properties").exists():
            await self._format(java_command, configuration)
        return self._command([*java_command, "kafka.Kafka", str(configuration)])

    async def is_ready(self) -> bool:
        """Whether a metadata request names a live broker."""
        return await answers(self.bootstrap)

    async def _jars(self) -> tuple[Path, ...]:
        """The verified class path. A start that is given up while jars are fetched ends after those under way."""
        interrupted = threading.Event()
        fetch = jar.maven_fetch(self._environment)

        def fetch_unless_interrupted(wanted: jar.Jar, folder: Path) -> Path:
            if interrupted.is_set():
                raise StackError("fetching the jars was interrupted")
            return fetch(wanted, folder)

        cache = default_cache(self._environment) / "jars"
        try:
            return await asyncio.to_thread(jar.class_path, cache, fetch=fetch_unless_interrupted)
        except asyncio.CancelledError:
            interrupted.set()
            raise

    async def _format(self, java_command: list[str], configuration: Path) -> None:
        """Make the log directory Kafka's own way, so that every feature level is the one of this version."""
        # Kafka spells a UUID so; one that begins with a dash, as one in 64 would, is taken for an option.
        cluster = "T" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(configuration), "--ignore-formatted"]
        process = Process(self._command([*java_command, *arguments]))
        if not await process.ended(within_s=FORMAT_S) or process.exit_status != 0:
            process.kill()
            raise StackError(f"Kafka's log directory cannot be formatted:\n{process.log_tail()}")

    def _command(self, argv: list[str]) -> Command:
        return Command(tuple(argv), log=self.log, environment=child_environment({}), directory=self.directory)


async def answers(bootstrap: str, *, within_s: float = PROBE_S) -> bool:
    """Whether the broker at this address answers a metadata request that names at least one live broker."""
    host, _, port = bootstrap.rpartition(":")
    try:
        async with asyncio.timeout(within_s):
            # A bare connection first: the client logs an error for each refused one.
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await writer.wait_closed()
            return await _names_a_broker(bootstrap, within_s)
    except (OSError, TimeoutError, KafkaError):
        return False


async def broker_settings(bootstrap: str) -> dict[str, str]:
    """
    The settings of one broker, as it tells them.

    Raises:
        StackError: no broker answers at this address, or it does not tell its settings.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(SETTINGS_S * 1_000))
    try:
        async with asyncio.timeout(SETTINGS_S):
            await admin.start()
            try:
                cluster = await admin.describe_cluster()
                node = str(cluster["brokers"][0]["node_id"])
                resource = ConfigResource(ConfigResourceType.BROKER, node)
                [response] = await admin.describe_configs([resource])
            finally:
                await admin.close()
    except (OSError, TimeoutError, KafkaError, IndexError, KeyError) as exc:
        raise StackError(f"the broker at {bootstrap} does not tell its settings: {type(exc).__name__}") from exc
    return {str(row[0]): str(row[1]) for row in response.resources[0][4]}


async def _names_a_broker(bootstrap: str, within_s: float) -> bool:
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=int(within_s * 1_000))
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    finally:
        await client.close()


def _java_command(java: Java, jars: tuple[Path, ...], directory: Path, options: KafkaOptions) -> list[str]:
    scratch = directory / "tmp"
    scratch.mkdir(exist_ok=True)
    flags = [
        f"-Xmx{options.heap_mib}m",
        f"-Xms{min(128, options.heap_mib)}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",  # else every start leaves a file in the system's temporary directory
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={scratch}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        # It prints its whole configuration otherwise, at every start and every reconfiguration.
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
    ]
    if java.major >= JAVA_WITH_NATIVE_ACCESS_WARNINGS:
        flags += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return [str(java.program), *flags, "-cp", os.pathsep.join(map(str, jars))]


def _properties(directory: Path, ports: Mapping[str, int], options: KafkaOptions) -> str:
    listeners = [name for name in ports if name != CONTROLLER]
    advertised = {name: options.proxied.get(name, ports[name]) for name in listeners}
    properties = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{LOOPBACK}:{ports[CONTROLLER]}",
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": CLIENT,
        "listeners": _addresses(ports),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ports),
        "log.dirs": directory / "data",
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "log.retention.ms": -1,
        "log.cleaner.dedupe.buffer.size": CLEANER_BUFFER_BYTES,
        "offsets.retention.minutes": HUNDRED_YEARS_MIN,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": INTERNAL_PARTITIONS,
        "broker.session.timeout.ms": BROKER_SESSION_MS,
        "broker.heartbeat.interval.ms": BROKER_HEARTBEAT_MS,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": options.min_session_timeout_ms,
        **options.properties,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items())
