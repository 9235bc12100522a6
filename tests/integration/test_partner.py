"""The partners of the demonstration, by themselves: real servers, killed and looked at from outside."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import asyncssh
import psutil
import pytest

from connectors.registry import specs
from tillstream.control.document import documents
from tillstream.embedded.home import Home
from tillstream.embedded.port import LOOPBACK
from tillstream.embedded.postgres import EmbeddedPostgres
from tillstream.embedded.process import holds, still_runs
from tillstream.embedded.source_database import STOCK, SourceDatabase, event
from tillstream.embedded.supervisor import StackOptions, Supervisor, running
from tillstream.partner import Bank, PaymentGateway, drop_secrets, link_secrets

SOON_S = 30.0
DESCRIBED = Path(__file__).parents[2] / "samples" / "demo"


@pytest.fixture
def place(till_home: Path) -> Home:
    return Home(till_home / "demo" / "demo")


@contextlib.asynccontextmanager
async def opened(place: Home) -> AsyncIterator[tuple[Supervisor, Bank, PaymentGateway]]:
    secrets = link_secrets(place, place.root / "kept", "demo/demo")
    bank, gateway = Bank(place, secrets), PaymentGateway(place, secrets)
    await bank.open()
    await gateway.open()
    options = StackOptions(place, services=(bank.service, gateway.service), kafka="", postgres_dsn="")
    async with running(options) as supervisor:
        yield supervisor, bank, gateway


async def files_of(bank: Bank, password: str) -> list[str]:
    where = bank.options()
    client = asyncssh.connect(
        where["host"],
        where["port"],
        username=where["username"],
        password=password,
        known_hosts=None,
        config=None,
    )
    async with client as connection, connection.start_sftp_client() as sftp:
        return sorted(await sftp.listdir("/upload"))


async def test_a_killed_server_is_back_on_its_port_with_its_key_its_password_and_its_files(place: Home) -> None:
    async with opened(place) as (supervisor, bank, gateway):
        before = (bank.options(), gateway.options())
        password = (place.root / "kept/demo/demo/sftp/password").read_text()
        names = [name for name in await files_of(bank, password) if not name.startswith(".")]
        for pid in [child.pid for child in supervisor.state.children if child.pid]:
            psutil.Process(pid).kill()

        assert await holds(lambda: all(each.restarts == 1 for each in supervisor.state.children), within_s=SOON_S)
        assert await holds(lambda: answers(bank.options()["port"]), within_s=SOON_S)
        assert (bank.options(), gateway.options()) == before
        assert [name for name in await files_of(bank, password) if not name.startswith(".")] == names
        assert names == ["AXIS_RECON_20250110.csv", "AXIS_RECON_20250110.csv.sha256"]


async def test_secrets_lie_with_the_workers_for_their_owner_alone_and_nothing_is_left_of_servers(place: Home) -> None:
    async with opened(place) as (supervisor, _, gateway):
        children = [psutil.Process(child.pid) for child in supervisor.state.children]
        kept = list((place.root / "kept").rglob("*"))
        assert {path.name for path in kept if path.is_file()} == {"password", "key_id", "key_secret"}
        assert [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
        told = " ".join(path.read_text() for path in place.logs.iterdir())
        secrets = [path.read_text() for path in kept if path.name in ("password", "key_secret")]
        told += " ".join(word for child in children for word in child.cmdline())
        assert [secret for secret in secrets if secret in told] == []
        assert "gateway-demo-secret" not in str(gateway.options())

    drop_secrets(place)
    assert not [child for child in children if still_runs(child)]
    assert not any(path.is_file() for path in (place.root / "kept").rglob("*"))
    assert not (place.root / "secrets").is_symlink()


async def test_the_bank_has_a_file_more_now_and_then_and_says_how_many_rows_that_makes(place: Home) -> None:
    bank = Bank(place, link_secrets(place, place.root / "kept", "demo/demo"))
    await bank.open()
    first = bank.records
    for second in range(1, 41):
        await bank.go_on(second)

    assert (first, bank.records) == (10, 30)
    files = sorted(path.name for path in (place.root / "sftp/files/upload").glob("*.csv"))
    assert files == [f"AXIS_RECON_202501{day}.csv" for day in (10, 11, 12)]


async def test_a_source_database_is_read_by_its_reader_alone_and_leaves_no_slot_behind(
    own_postgres: EmbeddedPostgres,
) -> None:
    shop = SourceDatabase(own_postgres, "demo_shop")
    password = await shop.create()
    await shop.write(0, STOCK)
    options = shop.configuration("${file:shop/password}")
    reader = await asyncpg.connect(
        host=LOOPBACK, port=options["port"], user=options["user"], password=password, database=options["database"]
    )
    with contextlib.suppress(asyncpg.PostgresConnectionError):
        await reader.execute("SELECT pg_create_logical_replication_slot('demo_shop', 'pgoutput')")
        rows = await reader.fetch("SELECT entity_id, event_type FROM events ORDER BY id")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("DELETE FROM events")
    assert [tuple(row) for row in rows] == [(event(n).entity_id, event(n).event_type) for n in range(STOCK)]

    await shop.drop()
    await shop.drop()

    assert reader.is_closed()
    owner = await asyncpg.connect(own_postgres.dsn)
    assert await owner.fetchval("SELECT count(*) FROM pg_replication_slots") == 0
    assert await owner.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'demo_shop'") == 0
    assert await owner.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", options["user"]) == 0
    await owner.close()
    assert password not in own_postgres.log.read_text()


@pytest.mark.parametrize("file", sorted(DESCRIBED.glob("*.yaml")), ids=lambda file: file.stem)
def test_what_the_demonstration_connects_is_described_as_somebody_could_apply_it(file: Path) -> None:
    (described,) = documents(file.read_text(encoding="utf-8"), place=file.name)

    specs()[described.kind].config.model_validate(described.configuration)
    assert described.kind == file.stem


def test_every_kind_of_source_is_in_the_demonstration() -> None:
    assert {file.stem for file in DESCRIBED.glob("*.yaml")} == set(specs())


async def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.close()
        return True
    return False
