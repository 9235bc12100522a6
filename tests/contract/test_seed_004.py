"""Seed 004's `/ops/connectors`, by its own examples. The bank is a real server, on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.example import examples, sent
from tests.database import migrated
from tests.integration import api_kit
from tests.integration.api_kit import Client
from tillstream.control import connector as connectors
from tillstream.embedded import bank
from tillstream.embedded.sftp import SAMPLE_DAY, Account, SftpServer

CREATE, TEST, RUN, RUN_AGAIN, BACKFILL, HEALTH = examples("004")
PASSWORD = "bankpass"
FILE = bank.name_of(SAMPLE_DAY)


@pytest.fixture
async def client(database: str, tmp_path: Path) -> AsyncIterator[Client]:
    """Without the default connector: the seed's first one is `conn_1`."""
    await migrated(database)
    async with api_kit.api(tmp_path / "home", database) as served:
        yield served


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SftpServer]:
    made = SftpServer(tmp_path / "bank", Account(password=PASSWORD))
    bank.drop(made.upload, SAMPLE_DAY)
    async with made:
        yield made


async def _created(client: Client, server: SftpServer) -> dict[str, Any]:
    status, answer = await sent(CREATE.called(client.url, **{"2222": str(server.port)}))
    assert status == 201, answer
    made: dict[str, Any] = answer
    return made


async def test_created_as_the_seed_says_it_is_shown_in_the_seeds_words(client: Client, server: SftpServer) -> None:
    made = await _created(client, server)

    assert {key: made[key] for key in ("id", "name", "type", "provider", "status")} == {
        "id": "conn_1", "name": "AXIS Bank SFTP", "type": "SFTP", "provider": "AXIS", "status": "ACTIVE",
    }  # fmt: skip
    config = made["config"]
    seeds = {
        "host": "localhost", "port": server.port, "username": "bank", "remotePath": "/upload",
        "filePattern": "AXIS_RECON_YYYYMMDD*.csv", "checksumExt": ".sha256", "schedule": "0 19 * * *",
        "timezone": "Asia/Kolkata",
    }  # fmt: skip
    assert {key: config.get(key) for key in seeds} == seeds
    assert config["hostKey"] == server.host_key
    view = await connectors.find(client.world.pool, "conn_1")
    assert (view.kind, view.type, view.source_entity) == ("sftp", "BANK_SFTP", "AXIS")
    assert (view.schedule.cron, view.schedule.timezone, view.schedule.enabled) == ("0 19 * * *", "Asia/Kolkata", True)


async def test_the_password_is_kept_apart_and_never_told_again(client: Client, server: SftpServer) -> None:
    made = await _created(client, server)
    again = (await client.ask("GET", "/ops/connectors/conn_1")).body
    put = await client.ask("PUT", "/ops/connectors/conn_1", json=again)
    assert put.status == 200, put.text
    tested = (await client.ask("POST", "/ops/connectors/conn_1/test")).body

    for told in (made, again, put.body):
        assert told["config"]["password"].startswith("${file:"), told
        assert PASSWORD not in str(told)
    assert tested["success"] is True
    view = await connectors.find(client.world.pool, "conn_1")
    assert PASSWORD not in str(view.configuration)


async def test_the_test_answers_with_the_files_that_are_found(client: Client, server: SftpServer) -> None:
    await _created(client, server)

    status, answer = await sent(TEST.called(client.url))
    history = (await client.ask("GET", "/ops/connectors/conn_1/runs")).body

    assert (status, answer) == (200, {"success": True, "filesFound": [FILE]})
    assert [(each["run_type"], each["status"]) for each in history["runs"]] == [("TEST", "SUCCESS")]


async def test_a_server_that_comes_later_is_pinned_when_it_is_tested(client: Client, server: SftpServer) -> None:
    await server.stop()
    made = await _created(client, server)
    down = (await client.ask("POST", "/ops/connectors/conn_1/test")).body
    await server.start()
    up = (await client.ask("POST", "/ops/connectors/conn_1/test")).body

    assert "hostKey" not in made["config"]
    assert (down["success"], "filesFound" in down, down["run_id"]) == (False, False, 1)
    assert up == {"success": True, "filesFound": [FILE]}


async def test_another_key_than_the_pinned_one_is_refused(client: Client, server: SftpServer, tmp_path: Path) -> None:
    await _created(client, server)
    await server.stop()
    async with SftpServer(tmp_path / "other", Account(port=server.port, password=PASSWORD)):
        answer = (await client.ask("POST", "/ops/connectors/conn_1/test")).body

    assert answer["success"] is False
    assert "the host key of localhost is" in answer["error"]


