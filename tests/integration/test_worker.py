"""Worker processes, as production starts and ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from sinks.pool import close_pool, open_pool
from tests.services import Kafka
from tillstream.config import Role, load
from tillstream.control import ledger
from tillstream.embedded.kafka import EmbeddedKafka
from tillstream.wiring import prepare, unlisted_of

NOWHERE = {"TILL_KAFKA_BOOTSTRAP": "127.0.0.1:1", "TILL_POSTGRES_DSN": "postgresql://till:hunter22@127.0.0.1:1/till"}
STOP_S = 15.0


class Worker:
    """One `till worker` process."""

    def __init__(self, role: str, home: Path, variables: dict[str, str]) -> None:
        self.role, self.home = role, home
        self.log = home / f"{role}.log"
        environment = {**os.environ, "TILL_HOME": str(home), **variables}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "tillstream", "worker", role]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)

    def announced(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.home / "run" / f"{self.role}.json").read_text()))
        except (OSError, ValueError):
            return {}

    async def readiness(self) -> dict[str, Any]:
        url = self.announced().get("url")
        if not url:
            return {}
        try:
            async with aiohttp.ClientSession() as client, client.get(f"{url}/readyz") as answer:
                return {"status": answer.status, **await answer.json()}
        except aiohttp.ClientError:
            return {}

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as client, client.get(f"{self.announced()['url']}/metrics") as answer:
            return await answer.text()

    async def until(self, ask: Callable[[dict[str, Any]], bool], *, seconds: float = 40.0) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while not ask(found):
                    assert self.process.poll() is None, self.log.read_text()
                    await asyncio.sleep(0.1)
                    found = await self.readiness()
        except TimeoutError:
            raise AssertionError(f"{found}\n{self.log.read_text()[-4000:]}") from None
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


@pytest.fixture
def start(till_home: Path) -> Iterator[Callable[..., Worker]]:
    till_home.mkdir()
    workers: list[Worker] = []

    def started(role: str, **variables: str) -> Worker:
        workers.append(Worker(role, till_home, {"TILL_SINK_WATCHDOG_S": "30", **variables}))
        return workers[-1]

    yield started
    for each in workers:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.mark.parametrize("role", [role.value for role in Role])
async def test_a_worker_without_kafka_and_postgresql_waits_tells_why_and_ends_cleanly(
    start: Callable[..., Worker], role: str
) -> None:
    worker = start(role, **NOWHERE)

    found = await worker.until(lambda found: {"kafka", "postgres"} <= set(found.get("reasons", {})))

    assert found["status"] == 503
    assert found["ready"] is False
    assert "PostgreSQL does not answer" in found["reasons"]["postgres"]
    assert "127.0.0.1" in found["reasons"]["kafka"]
    assert "tillstream_dependency_up" in await worker.metrics()
    assert worker.stop() == 0
    assert not (worker.home / "run" / f"{role}.json").exists()
    log = worker.log.read_text()
    assert "hunter22" not in log
    assert len(log.splitlines()) < 60, "a worker that waits must not flood its log"


async def test_a_worker_ends_cleanly_when_it_is_told_to_before_it_did_anything(start: Callable[..., Worker]) -> None:
    worker = start("sink", **NOWHERE)
    await worker.until(bool)

    assert worker.stop() == 0


async def test_a_port_that_is_taken_is_told_without_a_traceback(start: Callable[..., Worker]) -> None:
    first = start("letters", **NOWHERE)
    await first.until(bool)

    second = start("sink", **NOWHERE, TILL_HTTP_SINK_PORT=str(first.announced()["port"]))

    assert second.process.wait(STOP_S) == 9
    text = second.log.read_text()
    assert "error [config]: http: cannot listen on 127.0.0.1:" in text
    assert "http.sink_port" in text
    assert "Traceback" not in text


def variables_of(kafka: str, database: str, prefix: str) -> dict[str, str]:
    return {
        "TILL_KAFKA_BOOTSTRAP": kafka,
        "TILL_POSTGRES_DSN": database,
        "TILL_TOPIC_PREFIX": prefix.rstrip("."),
        "TILL_KAFKA_SESSION_TIMEOUT_S": "3s",
        "TILL_MONITOR_INTERVAL_S": "200ms",
    }


async def test_a_worker_waits_for_a_database_that_is_not_migrated_and_goes_on_by_itself(
    start: Callable[..., Worker], kafka: Kafka, database: str, topic_prefix: str
) -> None:
    variables = variables_of(kafka.bootstrap, database, topic_prefix)
    worker = start("sink", **variables)
    await worker.until(lambda found: "run `till migrate`" in found.get("reasons", {}).get("postgres", ""))

    await prepare(load(environ=variables).settings)

    found = await worker.until(lambda found: found.get("ready") is True)
    assert found["status"] == 200
    assert worker.stop() == 0


async def test_a_topic_with_other_partitions_than_the_settings_say_is_told(
    start: Callable[..., Worker], kafka: Kafka, database: str, topic_prefix: str
) -> None:
    variables = variables_of(kafka.bootstrap, database, topic_prefix)
    await prepare(load(environ=variables).settings)

    worker = start("connector", **variables, TILL_TOPIC_PARTITIONS="6")

    found = await worker.until(lambda found: "partitions" in found.get("reasons", {}).get("kafka", ""))
    assert "has 4 partitions, the settings say 6" in found["reasons"]["kafka"]
    assert worker.stop() == 0


async def test_workers_that_start_before_their_broker_are_ready_soon_after_it(
    start: Callable[..., Worker], own_kafka: EmbeddedKafka, database: str
) -> None:
    variables = variables_of(own_kafka.bootstrap, database, "later")
    await prepare(load(environ=variables).settings)
    await own_kafka.stop()
    workers = [start(role.value, **variables) for role in Role]
    for worker in workers:
        await worker.until(lambda found: "kafka" in found.get("reasons", {}))

    await own_kafka.start()

    for worker in workers:
        await worker.until(lambda found: found.get("ready") is True)
    assert [worker.stop() for worker in workers] == [0] * len(Role)


async def test_a_table_that_is_missing_shows_in_the_sinks_readiness_with_its_name_and_heals(
    start: Callable[..., Worker], kafka: Kafka, database: str, topic_prefix: str
) -> None:
    variables = variables_of(kafka.bootstrap, database, topic_prefix)
    await prepare(load(environ=variables).settings)
    sink = start("sink", **variables)
    monitor = start("monitor", **variables)
    connector = start("connector", **variables)
    api = start("api", **variables, TILL_HTTP_API_PORT="0")
    for each in (sink, monitor, connector, api):
        await each.until(lambda found: found.get("ready") is True)
    async with connected(database) as held:
        await held.execute("ALTER TABLE payments RENAME TO payments_away")
        folder = sink.home / "in"
        folder.mkdir()
        await till(variables, sink.home, "connector", "create", "bank", "-O", f"directory={folder}", "-O", "poll_s=0.2",
                   "-O", "rest_s=0")  # fmt: skip
        (folder / "a.json").write_text('{"type":"payin","reference":"1","status":"succeeded","asset":"USD","amount":1}')

        found = await sink.until(lambda found: "partitions" in found.get("reasons", {}))
        assert "configuration" in found["reasons"]["partitions"]
        assert "payments" in found["reasons"]["partitions"]
        await until(
            held, "SELECT cause FROM connector_health WHERE name = 'bank'", lambda cause: "payments" in (cause or "")
        )

        await held.execute("ALTER TABLE payments_away RENAME TO payments")

        await sink.until(lambda found: found.get("ready") is True)
        await until(
            held, "SELECT last_run_status FROM sp_v2_connectors WHERE name = 'bank'", lambda status: status == "SUCCESS"
        )
        await until(held, "SELECT verdict FROM connector_health WHERE name = 'bank'", lambda state: state == "healthy")
        assert await held.fetchval("SELECT count(*) FROM payments") == 1
        assert await held.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert [each.stop() for each in (connector, sink, monitor)] == [0, 0, 0]


async def test_a_run_of_a_connector_worker_that_was_killed_ends_failed_and_its_successor_finishes_the_work(
    start: Callable[..., Worker], kafka: Kafka, database: str, topic_prefix: str
) -> None:
    """
    Kill -9 right after the second batch was published: its checkpoint is missing, so the batch comes twice.
    """
    variables = variables_of(kafka.bootstrap, database, topic_prefix)
    await prepare(load(environ=variables).settings)
    start("sink", **variables)
    monitor = start("monitor", **variables, TILL_MONITOR_HEARTBEAT_TIMEOUT_S="3s")
    api = start("api", **variables, TILL_HTTP_API_PORT="0")
    await api.until(lambda found: found.get("ready") is True)
    folder = monitor.home / "in"
    folder.mkdir()
    rows = [f"R{n},payin,succeeded,USD,{n + 1}" for n in range(20_000)]
    (folder / "many.csv").write_text("reference,type,status,asset,amount\n" + "\n".join(rows))
    await till(variables, monitor.home, "connector", "create", "bank", "-O", f"directory={folder}", "-O", "poll_s=0.2",
               "-O", "rest_s=0", "-O", "checkpoint_s=0")  # fmt: skip
    first = start("connector", **variables, TILL_FAILPOINTS="after_publish=kill@2")
    assert await asyncio.to_thread(first.process.wait, 40) == -signal.SIGKILL

    second = start("connector", **variables)

    async with connected(database) as held:
        await until(held, "SELECT count(*) FROM payments", lambda count: count == 20_000)
        await until(
            held, "SELECT last_run_status FROM sp_v2_connectors WHERE name = 'bank'", lambda status: status == "SUCCESS"
        )
        await until(held, "SELECT count(*) FROM connector_runs WHERE closed_at IS NULL", lambda count: count == 0)
        statuses = await held.fetch("SELECT status, error_message FROM sp_v2_connector_runs ORDER BY id")
        await until(held, "SELECT state FROM recon_ingested_file", lambda state: state == "NORMALIZED")
        [file] = await held.fetch("SELECT filename, size_bytes, records, run FROM recon_ingested_file")
        assert (file["filename"], file["size_bytes"]) == ("many.csv", (folder / "many.csv").stat().st_size)
        assert file["run"] == await held.fetchval("SELECT id FROM connector_runs WHERE status = 'SUCCESS'")
    assert [row["status"] for row in statuses] == ["FAILED", "SUCCESS"]
    assert statuses[0]["error_message"]
    pool = await open_pool(database, size=2, application="test", durable=False)
    report = await ledger.check(pool, wait_s=20, unlisted=unlisted_of(load(environ=variables).settings))
    await close_pool(pool)
    assert report.findings == []
    assert second.stop() == 0


async def test_production_refuses_failpoints(start: Callable[..., Worker]) -> None:
    worker = start("sink", **NOWHERE, TILL_FAILPOINTS="after_commit=kill", TILL_ENVIRONMENT="production")

    assert worker.process.wait(STOP_S) == 9
    assert "failpoints are refused while environment is production" in worker.log.read_text()


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[Any]:
    held = await asyncpg.connect(database)
    try:
        yield held
    finally:
        await held.close()


async def until(held: Any, query: str, ask: Callable[[Any], bool], *, seconds: float = 40.0) -> Any:
    found = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await held.fetchval(query)
                if ask(found):
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{query}: {found!r}") from None


async def till(variables: dict[str, str], home: Path, *arguments: str) -> str:
    environment = {**os.environ, "TILL_HOME": str(home), **variables}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tillstream", *arguments, env=environment, stdout=asyncio.subprocess.PIPE, cwd=home
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()
