"""Idempotency-Key: the same request gets the same answer, and makes nothing twice, also where the API was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.database import migrated
from tests.integration import api_kit
from tests.integration.api_kit import Client
from tests.integration.test_api_connectors import made
from tests.integration.test_api_frame import problem

KEY = {"Idempotency-Key": "7b1f"}


async def test_the_same_request_gets_the_first_answer_again(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)

    first = await api.post("/connectors/bank/run", {"force": True}, headers=KEY)
    second = await api.post("/connectors/bank/run", {"force": True}, headers=KEY)

    assert first.status == second.status == 202
    assert second.body == first.body
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert len((await api.get("/runs")).body["data"]) == 1
    other = await api.post("/connectors/bank/run", {"force": True}, headers={"Idempotency-Key": "other"})
    assert other.body["id"] != first.body["id"]


async def test_another_request_under_the_key_is_refused(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    await api.post("/connectors/bank/run", {"force": True}, headers=KEY)

    problem(await api.post("/connectors/bank/run", {"force": False}, headers=KEY), 422, "idempotency_key_reused")
    problem(await api.post("/connectors/bank/pause", headers=KEY), 422, "idempotency_key_reused")
    problem(
        await api.post("/connectors/bank/run?dry_run=true", {"force": True}, headers=KEY), 422, "idempotency_key_reused"
    )
    problem(await api.post("/connectors/bank/run", headers={"Idempotency-Key": "x" * 201}), 422, "invalid")


async def test_a_refusal_is_given_again_too(api: Client, tmp_path: Path) -> None:
    body = {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}
    await api.post("/connectors", body)

    first = await api.post("/connectors", body, headers=KEY)
    await api.delete("/connectors/bank")
    second = await api.post("/connectors", body, headers=KEY)

    problem(first, 409, "conflict")
    assert second.body["code"] == "conflict"


async def test_of_requests_at_the_same_time_one_is_done(api: Client, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)

    answers = await asyncio.gather(*(api.post("/connectors/bank/run", headers=KEY) for _ in range(12)))

    assert len((await api.get("/runs")).body["data"]) == 1
    for each in answers:
        if each.status == 409:
            assert problem(each, 409, "idempotency_in_progress")["retryable"] is True
            assert each.headers["Retry-After"] == "1"
    assert len({each.body["id"] for each in answers if each.status == 202}) == 1


async def test_two_apis_hold_a_key_against_each_other(api: Client, database: str, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    held = await asyncpg.connect(database)
    async with api_kit.api(tmp_path / "other", database, fresh=False) as second, held.transaction():
        # the run's insert waits for this lock, so that the first request is at work for as long as we say
        await held.execute("LOCK TABLE connector_runs IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(api.post("/connectors/bank/run", headers=KEY))
        await api_kit.until(lambda: waiters(database))

        problem(await second.post("/connectors/bank/run", headers=KEY), 409, "idempotency_in_progress")

    first = await waiting
    await held.close()
    assert first.status == 202


async def test_a_key_is_kept_for_a_day(api: Client, database: str, tmp_path: Path) -> None:
    await made(api, "bank", tmp_path)
    first = await api.post("/connectors/bank/run", headers=KEY)
    held = await asyncpg.connect(database)
    await held.execute("UPDATE idempotency_keys SET made_at = made_at - interval '25 hours'")

    second = await api.post("/connectors/bank/run", headers=KEY)

    await held.close()
    assert second.body["id"] != first.body["id"]


@pytest.mark.parametrize("place", ["before the run is written", "before the answer is kept"])
async def test_after_a_kill_in_the_middle_the_retry_gets_the_same_run_and_there_is_one(
    database: str, tmp_path: Path, place: str
) -> None:
    """The API is killed with SIGKILL while PostgreSQL holds one of its statements up."""
    await migrated(database)
    held = await asyncpg.connect(database)
    process, url = await started(tmp_path, database)
    try:
        async with api_kit.aiohttp.ClientSession() as session:
            body = {"name": "bank", "kind": "directory", "configuration": {"directory": str(tmp_path)}}
            async with session.post(f"{url}/api/v1/connectors", json=body) as answer:
                assert answer.status == 201
            transaction = held.transaction()
            await transaction.start()
            if place == "before the run is written":
                await held.execute("LOCK TABLE run_requests IN ACCESS EXCLUSIVE MODE")
            else:
                # the key's row is there and the run is written; keeping the answer waits
                await held.execute(
                    "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
                    " 'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END'"
                )
                await held.execute(
                    "CREATE TRIGGER wait BEFORE UPDATE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION wait()"
                )
                await transaction.commit()
                transaction = held.transaction()
                await transaction.start()
                await held.execute("SELECT pg_advisory_xact_lock(42)")
            lost = asyncio.create_task(asked(session, url))
            await api_kit.until(lambda: waiters(database))
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait, 60)
            with pytest.raises(api_kit.aiohttp.ClientError):
                await lost
            await transaction.rollback()
            process, url = await started(tmp_path, database)
            status, first = await api_kit.until(lambda: settled(session, url))
            _, second = await asked(session, url)
        assert status == 202
        assert second == first
        assert await held.fetchval("SELECT count(*) FROM connector_runs") == 1
        assert await held.fetchval("SELECT count(*) FROM run_requests") == 1
        assert str(await held.fetchval("SELECT run FROM run_requests")) == first["id"]
    finally:
        process.kill()
        process.wait()
        await held.close()


async def asked(session: api_kit.aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]]:
    async with session.post(f"{url}/api/v1/connectors/bank/run", headers=KEY) as answer:
        return answer.status, await answer.json(content_type=None)


async def settled(session: api_kit.aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]] | None:
    """The answer, once the dead process's session has ended."""
    status, body = await asked(session, url)
    return None if status == 409 else (status, body)


async def started(home: Path, database: str) -> tuple[subprocess.Popen[bytes], str]:
    (home / "run" / "api.json").unlink(missing_ok=True)
    variables = {"TILL_HOME": str(home), "TILL_HTTP_API_PORT": "0", "TILL_POSTGRES_DSN": database,
                 "TILL_KAFKA_BOOTSTRAP": api_kit.NOWHERE}  # fmt: skip
    with (home / "api.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tillstream", "worker", "api"],
            env={**os.environ, **variables}, stdout=out, stderr=out, cwd=home,
        )  # fmt: skip
    return process, await api_kit.until(lambda: api_kit.address(home))


async def waiters(database: str) -> int:
    """How many sessions of this database wait for a lock; asked apart, for a transaction sees one picture of it."""
    held = await asyncpg.connect(database)
    try:
        return int(
            await held.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )
    finally:
        await held.close()