async def test_in_production_no_key_is_believed_and_this_machine_is_nobodys_bank(
    database: str, tmp_path: Path, server: SftpServer
) -> None:
    await migrated(database)
    async with api_kit.api(tmp_path / "home", database, environment="production") as client:
        made = await _created(client, server)
        answer = (await client.ask("POST", "/ops/connectors/conn_1/test")).body

    assert {"hostKey", "allowNetworks"} & made["config"].keys() == set()
    assert answer["success"] is False
    assert answer["error"] == "localhost leads to 127.0.0.1, which is not a public address"


async def test_run_now_backfill_and_health_as_the_seed_asks_for_them(client: Client, server: SftpServer) -> None:
    await _created(client, server)

    first, again = [await sent(each.called(client.url)) for each in (RUN, RUN_AGAIN)]
    backfill_status, backfill = await sent(BACKFILL.called(client.url))
    _, health = await sent(HEALTH.called(client.url))
    history = (await client.ask("GET", "/ops/connectors/conn_1/history")).body

    assert (first[0], again[0]) == (202, 202)
    assert first[1]["run_id"] < again[1]["run_id"]
    assert (backfill_status, backfill["success"], backfill["days"]) == (202, True, 3)
    assert {key: health[key] for key in ("success", "health_status", "last_run_at", "backlog")} == {
        "success": True, "health_status": "NEVER_RUN", "last_run_at": None, "backlog": 0,
    }  # fmt: skip
    assert [(each["run_type"], each["status"]) for each in history["runs"]] == [
        ("BACKFILL", "RUNNING"), ("MANUAL", "RUNNING"), ("MANUAL", "RUNNING"),
    ]  # fmt: skip


async def test_it_is_listed_changed_paused_and_deleted(client: Client, server: SftpServer) -> None:
    made = await _created(client, server)

    changed = await client.ask(
        "PUT", "/ops/connectors/conn_1", json={**made, "config": {**made["config"], "schedule": "0 20 * * *"}}
    )
    listed = (await client.ask("GET", "/ops/connectors?type=SFTP&search=axis")).body
    paused = (await client.ask("POST", "/ops/connectors/conn_1/pause")).body
    of_status = (await client.ask("GET", "/ops/connectors?status=ACTIVE")).body
    gone = await client.ask("DELETE", "/ops/connectors/conn_1")

    assert changed.body["config"]["schedule"] == "0 20 * * *"
    assert [each["id"] for each in listed["connectors"]] == ["conn_1"]
    assert listed["summary"] == {"total": 1, "active": 1, "paused": 0, "failed": 0}
    assert paused["connector"] == {"id": "1", "name": "AXIS Bank SFTP", "status": "PAUSED"}
    assert of_status["connectors"] == []
    assert (gone.status, gone.body["success"]) == (200, True)
    assert (await client.ask("GET", "/ops/connectors/conn_1")).status == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "name: Field required"),
        ({"name": "x", "type": "FTP", "provider": "A", "config": {}}, "type: must be one of SFTP, API"),
        ({"name": "7", "type": "SFTP", "provider": "AXIS", "config": {"host": "h", "username": "u"}}, "name: must not"),
        (
            {"name": "x", "type": "SFTP", "provider": "AXIS", "config": {"host": "h", "pasword": "hunter22"}},
            "pasword is not an option of `sftp`; did you mean password?",
        ),
    ],
)
async def test_what_is_wrong_is_told_by_field(client: Client, body: dict[str, Any], told: str) -> None:
    answer = await client.ask("POST", "/ops/connectors", json=body)

    assert (answer.status, answer.body["success"]) == (422, False)
    assert told in answer.body["error"]
    assert "hunter22" not in answer.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"config": {"schedule": 5, "timezone": []}},
            "schedule: must be text; got int; timezone: must be text; got list",
        ),
        ({"config": {"scheduleEnabled": "yes"}}, "scheduleEnabled: must be true or false; got str"),
        ({"provider": "HDFC"}, "provider: stays 'AXIS'; make another connector"),
        ({"type": "API"}, "type: stays 'SFTP'; make another connector"),
        ({"status": "TESTING"}, "status: Input should be 'ACTIVE', 'PAUSED' or 'FAILED'"),
    ],
)
async def test_a_change_that_cannot_be_is_refused(
    client: Client, server: SftpServer, body: dict[str, Any], told: str
) -> None:
    await _created(client, server)

    answer = await client.ask("PUT", "/ops/connectors/conn_1", json=body)

    assert (answer.status, answer.body["success"]) == (422, False)
    assert told in answer.body["error"]


async def test_a_status_may_be_changed_with_the_rest(client: Client, server: SftpServer) -> None:
    await _created(client, server)

    answer = await client.ask("PUT", "/ops/connectors/conn_1", json={"status": "PAUSED", "name": "AXIS again"})

    assert (answer.body["status"], answer.body["name"]) == ("PAUSED", "AXIS again")
