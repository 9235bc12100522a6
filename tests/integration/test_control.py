"""Connectors, claims and runs on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from connectors.ports import RunLog
from connectors.spec import ConnectorConfig, SourceSpec
from schemas.checkpoint import Counts
from schemas.errors import ConfigError, Conflict, Fenced, NotFound
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import claim as claims
from tillstream.control import connector as connectors
from tillstream.control import run as runs
from tillstream.control.connector import ConnectorStatus
from tillstream.control.desired import desired
from tillstream.control.run import PostgresRunLog, RunStatus


class FolderConfig(ConnectorConfig):
    directory: Path


SPEC = SourceSpec("folder", "For tests.", FolderConfig, lambda *_: None, "nothing")  # type: ignore[arg-type, return-value]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


async def _connector(pool: Pool, name: str = "bank") -> connectors.ConnectorView:
    await connectors.create(pool, name=name, spec=SPEC, configuration={"directory": "/in"})
    return await connectors.find(pool, name)


async def test_a_connector_is_found_by_name_id_and_number_and_keeps_its_id_for_ever(pool: Pool) -> None:
    identifier = await connectors.create(pool, name="bank", spec=SPEC, configuration={"directory": "/in"})

    for wanted in ("bank", str(identifier), str((await connectors.find(pool, "bank")).number)):
        view = await connectors.find(pool, wanted)
        assert (view.id, view.name, view.provider, view.status) == (identifier, "bank", "bank", ConnectorStatus.ACTIVE)
    assert [view.name for view in await connectors.list_connectors(pool)] == ["bank"]
    with pytest.raises(NotFound, match="no connector 'other'"):
        await connectors.find(pool, "other")


async def test_everything_wrong_with_a_connector_is_told_at_once_and_nothing_is_stored(pool: Pool) -> None:
    with pytest.raises(ConfigError) as caught:
        await connectors.create(
            pool, name="a\nb", spec=SPEC, configuration={"poll_s": "often", "colour": 1}, provider="x" * 200
        )

    for key in (
        "name:",
        "provider:",
        "directory: Field required",
        "poll_s:",
        "got str",
        "colour is not an option of `folder`",
    ):
        assert key in str(caught.value)
    assert "Extra inputs" not in str(caught.value)
    assert await connectors.list_connectors(pool) == []


async def test_a_dry_run_and_a_taken_name_store_nothing(pool: Pool) -> None:
    await connectors.create(pool, name="bank", spec=SPEC, configuration={"directory": "/in"}, dry_run=True)
    assert await connectors.list_connectors(pool) == []

    await _connector(pool)
    with pytest.raises(Conflict, match="is there already"):
        await _connector(pool)
    assert len(await connectors.list_connectors(pool)) == 1


async def test_a_provider_may_change_until_the_first_run_opens_and_never_after(pool: Pool) -> None:
    view = await _connector(pool)
    await connectors.configure(pool, view, spec=SPEC, configuration={"directory": "/b"}, provider="acme")
    view = await connectors.find(pool, "bank")
    assert (view.provider, view.configuration["directory"]) == ("acme", "/b")
    versions = [each.version for each in (await desired(pool)).connectors]

    await PostgresRunLog(pool).open(uuid4(), view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    with pytest.raises(Conflict, match="is frozen"):
        await connectors.configure(pool, view, spec=SPEC, configuration={"directory": "/c"}, provider="other")
    await connectors.configure(pool, view, spec=SPEC, configuration={"directory": "/d"})

    view = await connectors.find(pool, "bank")
    assert (view.provider, view.configuration["directory"], view.provider_frozen) == ("acme", "/d", True)
    assert versions == [2]
    assert [each.version for each in (await desired(pool)).connectors] == [3]


async def test_a_paused_connector_is_not_desired(pool: Pool) -> None:
    view = await _connector(pool)

    await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)
    assert (await desired(pool)).connectors == ()

    await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)
    assert [each.id for each in (await desired(pool)).connectors] == [view.id]


async def test_a_deleted_connector_frees_its_name_and_its_runs_keep_it(pool: Pool) -> None:
    view, log, run = await _connector(pool), PostgresRunLog(pool), uuid4()
    await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await log.finish_reading(run, _counts(2))

    await connectors.delete(pool, view)

    assert (await desired(pool)).connectors == ()
    assert await connectors.list_connectors(pool) == []
    with pytest.raises(NotFound):
        await connectors.find(pool, "bank")
    with pytest.raises(NotFound):
        await connectors.delete(pool, view)
    with pytest.raises(NotFound):
        await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)
    assert (await connectors.find_ever(pool, "bank")).id == view.id
    async with pool.acquire() as held:
        assert await runs.close(held, run, RunStatus.SUCCESS) == "bank"
    assert [(each.id, each.connector, each.status) for each in await runs.list_runs(pool)] == [
        (run, "bank", RunStatus.SUCCESS)
    ]

    successor = await _connector(pool)
    assert successor.id != view.id
    assert (await connectors.find_ever(pool, "bank")).id == successor.id
    assert await runs.list_runs(pool, connector_id=successor.id) == []


async def test_a_dry_run_of_a_new_configuration_checks_and_changes_nothing(pool: Pool) -> None:
    view = await _connector(pool)

    await connectors.configure(pool, view, spec=SPEC, configuration={"directory": "/b"}, provider="acme", dry_run=True)
    with pytest.raises(ConfigError, match="poll_s"):
        await connectors.configure(pool, view, spec=SPEC, configuration={"poll_s": "often"}, dry_run=True)
    assert [each.version for each in (await desired(pool)).connectors] == [1]

    await PostgresRunLog(pool).open(uuid4(), view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    view = await connectors.find(pool, "bank")
    with pytest.raises(Conflict, match="is frozen"):
        await connectors.configure(
            pool, view, spec=SPEC, configuration={"directory": "/b"}, provider="acme", dry_run=True
        )
    assert await connectors.find(pool, "bank") == view


async def test_a_claim_goes_above_whatever_was_seen_and_fences_the_one_before(pool: Pool) -> None:
    view = await _connector(pool)

    first = await claims.claim(pool, view.id, worker="one", table_epoch=0)
    assert await claims.renew(pool, [first]) == []
    second = await claims.claim(pool, view.id, worker="two", table_epoch=41)
    third = await claims.claim(pool, view.id, worker="three", table_epoch=7)

    assert (first.epoch, second.epoch, third.epoch) == (1, 42, 43)
    assert await claims.renew(pool, [first, second, third]) == [first, second]
    assert await claims.renew(pool, []) == []


async def test_what_an_outdated_claim_writes_into_run_rows_is_refused(pool: Pool) -> None:
    view, run = await _connector(pool), uuid4()
    first = await claims.claim(pool, view.id, worker="one", table_epoch=0)
    zombie = PostgresRunLog(pool, claim=first)
    await zombie.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await zombie.progress(run, _counts(3))
    second = await claims.claim(pool, view.id, worker="two", table_epoch=0)

    for write in (
        lambda: zombie.progress(run, _counts(9)),
        lambda: zombie.finish_reading(run, _counts(9)),
        lambda: zombie.fail(run, _counts(9), reason="mine"),
    ):
        with pytest.raises(Fenced):
            await write()

    [row] = await runs.list_runs(pool)
    assert (row.status, row.read, row.awaiting_sink) == (RunStatus.RUNNING, 3, False)
    await PostgresRunLog(pool, claim=second).fail(run, _counts(3), reason="crashed")
    assert (await runs.find_run(pool, str(run))).status is RunStatus.FAILED


async def test_a_claim_waits_for_what_the_one_before_is_writing(pool: Pool) -> None:
    """Else it could write after it had been outdated, having looked before."""
    view = await _connector(pool)
    first = await claims.claim(pool, view.id, worker="one", table_epoch=0)
    async with pool.acquire() as held, held.transaction():
        await claims.insist(held, first)
        claiming = asyncio.create_task(claims.claim(pool, view.id, worker="two", table_epoch=0))
        async with asyncio.timeout(20):
            while True:
                if await held.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    break
                await asyncio.sleep(0.02)
        assert not claiming.done()

    assert (await claiming).epoch == 2


def _counts(read: int, rejected: int = 0) -> Counts:
    published = read - rejected
    return Counts(read=read, published=published, rejected=rejected, published_sum=2**127 + published)


async def test_every_call_to_the_run_log_may_come_twice(pool: Pool) -> None:
    view, log, run = await _connector(pool), PostgresRunLog(pool), uuid4()
    checked: RunLog = log

    for _ in range(2):
        await checked.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
        await checked.progress(run, _counts(3, 1))
    for _ in range(2):
        await checked.finish_reading(run, _counts(5, 1), problems=["b.csv: cut"])

    [only] = await runs.list_runs(pool)
    assert (only.id, only.read, only.published, only.rejected) == (run, 5, 4, 1)
    assert (only.status, only.awaiting_sink, only.reason) == (RunStatus.RUNNING, True, "b.csv: cut")
    async with pool.acquire() as held:
        seed = await held.fetchrow("SELECT * FROM sp_v2_connector_runs")
        assert await held.fetchval("SELECT published_sum FROM connector_runs") == 2**127 + 4
    assert (seed["records_processed"], seed["records_success"], seed["records_failed"]) == (5, 4, 1)


async def test_of_finishing_and_failing_the_first_holds(pool: Pool) -> None:
    view, log = await _connector(pool), PostgresRunLog(pool)
    finished, failed = uuid4(), uuid4()
    for run in (finished, failed):
        await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")

    await log.finish_reading(finished, _counts(2))
    await log.fail(finished, _counts(1), reason="too late")
    await log.fail(failed, _counts(1), reason="source unavailable")
    await log.finish_reading(failed, _counts(9))

    by_id = {view.id: view for view in await runs.list_runs(pool)}
    assert (by_id[finished].status, by_id[finished].read, by_id[finished].reason) == (RunStatus.RUNNING, 2, "")
    assert (by_id[failed].status, by_id[failed].read, by_id[failed].reason) == (
        RunStatus.FAILED,
        1,
        "source unavailable",
    )
    connector = await connectors.find(pool, "bank")
    assert (connector.total_runs, connector.last_run_status, connector.success_rate) == (1, "FAILED", 0)


async def test_a_run_is_closed_once_and_counted_once(pool: Pool) -> None:
    view, log, run = await _connector(pool), PostgresRunLog(pool), uuid4()
    await log.open(run, view.id, triggered_by="x" * 300, run_type="MANUAL")
    await log.finish_reading(run, _counts(2))

    async with pool.acquire() as held:
        closed = [await runs.close(held, run, RunStatus.SUCCESS) for _ in range(3)]

    assert closed == ["bank", None, None]
    connector = await connectors.find(pool, "bank")
    assert (connector.total_runs, connector.success_rate) == (1, 100)
    found = await runs.find_run(pool, str(run)[:8])
    assert (found.status, len(found.triggered_by)) == (RunStatus.SUCCESS, 100)


async def test_a_run_is_found_by_its_number_even_where_ids_begin_so_and_by_enough_of_its_id(pool: Pool) -> None:
    view, log = await _connector(pool), PostgresRunLog(pool)
    ids = [UUID(int=1 << 124), UUID(int=(1 << 124) + 1), UUID(int=2 << 124)]  # 1…, 1…, 2…
    for run in ids:
        await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")

    assert (await runs.find_run(pool, "1")).id == ids[0]
    assert (await runs.find_run(pool, "2")).id == ids[1]
    assert (await runs.find_run(pool, "20")).id == ids[2]
    assert (await runs.find_run(pool, str(ids[1]).upper())).id == ids[1]
    with pytest.raises(Conflict, match="the ids of 2 runs begin with '10'"):
        await runs.find_run(pool, "10")
    for nothing in ("9", "%", "x", ""):
        with pytest.raises(NotFound):
            await runs.find_run(pool, nothing)
