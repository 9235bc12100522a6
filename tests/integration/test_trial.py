"""TEST runs: the source is really asked, the run tells each step, seed 003's counters move, and health does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from connectors import directory, http_api
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.secret import GivenSecrets
from connectors.source import CheckStep
from connectors.spec import SourceSpec
from schemas.errors import NotFound
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tests.integration.http_kit import answered, raw_server
from tillstream.control import claim as claims
from tillstream.control import connector as connectors
from tillstream.control import request as requests
from tillstream.control import run as runs
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.desired import desired
from tillstream.control.monitor import _open_run
from tillstream.control.run import PostgresRunLog, RunStatus
from tillstream.control.statement import statements
from tillstream.control.trial import Trial, try_out
from tillstream.control.verdict import Limits, judge_run

SPECS = {"directory": directory.SPEC, "http_api": http_api.SPEC}
DEFAULT = "SabPaisa PG API"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


async def _folder(pool: Pool, path: Path, name: str = "bank") -> ConnectorView:
    await connectors.create(pool, name=name, spec=directory.SPEC, configuration={"directory": str(path)})
    return await connectors.find(pool, name)


async def _try(pool: Pool, view: ConnectorView, **options: object) -> Trial:
    context = SourceContext(view.id, view.name, SystemClock(), secrets=GivenSecrets())
    return await try_out(pool, view, SPECS, context, **options)  # type: ignore[arg-type]


async def test_a_test_that_finds_files_tells_them_and_its_steps_and_leaves_nothing_else(
    pool: Pool, tmp_path: Path
) -> None:
    for name in ("b.csv", "a.csv", "notes.txt", "c.csv.tmp"):
        (tmp_path / name).write_text("reference,type,status,asset,amount\na,payin,succeeded,EUR,100\n")
    view = await _folder(pool, tmp_path)

    trial = await _try(pool, view)

    assert (trial.ok, trial.error, trial.found) == (True, "", ("a.csv", "b.csv"))
    seen = await runs.find_run(pool, str(trial.run_id))
    assert (seen.type, seen.status, seen.triggered_by, seen.number) == (
        "TEST", RunStatus.SUCCESS, "MANUAL_TEST", trial.number,
    )  # fmt: skip
    assert seen.details is not None
    assert [(step["name"], step["ok"]) for step in seen.details["steps"]] == [
        ("list the folder", True), ("read a file", True),
    ]  # fmt: skip
    assert seen.details["files_found"] == ["a.csv", "b.csv"]
    after = await connectors.find(pool, "bank")
    assert (after.status, after.provider_frozen, after.version) == (ConnectorStatus.ACTIVE, False, 1)


@asynccontextmanager
async def _refusing() -> AsyncIterator[str]:
    async with raw_server(answered("{}", status="401 Unauthorized")) as url:
        yield url


async def test_a_test_that_is_refused_is_told_in_the_words_of_seed_003_and_moves_its_counters(pool: Pool) -> None:
    async with _refusing() as url:
        configuration = {"template": "sabpaisa", "api_base_url": url, "allow_networks": ["127.0.0.0/8"]}
        await connectors.create(
            pool, name=DEFAULT, spec=http_api.SPEC, configuration=configuration, provider="SABPAISA"
        )
        view = await connectors.find(pool, DEFAULT)

        trial = await _try(pool, view, triggered_by="USER_123")

    assert (trial.ok, trial.error) == (False, "API responded with status 401: Unauthorized")
    [row] = await pool.fetch("SELECT * FROM sp_v2_connector_runs")
    assert (row["id"], row["run_type"], row["status"], row["error_message"], row["triggered_by"]) == (
        trial.number, "TEST", "FAILED", "API responded with status 401: Unauthorized", "USER_123",
    )  # fmt: skip
    assert 0 < row["duration_seconds"] < 60
    [seed] = await pool.fetch(
        "SELECT status, success_rate, last_run_status, total_runs, success_count, failure_count FROM sp_v2_connectors"
    )
    assert tuple(seed) == ("ACTIVE", 0, "FAILED", 1, 0, 1)


async def test_tests_count_in_the_seeds_rate_and_neither_in_ours_nor_in_health(pool: Pool, tmp_path: Path) -> None:
    view, log = await _folder(pool, tmp_path), PostgresRunLog(pool)
    async with pool.acquire() as held:
        run_id = view.id
        await log.open(run_id, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
        await runs.close(held, run_id, RunStatus.SUCCESS)
    tmp_path.rmdir()

    assert not (await _try(pool, view)).ok

    after = await connectors.find(pool, "bank")
    assert (after.total_runs, after.success_rate, after.last_run_status) == (2, 50, "FAILED")
    assert (after.runs, after.runs_succeeded) == (1, 1)
    [observed] = await pool.fetch(statements()["observed_connectors"])
    assert observed["last_run_status"] == "SUCCESS"
    assert await pool.fetchval("SELECT health_status FROM connector_health") == "HEALTHY"


async def test_a_paused_connector_is_tested_and_stays_paused_and_a_deleted_one_is_not(
    pool: Pool, tmp_path: Path
) -> None:
    view = await _folder(pool, tmp_path)
    await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)

    assert (await _try(pool, view)).ok

    assert (await connectors.find(pool, "bank")).status is ConnectorStatus.PAUSED
    await connectors.delete(pool, view)
    with pytest.raises(NotFound):
        await _try(pool, view)


async def test_what_cannot_be_tried_at_all_is_a_step_that_failed(pool: Pool, tmp_path: Path) -> None:
    view = await _folder(pool, tmp_path)

    unknown = await _try(pool, replace(view, kind="pigeon"))
    wrong = await _try(pool, replace(view, configuration={"directory": ""}))

    assert "no source of kind 'pigeon'" in unknown.error
    assert "missing directory to watch" in wrong.error
    assert await pool.fetch("SELECT DISTINCT status FROM sp_v2_connector_runs") == [("FAILED",)]


class Says:
    """A source whose check says what a test wants, or never ends."""

    def __init__(self, *steps: CheckStep, waits: bool = False) -> None:
        self.begun = asyncio.Event()
        self._steps = steps
        self._waits = waits

    async def check(self) -> list[CheckStep]:
        self.begun.set()
        if self._waits:
            await asyncio.Event().wait()
        return list(self._steps)

    async def close(self) -> None:
        pass

    def spec(self) -> SourceSpec:
        return replace(directory.SPEC, factory=lambda *_: self)


async def _try_with(pool: Pool, view: ConnectorView, source: Says, **options: object) -> Trial:
    context = SourceContext(view.id, view.name, SystemClock())
    return await try_out(pool, view, {"directory": source.spec()}, context, **options)  # type: ignore[arg-type]


async def test_secrets_and_what_the_database_cannot_hold_are_taken_out_of_what_a_source_says(
    pool: Pool, tmp_path: Path
) -> None:
    view = await _folder(pool, tmp_path)
    source = Says(CheckStep("log in", False, 0.1, "as hunter22\x00", "\ud800 hunter22", ("hunter22.csv",)))

    trial = await _try_with(pool, view, source, redact=lambda text: text.replace("hunter22", "***"))

    assert (trial.error, trial.found) == ("as ***\x00", ("***.csv",))
    row = await pool.fetchrow("SELECT details, error_message FROM sp_v2_connector_runs")
    assert row["error_message"] == "as ***\\x00"
    assert "hunter22" not in row["details"]
    assert json.loads(row["details"])["steps"][0]["hint"] == "\\ud800 ***"


async def test_a_test_that_is_cancelled_ends_within_seconds(pool: Pool, tmp_path: Path) -> None:
    view, source = await _folder(pool, tmp_path), Says(waits=True)
    trying = asyncio.create_task(_try_with(pool, view, source))
    await asyncio.wait_for(source.begun.wait(), 60)
    [running] = await runs.list_runs(pool)

    await requests.cancel(pool, running)

    async with asyncio.timeout(60):  # the source never answers
        trial = await trying
    assert (trial.ok, trial.error) == (False, "cancelled")
    assert (await runs.find_run(pool, str(running.id))).reason == "cancelled"


async def test_a_test_whose_process_died_is_ended_by_its_heartbeat_and_by_nothing_else(
    pool: Pool, tmp_path: Path
) -> None:
    """A worker that claims the connector meanwhile has nothing to do with it."""
    view, source = await _folder(pool, tmp_path), Says(waits=True)
    dying = asyncio.create_task(_try_with(pool, view, source))
    await asyncio.wait_for(source.begun.wait(), 60)
    dying.cancel()
    await asyncio.wait({dying})
    await claims.claim(pool, view.id, worker="one", table_epoch=0)
    assert (await desired(pool)).cancelled == {}
    await pool.execute(
        "UPDATE connector_runs SET heartbeat_at = now() - interval '20 seconds', started_at = heartbeat_at"
    )
    await pool.execute("UPDATE connector_claims SET claimed_at = now() - interval '15 seconds'")

    [row] = await pool.fetch(statements()["open_runs"])
    patient, done = (Limits(60, timeout_s, watched_s=1_000) for timeout_s in (30, 10))

    assert judge_run(_open_run(row), row["now"], patient).end is None
    verdict = judge_run(_open_run(row), row["now"], done)
    assert (verdict.end, verdict.reason) == (RunStatus.FAILED, "crashed: the process that tried the source ended")
