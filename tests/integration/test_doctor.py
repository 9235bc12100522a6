"""The doctor's look at real servers."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from connectors import directory
from connectors.health import State, Status
from sinks.pool import close_pool, open_pool
from tests import services
from tests.database import migrated
from tests.services import Kafka
from tillstream import doctor
from tillstream.control import connector as connectors
from tillstream.control.report import Reporter
from tillstream.doctor import Finding
from tillstream.embedded.home import Home
from tillstream.embedded.kafka import KafkaOptions
from tillstream.embedded.port import LOOPBACK, PortBook
from tillstream.embedded.supervisor import StackOptions, running


def troubles(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.name: finding.what for finding in findings if not finding.ok}


async def test_a_database_that_loses_commits_is_told():
    """With synchronous_commit off, a killed server forgot payments that it had acknowledged."""
    async with services.own_postgres(synchronous_commit="off", fsync="off") as server:
        found = troubles(await doctor.postgres_server(server.dsn))

    assert set(found) == {"postgres fsync", "postgres synchronous_commit"}


async def test_a_role_for_which_commits_are_not_durable_is_told_too(own_postgres):
    connection = await asyncpg.connect(own_postgres.dsn)
    await connection.execute("ALTER ROLE tillstream SET synchronous_commit = off")
    await connection.close()

    found = troubles(await doctor.postgres_server(own_postgres.dsn))

    assert set(found) == {"postgres synchronous_commit"}


async def test_a_durable_database_is_well(own_postgres):
    findings = await doctor.postgres_server(own_postgres.dsn)

    assert troubles(findings) == {}
    connection = await asyncpg.connect(own_postgres.dsn)
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    assert findings[0].what.startswith(f"PostgreSQL {version.split()[0]} answers")


async def test_a_database_that_does_not_answer_is_told_without_its_password():
    [finding] = await doctor.postgres_server("postgresql://ada:hunter2@127.0.0.1:1/till")

    assert not finding.ok
    assert "127.0.0.1:1" in finding.what
    assert "hunter2" not in repr(finding)


async def test_a_broker_that_makes_topics_by_itself_and_forgets_groups_is_told():
    properties = {"auto.create.topics.enable": "true", "offsets.retention.minutes": "10080"}
    async with services.own_kafka(KafkaOptions(heap_mib=256, properties=properties)) as broker:
        found = troubles(await doctor.kafka_server(broker.bootstrap))

    assert set(found) == {"kafka topics", "kafka offsets"}
    assert "7 days" in found["kafka offsets"]


async def test_the_embedded_broker_is_well(kafka: Kafka):
    found = troubles(await doctor.kafka_server(f"127.0.0.1:1, {kafka.bootstrap}"))

    assert kafka.origin != "embedded" or found == {}


async def test_a_broker_that_does_not_answer_is_told():
    found = troubles(await doctor.kafka_server("127.0.0.1:1"))

    assert "127.0.0.1:1" in found["kafka"]


async def test_a_port_that_another_program_has_taken_is_told_with_the_programs_name(till_home: Path):
    home = Home(till_home)
    home.create()
    home.kafka.mkdir()
    port = PortBook(home.kafka / "ports.json").reserve(["CLIENT"])["CLIENT"]
    with socket.create_server((LOOPBACK, port)):
        found = troubles(doctor.ports(home))

    assert str(port) in found["ports"]
    assert str(os.getpid()) in found["ports"]
    assert troubles(doctor.ports(home)) == {}


async def test_a_whole_examination_asks_the_servers_of_a_running_stack(till_home: Path):
    home = Home(till_home)
    stopped = {finding.name for finding in await doctor.examine(home)}
    elsewhere = {"kafka": "127.0.0.1:1", "postgres_dsn": "postgresql://ada:hunter2@127.0.0.1:1/till"}
    async with running(StackOptions(home, **elsewhere)):
        found = await doctor.examine(home)

    assert {"python", "packages", "home", "disk", "memory", "stack", "java", "jars", "ports"} <= stopped
    assert {"kafka", "postgres"} <= set(troubles(found))
    assert "ports" not in {finding.name for finding in found}
    assert "hunter2" not in repr(found)


async def test_connectors_that_are_not_well_are_warned_of_with_their_cause(database: str):
    await migrated(database)
    pool = await open_pool(database)
    for name, state in (("well", "healthy"), ("ill", "degraded"), ("gone", "down"), ("new", "unknown")):
        made = await connectors.create(pool, name=name, spec=directory.SPEC, configuration={"directory": "/in"})
        await pool.execute("INSERT INTO connector_verdicts VALUES ($1, $2, $2 || ' because')", made, state)
    await connectors.create(pool, name="silent", spec=directory.SPEC, configuration={"directory": "/in"})
    paused = await connectors.create(pool, name="off", spec=directory.SPEC, configuration={"directory": "/in"})
    await pool.execute("INSERT INTO connector_verdicts VALUES ($1, 'paused', 'paused by an operator')", paused)
    await connectors.set_status(pool, paused, connectors.ConnectorStatus.PAUSED)
    refused = await connectors.create(pool, name="refused", spec=directory.SPEC, configuration={"directory": "/in"})
    await pool.execute("INSERT INTO connector_verdicts VALUES ($1, 'paused', '401')", refused)
    await Reporter(refused, "worker").tell(pool, Status(State.PAUSED, ("401",), "", None, 0, 0, {}), [])
    await close_pool(pool)

    findings = await doctor.connectors(database)

    assert [(each.name, each.what, each.ok, each.warning) for each in findings] == [
        ("connector gone", "down: down because", True, True),
        ("connector ill", "degraded: degraded because", True, True),
        ("connector refused", "failed: 401", True, True),
    ]
    assert findings[0].fix == "till connector show gone"
    assert await doctor.connectors("postgresql://127.0.0.1:1/x") == []
