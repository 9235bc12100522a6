"""
The walk-throughs of the seeds, run as they stand in samples/walkthroughs against a real stack: a broker, a database, a
worker of each role, an SFTP server and a gateway. One stack for all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.example import examples
from tests.faults.stage import CONNECTORS_SOON, Stage, Worker, open_stage
from tests.services import Kafka
from tillstream.embedded import bank
from tillstream.embedded.gateway import KEY_SECRET, Gateway
from tillstream.embedded.gateway_server import STOCK, StockedBook
from tillstream.embedded.sftp import SAMPLE_DAY, Account, SftpServer

SCRIPTS = Path(__file__).parents[2] / "samples" / "walkthroughs"
PASSWORD = "bankpass"
_SCRIPT_S = 240  # a deadline: it tells what never happens


async def test_every_walk_through_runs_as_it_stands_there(kafka: Kafka, database: str, tmp_path: Path) -> None:
    async with open_stage(kafka.bootstrap, database, http_api_port="0", **CONNECTORS_SOON) as stage:
        workers = [stage.worker(role, role=role) for role in ("sink", "connector", "monitor", "api")]
        await asyncio.gather(*(worker.ready() for worker in workers))
        url = _url(stage, workers[-1])

        await _directory(stage, url, tmp_path / "payments")
        await asyncio.gather(_gateway(stage, url, tmp_path / "gateway"), _bank(stage, url, tmp_path / "bank"))

        for worker in workers:
            assert PASSWORD not in worker.log
            assert KEY_SECRET not in worker.log
        _logged_as_the_seed_does(workers[1].log)


async def _directory(stage: Stage, url: str, folder: Path) -> None:
    folder.mkdir()

    said = await _walked("000-install-a-directory.sh", url, str(folder))

    *_, payments = examples("000")
    assert _answers(said)[-1] == payments.answer
    tasks = next(each for each in _answers(said) if isinstance(each, list) and len(each) > 1)
    assert [(each["descriptor"], each["id"]) for each in tasks] == [
        ("directory", "ImRpcmVjdG9yeSI="), ("001.json", "IjAwMS5qc29uIg=="),
    ]  # fmt: skip
    assert await stage.pool.fetchval("SELECT count(*) FROM payments WHERE provider = 'example'") == 1


async def _gateway(stage: Stage, url: str, folder: Path) -> None:
    async with Gateway(StockedBook.of(folder)) as gateway:
        said = await _walked("003-gateway.sh", url, f"{gateway.url}/v1")

    created, tested, run, _, paused, refused, resumed, history, listed = _answers(said)
    number = created["connector"]["id"]
    assert created["connector"]["connection_config"]["password"].startswith("${file:")
    assert KEY_SECRET not in said
    assert (tested["success"], refused["status"], refused["success"]) == (True, 409, False)
    assert (paused["connector"]["status"], resumed["connector"]["status"]) == ("PAUSED", "ACTIVE")
    assert [(each["id"], each["run_type"], each["status"], each["triggered_by"]) for each in history["runs"]] == [
        (str(run["run_id"]), "MANUAL", "SUCCESS", "USER_123"), (str(tested["run_id"]), "TEST", "SUCCESS", "USER_123"),
    ]  # fmt: skip
    assert history["runs"][0]["records_processed"] == STOCK + 1
    (found,) = listed["connectors"]
    assert (found["id"], found["success_rate"], found["total_runs"]) == (number, 100, 2)
    assert await stage.pool.fetchval("SELECT count(*) FROM payments WHERE provider = 'RAZORPAY'") == STOCK


async def _bank(stage: Stage, url: str, home: Path) -> None:
    server = SftpServer(home, Account(password=PASSWORD))
    bank.drop(server.upload, SAMPLE_DAY)
    async with server:
        said = await _walked("004-bank-sftp.sh", url, "localhost", str(server.port))

    created, tested, *asked_and_ended, health = _answers(said)
    runs = [each["runs"][0] for each in asked_and_ended if "runs" in each]
    assert created["config"]["password"].startswith("${file:")
    assert PASSWORD not in said
    assert tested == {"success": True, "filesFound": [bank.name_of(SAMPLE_DAY)]}
    counted = ("run_type", "status", "records_processed", "files_skipped")
    assert [tuple(each[key] for key in counted) for each in runs] == [
        ("MANUAL", "SUCCESS", bank.ROWS, 0), ("MANUAL", "SUCCESS", 0, 1), ("BACKFILL", "SUCCESS", 0, 1),
    ]  # fmt: skip
    assert (runs[0]["files_total"], runs[0]["files_normalized"]) == (1, 1)
    assert (health["health_status"], health["backlog"], health["status"]) == ("HEALTHY", 0, "ACTIVE")
    assert health["last_run_at"]
    assert await stage.pool.fetchval("SELECT count(*) FROM payments WHERE provider = 'AXIS'") == bank.ROWS


async def _walked(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a script says; it ends well."""
    process = await asyncio.create_subprocess_exec(
        str(SCRIPTS / script), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SCRIPT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = out.decode()
    print(f"--- {script}\n{said}")  # shown where the test fails
    assert process.returncode == 0, said
    return said


def _answers(said: str) -> list[Any]:
    return [json.loads(line) for line in said.splitlines() if line[:1] in ("{", "[")]


def _url(stage: Stage, worker: Worker) -> str:
    told = json.loads((stage.home / "run" / "api.json").read_text())
    assert told["pid"] == worker.process.pid
    return str(told["url"])


def _logged_as_the_seed_does(log: str) -> None:
    lines = [line for line in log.splitlines() if "provider=example" in line]
    in_order = (
        'msg="Install connector example" component=connector-manager config="{directory:',
        'msg="Starting task..." component=scheduler provider=example task-id="ImRpcmVjdG9yeSI="',
        'msg="Connector installed" component=connector-manager',
    )
    at = [next(number for number, line in enumerate(lines) if told in line) for told in in_order]
    assert at == sorted(at), lines[:10]
    for line in (
        'msg="Restoring state" component=connector-manager provider=directory',
        'msg="Not installed, skip" component=connector-manager provider=directory',
        'msg="Task terminated with success" component=scheduler',
        'msg="Uninstalling connector" component=connector-manager provider=example',
        'msg="Connector uninstalled" component=connector-manager provider=example',
    ):
        assert line in log, line
