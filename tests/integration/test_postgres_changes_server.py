"""The change stream on a server that is stopped, killed, frozen, overrun, failed over, or encrypts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.changes import pace
from connectors.changes.config import PostgresChangesConfig
from connectors.changes.source import PostgresChangesSource
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.health import State
from connectors.secret import GivenSecrets
from connectors.source import Batch
from connectors.testing import CONNECTOR, Memory, eventually, running
from schemas.errors import ChangesLost, SourceMisconfigured
from tests import services
from tests.integration.changes_kit import SourceDatabase, one_task, read, references, source_database
from tillstream.embedded.postgres import EmbeddedPostgres

PAY = "INSERT INTO payments (reference, amount) VALUES ($1, 1)"
NEVER: dict[str, Any] = {"snapshot": "never"}


def published(memory: Memory) -> list[str]:
    return [event.payment.reference for event in memory.events if event.payment]


@contextlib.asynccontextmanager
async def followed(server: EmbeddedPostgres) -> AsyncIterator[SourceDatabase]:
    async with source_database(server.dsn) as source:
        await source.table()
        await source.publish("payments")
        yield source


async def pay(server: EmbeddedPostgres, reference: str) -> None:
    """On a connection of its own: the server may have been another one a moment ago."""
    import asyncpg

    connection = await asyncpg.connect(server.dsn)
    await connection.execute(PAY, reference)
    await connection.close()


async def test_a_restarted_and_a_killed_server_cost_no_row(own_postgres: EmbeddedPostgres) -> None:
    memory = Memory()
    async with followed(own_postgres) as source:
        async with running(source.runner(memory, **NEVER, max_retries=1_000, error_backoff_max_s=0.2)) as task:
            await pay(own_postgres, "before")
            await eventually(lambda: published(memory) == ["before"])
            await own_postgres.stop()
            await own_postgres.start()
            await pay(own_postgres, "after the restart")
            await eventually(lambda: "after the restart" in published(memory))
            own_postgres.kill()
            await own_postgres.start()
            await pay(own_postgres, "after the crash")

            await eventually(lambda: "after the crash" in published(memory))
            assert not task.done()
        assert memory.event_ids == {event.id for event in memory.events}
        assert list(dict.fromkeys(published(memory))) == ["before", "after the restart", "after the crash"]
        await source.reconnect()


async def test_a_frozen_server_shows_and_is_read_on_when_it_wakes(own_postgres: EmbeddedPostgres) -> None:
    memory = Memory()
    async with followed(own_postgres) as source:
        runner = source.runner(memory, **NEVER, answer_s=0.5, connect_s=0.5, max_retries=1_000, idle_s=60)
        async with running(runner):
            await pay(own_postgres, "before")
            await eventually(lambda: published(memory) == ["before"])
            own_postgres.freeze()
            try:
                await eventually(lambda: runner.state is State.DEGRADED)
            finally:
                own_postgres.thaw()
            await pay(own_postgres, "after")

            await eventually(lambda: published(memory) == ["before", "after"])
            await eventually(lambda: runner.state is State.RUNNING)


async def test_a_slot_that_was_overrun_stops_it() -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    async with services.own_postgres(**settings) as server, followed(server) as source:
        subject = source.source(**NEVER)
        await source.execute(PAY, "first")
        cursor = (await read(subject))[-1].cursor
        for _ in range(8):
            await source.execute("SELECT pg_switch_wal()")
            await source.execute(PAY, "missed")
        await source.execute("CHECKPOINT")
        assert await source.value("SELECT wal_status FROM pg_replication_slots") == "lost"

        with pytest.raises(ChangesLost, match="lost") as told:
            await read(subject, cursor)

        assert "generation" in told.value.hint
        assert [step.name for step in await subject.check() if not step.ok] == ["slot"]
        await subject.close()


async def test_another_timeline_stops_it(own_postgres: EmbeddedPostgres) -> None:
    """As after a failover: what was read last may never have happened on this server."""
    async with followed(own_postgres) as source:
        first = source.source(**NEVER)
        await source.execute(PAY, "first")
        cursor = (await read(first))[-1].cursor
        await first.close()
        await own_postgres.stop()
        await fail_over(own_postgres)
        await source.reconnect()
        second = source.source(**NEVER)

        with pytest.raises(ChangesLost, match="/2/"):
            await read(second, cursor)
        await second.close()


async def fail_over(server: EmbeddedPostgres) -> None:
    """Let the server come up at the end of its log as a promoted standby does: on a timeline of its own."""
    (server.data / "recovery.signal").touch()
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    await server.start()


async def test_check_names_what_the_server_lacks() -> None:
    async with services.own_postgres(wal_level="replica") as server, source_database(server.dsn) as source:
        await source.table()
        await source.execute("CREATE PUBLICATION till FOR TABLE payments")
        subject = source.source()

        failed = {step.name: step for step in await subject.check() if not step.ok}

        assert "ALTER SYSTEM SET wal_level = logical" in failed["wal_level"].hint
        assert set(failed) == {"wal_level", "slot"}
        await subject.close()


# --- encryption ---


def certificates(name: str) -> tuple[bytes, bytes, bytes]:
    """An authority, and what it signed for a server of this name, with its key: PEM."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in ("authority", name)]
    now = datetime.now(UTC)
    made = []
    for number in range(2):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
        )
        if number:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made[0].public_bytes(serialization.Encoding.PEM), made[1].public_bytes(serialization.Encoding.PEM), key


