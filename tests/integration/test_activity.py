"""What happened, as those who make it happen write it down and others follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from connectors.spec import ConnectorConfig, SourceSpec
from schemas.checkpoint import Counts
from schemas.errors import ConfigError, Conflict
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import activity, edit
from tillstream.control import claim as claims
from tillstream.control import connector as connectors
from tillstream.control import request as requests
from tillstream.control import run as runs
from tillstream.control.activity import Activity, Position
from tillstream.control.connector import ConnectorView
from tillstream.control.edit import patch_of
from tillstream.control.run import Filter, Place, PostgresRunLog, RunStatus, RunView


class FolderConfig(ConnectorConfig):
    directory: Path


SPEC = SourceSpec(
    "folder",
    "For tests.",
    FolderConfig,
    lambda *_: None,  # type: ignore[arg-type, return-value]
    "nothing",
    takes_dates=True,
)
SPECS = {"folder": SPEC}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=6)
    yield opened
    await close_pool(opened)


async def _connector(pool: Pool, name: str = "bank") -> ConnectorView:
    await connectors.create(pool, name=name, spec=SPEC, configuration={"directory": "/in"})
    return await connectors.find(pool, name)


async def _insert(held: asyncpg.Connection, kind: str) -> None:
    await held.execute("INSERT INTO activity (kind) VALUES ($1)", kind)


async def _all(pool: Pool, position: Position, limit: int = 200) -> tuple[list[str], Position]:
    found, after = await activity.since(pool, position, limit)
    return [each.kind for each in found], after


async def test_nothing_is_lost_to_a_transaction_that_commits_late(pool: Pool, database: str) -> None:
    """
    The first to write is the last to commit: a reader that went by ids alone would have passed it by.
    """
    start = await activity.now(pool)
    late = await asyncpg.connect(database)
    transaction = late.transaction()
    await transaction.start()
    await _insert(late, "late")
    async with pool.acquire() as held:
        await _insert(held, "early")

    seen, position = await _all(pool, start)
    assert seen == []  # it is not shown yet: something may come before it
    await transaction.commit()
    await late.close()
    more, position = await _all(pool, position)

    assert more == ["late", "early"]
    assert await _all(pool, position) == ([], position)


async def test_readers_that_follow_many_writers_see_everything_once_and_in_one_order(pool: Pool, database: str) -> None:
    start = await activity.now(pool)
    writers, each = 8, 25
    left = writers

    async def write(number: int) -> None:
        nonlocal left
        held = await asyncpg.connect(database)
        for n in range(each):
            async with held.transaction():
                await _insert(held, f"{number}.{n}a")
                await held.execute("SELECT pg_sleep($1)", (number % 3) / 1000)
                await _insert(held, f"{number}.{n}b")
        await held.close()
        left -= 1

    async def read(limit: int) -> list[str]:
        seen: list[str] = []
        position = start
        while True:
            through = left == 0
            found, position = await _all(pool, position, limit)
            seen += found
            if through and not found:
                return seen

    async with asyncio.timeout(60):
        one, two, *_ = await asyncio.gather(read(7), read(500), *(write(n) for n in range(writers)))

    assert one == two
    assert sorted(one) == sorted(f"{w}.{n}{part}" for w in range(writers) for n in range(each) for part in "ab")
    for w in range(writers):
        assert [kind for kind in one if kind.startswith(f"{w}.")] == [f"{w}.{n}{p}" for n in range(each) for p in "ab"]


async def test_a_position_is_told_as_text_and_one_that_is_none_is_refused(pool: Pool) -> None:
    position = await activity.now(pool)

    assert Position.parse(str(position)) == position
    for text in ("", "1", "a-1", "1-1-1", "-1-1", f"{2**63}-1"):
        with pytest.raises(ConfigError):
            Position.parse(text)


async def test_a_position_from_before_the_database_was_restored_is_now(pool: Pool) -> None:
    await _connector(pool)

    found, position = await activity.since(pool, Position(2**60, 3))

    assert found == []
    await _connector(pool, "other")
    assert [each.connector for each in (await activity.since(pool, position))[0]] == ["other"]


async def test_whoever_listens_is_told_when_there_is_something_new(pool: Pool, database: str) -> None:
    told = asyncio.Event()
    held = await asyncpg.connect(database)
    await held.add_listener(activity.CHANNEL, lambda *_: told.set())

    await _connector(pool)

    async with asyncio.timeout(60):
        await told.wait()
    await held.close()


async def test_the_life_of_a_connector_and_its_run_is_written_down(pool: Pool) -> None:
    start = await activity.now(pool)
    view = await _connector(pool)
    run_id = await requests.ask(pool, view, SPEC, since=date(2025, 1, 8), requested_by="ann")
    held_claim = await claims.claim(pool, view.id, worker="one", table_epoch=0)
    [asked] = await _open(pool, view.id)
    await requests.take(pool, asked, held_claim)
    log = PostgresRunLog(pool, claim=held_claim)
    await log.progress(run_id, Counts(read=1, published=1))
    await log.finish_reading(run_id, Counts(read=2, published=2), note="that was it")
    async with pool.acquire() as held:
        await runs.close(held, run_id, RunStatus.SUCCESS)
    await edit.change(pool, view.id, patch_of({"name": "b", "schedule": {"cron": "0 2 * * *"}}), SPECS, by="bob")
    await pool.execute(
        "INSERT INTO connector_verdicts (connector_id, state, cause) VALUES ($1, 'healthy', '')", view.id
    )
    for _ in range(2):  # the second tells nothing new
        await pool.execute("UPDATE connector_verdicts SET state = 'down', cause = 'silent', checked_at = now()")

    found, _ = await activity.since(pool, start)

    assert [each.kind for each in found] == [
        "connector.created", "run.opened", "run.asked", "run.taken", "run.read", "run.ended", "connector.renamed",
        "connector.scheduled", "health.changed", "health.changed",
    ]  # fmt: skip
    by_kind: dict[str, Activity] = {each.kind: each for each in found}
    assert by_kind["run.asked"].actor == "ann"
    assert by_kind["run.asked"].facts["since"] == "2025-01-08"
    assert by_kind["run.ended"].facts["status"] == "SUCCESS"
    assert by_kind["run.read"].facts["read"] == 2
    assert by_kind["connector.renamed"].actor == "bob"
    assert by_kind["health.changed"].facts == {"state": "down", "cause": "silent"}
    assert {each.connector for each in found} == {"b"}
    of_run = [each.kind for each in await activity.of_run(pool, run_id)]
    assert of_run == ["run.opened", "run.asked", "run.taken", "run.read", "run.ended"]
    later = await activity.of_run(pool, run_id, after=by_kind["run.asked"].position.id, limit=1)
    assert [each.kind for each in later] == ["run.taken"]


async def _open(pool: Pool, connector_id: UUID) -> list[requests.Requested]:
    async with pool.acquire() as held:
        return await requests.open_requests(held, [connector_id])


async def test_what_happened_long_ago_is_forgotten_some_at_a_time(pool: Pool) -> None:
    async with pool.acquire() as held:
        for n in range(5):
            await _insert(held, str(n))
        await held.execute("UPDATE activity SET at = now() - interval '91 days' WHERE kind IN ('0', '1', '2')")

    pruned = [await activity.prune(pool, older_than=timedelta(days=90), most=2) for _ in range(3)]

    assert pruned == [2, 1, 0]
    assert await pool.fetch("SELECT kind FROM activity ORDER BY id") == [("3",), ("4",)]


# runs


async def _ended(pool: Pool, view: ConnectorView, status: RunStatus, run_type: str = "SCHEDULED") -> UUID:
    run_id = uuid4()
    await PostgresRunLog(pool).open(run_id, view.id, triggered_by="SCHEDULER", run_type=run_type)
    async with pool.acquire() as held:
        await runs.close(held, run_id, status)
    return run_id


async def test_runs_come_in_pages_the_newest_first_and_each_once_also_those_of_deleted_connectors(pool: Pool) -> None:
    view = await _connector(pool)
    made = [await _ended(pool, view, RunStatus.SUCCESS) for _ in range(7)]
    await pool.execute(
        "UPDATE connector_runs SET started_at = now() WHERE id = ANY ($1)", made[2:5]
    )  # the same instant
    await connectors.delete(pool, view)

    seen: list[RunView] = []
    after: Place | None = None
    while True:
        found, after = await runs.page(pool, after=after, limit=2)
        seen += found
        assert len(found) <= 2
        if after is None:
            break

    assert sorted(each.id for each in seen) == sorted(made)
    assert [each.started_at for each in seen] == sorted((each.started_at for each in seen), reverse=True)
    assert {each.connector for each in seen} == {"bank"}


async def test_a_list_of_runs_is_restricted_by_connector_status_type_and_time(pool: Pool) -> None:
    one, two = await _connector(pool), await _connector(pool, "other")
    good, bad = await _ended(pool, one, RunStatus.SUCCESS), await _ended(pool, one, RunStatus.FAILED, "BACKFILL")
    others = await _ended(pool, two, RunStatus.SUCCESS)

    async def ids(wanted: Filter) -> set[UUID]:
        return {each.id for each in (await runs.page(pool, wanted))[0]}

    began = (await runs.find_run(pool, str(bad))).started_at
    assert await ids(Filter(connector_id=one.id)) == {good, bad}
    assert await ids(Filter(status="FAILED")) == await ids(Filter(type="BACKFILL")) == {bad}
    assert await ids(Filter(since=began)) == {bad, others}
    assert await ids(Filter(until=began)) == {good}
    assert await ids(Filter(connector_id=two.id, status="FAILED")) == set()


async def test_a_run_is_tried_again_as_it_was_asked_for_and_only_once_it_has_ended(pool: Pool) -> None:
    view = await _connector(pool)
    first = await requests.ask(pool, view, SPEC, since=date(2025, 1, 8), until=date(2025, 1, 10), force=True)
    with pytest.raises(Conflict, match="has not ended"):
        await requests.retry(pool, await runs.find_run(pool, str(first)), SPECS)
    assert await requests.cancel(pool, await runs.find_run(pool, str(first)))

    second = await requests.retry(pool, await runs.find_run(pool, str(first)), SPECS, requested_by="ann")

    again = await runs.find_run(pool, str(second))
    assert (again.type, again.since, again.until, again.force) == (
        "BACKFILL", date(2025, 1, 8), date(2025, 1, 10), True,
    )  # fmt: skip
    assert (again.triggered_by, again.status, again.waiting) == ("ann", RunStatus.RUNNING, True)
    scheduled = await runs.find_run(pool, str(await _ended(pool, view, RunStatus.FAILED)))
    assert (await runs.find_run(pool, str(await requests.retry(pool, scheduled, SPECS)))).type == "MANUAL"
    test = await runs.find_run(pool, str(await _ended(pool, view, RunStatus.FAILED, "TEST")))
    with pytest.raises(Conflict, match="a test"):
        await requests.retry(pool, test, SPECS)
    await edit.pause(pool, view.id)
    with pytest.raises(Conflict, match="not active"):
        await requests.retry(pool, scheduled, SPECS)
    await connectors.delete(pool, view)
    with pytest.raises(Conflict, match="is deleted"):
        await requests.retry(pool, scheduled, SPECS)


async def test_a_run_that_waits_for_the_sink_is_not_cancelled_and_one_that_was_cancelled_only_once(pool: Pool) -> None:
    view, log = await _connector(pool), PostgresRunLog(pool)
    reads, read = uuid4(), uuid4()
    for run_id in (reads, read):
        await log.open(run_id, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await log.finish_reading(read, Counts())

    with pytest.raises(Conflict, match="read to its end"):
        await requests.cancel(pool, await runs.find_run(pool, str(read)))
    assert not await requests.cancel(pool, await runs.find_run(pool, str(reads)), cancelled_by="ann")
    with pytest.raises(Conflict, match="cancelled before"):
        await requests.cancel(pool, await runs.find_run(pool, str(reads)))

    assert (await runs.find_run(pool, str(reads))).cancelled
    assert [(each.kind, each.actor) for each in await activity.of_run(pool, reads)][-1] == ("run.cancelled", "ann")
