"""The demonstration's SFTP server and its bank: what is described is what a connector reads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import yaml

from connectors import sftp
from connectors.runner import Runner
from connectors.secret import GivenSecrets
from connectors.testing import CONNECTOR, ManualClock, Memory, run_through
from tillstream.embedded import bank
from tillstream.embedded.sftp import PASSWORD_FILE, SAMPLE_DAY, Account, SftpServer, description

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "sftp" / "axis"
MODULE = [sys.executable, "-m", "tillstream.embedded.sftp"]


def secrets_of(home: Path) -> GivenSecrets:
    folder = home / "secrets"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return GivenSecrets({f"${{file:{path.relative_to(folder)}}}": path.read_text() for path in files})


async def read(configuration: Mapping[str, Any], home: Path) -> Memory:
    memory, clock = Memory(), ManualClock()
    ports = replace(memory.ports(clock), secrets=secrets_of(home), staging=home / "staging")
    config = sftp.SftpConfig.model_validate({**configuration, "rest_s": 0})
    await run_through(Runner(CONNECTOR, sftp.SPEC, config, ports, epoch=1))
    return memory


async def test_a_connector_reads_what_the_bank_drops(tmp_path: Path) -> None:
    async with SftpServer(tmp_path) as server:
        bank.drop(server.upload, SAMPLE_DAY)
        bank.drop(server.upload, date(2025, 1, 11), rows=3)

        memory = await read(server.configuration(), tmp_path)

    counts = memory.last_run.counts
    assert (counts.published, counts.rejected) == (bank.ROWS + 3, 0)
    assert {event.type for event in memory.events} == {"payment.succeeded", "payment.failed", "payment.pending"}


async def test_what_is_made_once_is_kept(tmp_path: Path) -> None:
    async with SftpServer(tmp_path) as server:
        first = server.port, server.host_key, server.place_password()
    async with SftpServer(tmp_path) as server:
        assert (server.port, server.host_key, server.place_password()) == first

    assert (tmp_path / "secrets" / PASSWORD_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "sftp" / "host_key").stat().st_mode & 0o777 == 0o600


async def test_nobody_else_comes_in(tmp_path: Path) -> None:
    async with SftpServer(tmp_path) as server:
        for username, password in (("bank", "bankpass"), ("root", server.place_password()), ("bank", "")):
            with pytest.raises(asyncssh.PermissionDenied):
                await asyncssh.connect(
                    "127.0.0.1",
                    server.port,
                    username=username,
                    password=password,
                    known_hosts=None,
                    config=None,
                    client_keys=None,
                )


async def test_a_connector_of_another_account_leaves_the_homes_own_password_alone(tmp_path: Path) -> None:
    given = {"SFTP_PASS": "of-another-server"}
    async with SftpServer(tmp_path) as server:
        bank.drop(server.upload, SAMPLE_DAY)
        own = server.configuration()
        await description(SftpServer(tmp_path, Account.of({**given, "SFTP_PORT": str(server.port)})))

        memory = await read(own, tmp_path)

    assert memory.last_run.counts.published == bank.ROWS
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await description(SftpServer(tmp_path / "none", Account.of({**given, "SFTP_PORT": "1"})))
    assert not (tmp_path / "none").exists()


async def test_the_names_of_seed_004_are_heeded(tmp_path: Path) -> None:
    async with SftpServer(tmp_path / "other") as other:
        environment = {
            "SFTP_HOST": "localhost",
            "SFTP_PORT": str(other.port),
            "SFTP_USER": "bank",
            "SFTP_PASS": other.place_password(),
        }

        described = await description(SftpServer(tmp_path / "home", Account.of(environment)))

        bank.drop(other.upload, SAMPLE_DAY)
        memory = await read(described["configuration"], tmp_path / "home")

    assert memory.last_run.counts.published == bank.ROWS
    assert environment["SFTP_PASS"] not in json.dumps(described)


def test_the_sample_is_what_the_bank_makes_of_its_day(tmp_path: Path) -> None:
    bank.drop(tmp_path, SAMPLE_DAY)

    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (SAMPLE / "input").iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (SAMPLE / "input" / path.name).read_bytes()
    digest = hashlib.sha256((SAMPLE / "input" / bank.name_of(SAMPLE_DAY)).read_bytes()).hexdigest()
    assert (tmp_path / f"{bank.name_of(SAMPLE_DAY)}.sha256").read_text().split()[0] == digest


def test_the_samples_mapping_is_the_banks() -> None:
    configuration = yaml.safe_load((SAMPLE / "connector.yaml").read_text())["configuration"]

    assert bank.MAPPING.items() <= configuration.items()
    assert configuration["pattern"] == bank.PATTERN


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[dict[str, Any]]:
    """The command `serve`, and the connector that it describes."""
    process = await asyncio.create_subprocess_exec(
        *MODULE, "serve", "--home", str(home), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout
    try:
        for _ in range(3):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield json.loads(Path(line.decode().split()[-1]).read_text())
    finally:
        process.terminate()
        await process.wait()


async def test_the_commands_behind_make_serve_seed_and_describe(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*MODULE, *arguments, "--home", str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        return done.stdout.strip()

    today = await asyncio.to_thread(run, "daily")
    async with serving(tmp_path) as described:
        told = json.loads(await asyncio.to_thread(run, "connector"))
        memory = await read(described["configuration"], tmp_path)

    assert told == described
    assert Path(today).name.startswith("AXIS_RECON_")
    assert memory.last_run.counts.published == 2 * bank.ROWS


def test_make_has_the_targets_of_seed_004_and_docker_the_server() -> None:
    targets = (ROOT / "Makefile").read_text()
    service = yaml.safe_load((ROOT / "compose" / "sftp.yaml").read_text())["services"]["sftp"]

    assert all(f"\n{name}: setup ## " in targets for name in ("connectors-up", "connectors-demo", "connectors-seed"))
    assert service["image"].startswith("atmoz/sftp")
    assert service["ports"] == ["127.0.0.1:${SFTP_PORT:-2222}:22"]
    assert "bankpass" in service["command"][0]
    assert os.path.normpath(f"compose/{service['volumes'][0].partition(':')[0]}") == "compose/sftp/upload"