@contextlib.asynccontextmanager
async def encrypted(source: SourceDatabase, certificate: bytes, key: bytes, folder: Path) -> AsyncIterator[int]:
    """The port of something that speaks TLS as PostgreSQL does, and hands on what it decrypts."""
    (folder / "server.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            assert struct.unpack(">ii", await reader.readexactly(8)) == (8, 80_877_103)  # SSLRequest
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
            inner_reader, inner_writer = await asyncio.open_connection(source.host, source.port)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def source(database: str) -> AsyncIterator[SourceDatabase]:
    async with source_database(database) as made:
        await made.table()
        await made.publish("payments")
        await made.execute(PAY, "old")
        yield made


@pytest.mark.parametrize(
    ("mode", "name", "known", "works"),
    [
        ("verify-full", "localhost", True, True),
        ("verify-full", "other.example", True, False),
        ("verify-full", "localhost", False, False),
        ("verify-ca", "other.example", True, True),
        ("verify-ca", "localhost", False, False),
        ("require", "other.example", False, True),
    ],
)
async def test_the_name_in_the_certificate_is_the_hosts_although_an_address_is_connected_to(
    source: SourceDatabase, tmp_path: Path, mode: str, name: str, known: bool, works: bool
) -> None:
    authority, certificate, key = certificates(name)
    stranger, _, _ = certificates(name)
    secrets = {"${env:CA}": (authority if known else stranger).decode()}
    async with encrypted(source, certificate, key, tmp_path) as port:
        subject = source.source(
            host="localhost",
            port=port,
            sslmode=mode,
            ca="${env:CA}",
            allow_networks=["127.0.0.0/8", "::1/128"],
            secrets=secrets,
        )
        if works:
            assert set(references(await read(subject))) == {"old"}
        else:
            with pytest.raises(SourceMisconfigured, match="certificate"):
                await one_task(subject)
        await subject.close()


@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_production_sends_a_password_to_nobody_who_proves_nothing(mode: str) -> None:
    away = {"host": "192.0.2.1", "allow_networks": ["192.0.2.0/24"], "password": "${env:P}"}
    given = {**away, "database": "d", "user": "u", "tables": ["public.t"], "sslmode": mode}
    context = SourceContext(
        CONNECTOR.id, CONNECTOR.name, SystemClock(), secrets=GivenSecrets({"${env:P}": "secret"}), production=True
    )
    subject = PostgresChangesSource(PostgresChangesConfig.model_validate(given), context)

    with pytest.raises(SourceMisconfigured, match=f"sslmode={mode}.*production refuses") as told:
        await one_task(subject)

    assert "verify-full" in told.value.hint


async def test_production_reads_a_database_of_its_own_machine_without_encryption(source: SourceDatabase) -> None:
    context = SourceContext(
        CONNECTOR.id, CONNECTOR.name, SystemClock(), secrets=GivenSecrets(source.secrets), production=True
    )
    subject = PostgresChangesSource(PostgresChangesConfig.model_validate(source.config()), context)

    assert await one_task(subject)
    await subject.close()


async def test_a_server_without_encryption_is_told_apart_from_one_that_is_away(source: SourceDatabase) -> None:
    subject = source.source(sslmode="require")

    with pytest.raises(SourceMisconfigured, match="offers no encryption"):
        await one_task(subject)


async def test_a_slow_server_is_not_taken_for_a_dead_one(
    source: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding a large transaction takes its time; meanwhile the runner hears that the source lives."""
    monkeypatch.setattr(pace.arrived, "__kwdefaults__", {"within_s": 0.02})
    lock = await source.connect()
    transaction = lock.transaction()
    await transaction.start()
    subject = source.source()
    batches: list[Batch] = []

    async def read_all() -> None:
        async for batch in subject.read(await one_task(subject), None):
            batches.append(batch)
            if len(batches) == 1:
                await lock.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")

    reading = asyncio.create_task(read_all())
    await eventually(lambda: len(batches) > 7)
    assert references(batches) == []
    await transaction.rollback()
    await reading

    assert set(references(batches)) == {"old"}
    await subject.close()
