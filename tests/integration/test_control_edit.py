"""Connectors changed, paused, renamed, listed and deleted: services of the control plane on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from connectors.spec import ConnectorConfig, SourceSpec
from schemas.checkpoint import Counts
from schemas.errors import ConfigError, Conflict, NotFound, PreconditionFailed
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import activity, edit
from tillstream.control import connector as connectors
from tillstream.control import version as versions
from tillstream.control.connector import ConnectorStatus, ConnectorView, Filter
from tillstream.control.desired import desired
from tillstream.control.edit import patch_of
from tillstream.control.run import PostgresRunLog
from tillstream.control.schedule import Schedule


class FolderConfig(ConnectorConfig):
    directory: Path


SPEC = SourceSpec("folder", "For tests.", FolderConfig, lambda *_: None, "nothing")  # type: ignore[arg-type, return-value]
SPECS = {"folder": SPEC}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=6)
    yield opened
    await close_pool(opened)


async def _connector(pool: Pool, name: str = "bank", **options: Any) -> ConnectorView:
    await connectors.create(pool, name=name, spec=SPEC, configuration={"directory": "/in"}, **options)
    return await connectors.find(pool, name)


async def _patch(pool: Pool, view: ConnectorView, patch: dict[str, Any], **options: Any) -> ConnectorView:
    return (await edit.change(pool, view.id, patch_of(patch), SPECS, **options)).view


# names


@pytest.mark.parametrize(
    "name", ["a", "Zahlungen für März", "a/b", "100%", "日本", "x" * 255, "conn", "7 up", 'say "hi"']
)
async def test_any_printable_text_names_a_connector_and_finds_it(pool: Pool, name: str) -> None:
    await connectors.create(pool, name=name, spec=SPEC, configuration={"directory": "/in"}, provider="p")

    assert (await connectors.find(pool, name)).name == name


@pytest.mark.parametrize("name", ["", "12", "٣", "conn_1", "CONN_x", "a\nb", "a\tb", "\u202egnp", "x" * 256, " ", " a"])
async def test_what_reads_as_a_number_or_does_not_show_names_none(pool: Pool, name: str) -> None:
    with pytest.raises(ConfigError, match="name: must"):
        await connectors.create(pool, name=name, spec=SPEC, configuration={"directory": "/in"}, provider="p")
    view = await _connector(pool)
    with pytest.raises(ConfigError, match="name: must"):
        await _patch(pool, view, {"name": name, "provider": "p"})


async def test_a_connector_is_found_as_seed_004_spells_its_number(pool: Pool) -> None:
    view = await _connector(pool)

    assert (await connectors.find(pool, f"conn_{view.number}")).id == view.id
    with pytest.raises(NotFound):
        await connectors.find(pool, "conn_999")


# change


async def test_a_patch_merges_and_what_it_changed_is_told_key_by_key(pool: Pool) -> None:
    view = await _connector(pool)

    changed = await edit.change(
        pool, view.id, patch_of({"configuration": {"poll_s": 5, "directory": "/b"}, "provider": "acme"}), SPECS, by="me"
    )

    assert {each.key: (each.before, each.after) for each in changed.differences} == {
        "configuration.directory": ("/in", "/b"),
        "configuration.poll_s": (None, 5),
        "provider": ("bank", "acme"),
    }
    assert (changed.view.version, changed.view.provider) == (2, "acme")
    after = await _patch(pool, view, {"configuration": {"poll_s": None}})
    assert (after.configuration, after.version) == ({"directory": "/b"}, 3)


async def test_one_patch_changes_everything_or_nothing(pool: Pool) -> None:
    view = await _connector(pool)
    await _connector(pool, "taken")
    wanted = {"name": "taken", "status": "PAUSED", "configuration": {"poll_s": 5}, "schedule": {"cron": "0 2 * * *"}}

    with pytest.raises(Conflict, match="is there already"):
        await _patch(pool, view, wanted)
    assert await connectors.find(pool, "bank") == view

    after = await _patch(pool, view, {**wanted, "name": "other"}, note="for a while")
    assert (after.name, after.status, after.pause_note) == ("other", ConnectorStatus.PAUSED, "for a while")
    assert after.schedule == Schedule("0 2 * * *", "Asia/Kolkata", enabled=False)
    with pytest.raises(NotFound):
        await connectors.find(pool, "bank")
    assert (await connectors.find(pool, "other")).id == view.id


async def test_everything_wrong_with_a_patch_is_told_at_once_and_nothing_changes(pool: Pool) -> None:
    view = await _connector(pool)

    with pytest.raises(ConfigError) as caught:
        await _patch(
            pool, view, {"configuration": {"poll_s": "often"}, "schedule": {"cron": "61 2 * *", "timezone": "Mars"}}
        )
    with pytest.raises(ConfigError, match="colour: is no key"):
        await _patch(pool, view, {"colour": 1})
    with pytest.raises(ConfigError, match="schedule: must be an object"):
        await _patch(pool, view, {"schedule": []})
    with pytest.raises(Conflict, match="is of kind 'folder'"):
        await _patch(pool, view, {"kind": "sftp"})

    for key in ("poll_s", "schedule.cron", "schedule.timezone"):
        assert key in str(caught.value)
    assert await connectors.find(pool, "bank") == view


async def test_a_dry_run_finds_what_a_real_one_would_and_changes_nothing(pool: Pool) -> None:
    view = await _connector(pool)

    would = await _patch(pool, view, {"name": "b", "configuration": {"poll_s": 5}}, dry_run=True)

    assert (would.name, would.configuration["poll_s"]) == ("b", 5)
    assert await connectors.find(pool, "bank") == view
    assert [each.version for each in await versions.versions(pool, view.id)] == [1]


async def test_of_two_who_patch_what_they_saw_one_is_told_that_it_has_changed(pool: Pool) -> None:
    """Also where both change different keys: who changes has to have seen what holds."""
    view = await _connector(pool)

    async def patch(key: str) -> ConnectorView:
        return await _patch(pool, view, {"configuration": {key: 5}}, expected=view.revision)

    results = await asyncio.gather(patch("poll_s"), patch("parallel"), return_exceptions=True)

    refused = [each for each in results if isinstance(each, PreconditionFailed)]
    done = [each for each in results if isinstance(each, ConnectorView)]
    assert (len(refused), len(done)) == (1, 1)
    assert refused[0].code == "precondition_failed"
    assert await connectors.find(pool, "bank") == done[0]


async def test_every_change_is_another_revision_and_one_that_changes_nothing_is_none(pool: Pool) -> None:
    view = await _connector(pool)
    seen = [view.revision]
    for patch in (
        {"name": "b"},
        {"schedule": {"enabled": True}},
        {"status": "PAUSED"},
        {"configuration": {"poll_s": 5}},
    ):
        seen += [(await _patch(pool, view, patch)).revision]

    assert seen == sorted(set(seen))
    assert (await _patch(pool, view, {"name": "b"})).revision == seen[-1]
    with pytest.raises(PreconditionFailed):
        await edit.resume(pool, view.id, expected=seen[0])
    with pytest.raises(PreconditionFailed):
        await connectors.delete(pool, view, expected=seen[0])


async def test_a_frozen_provider_is_not_patched_and_a_deleted_connector_neither(pool: Pool) -> None:
    view = await _connector(pool)
    await PostgresRunLog(pool).open(uuid4(), view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")

    with pytest.raises(Conflict, match="is frozen"):
        await _patch(pool, view, {"provider": "other"})
    await connectors.delete(pool, view)
    for change in (_patch(pool, view, {"name": "b"}), edit.pause(pool, view.id), edit.resume(pool, view.id)):
        with pytest.raises(NotFound):
            await change


# pause, schedule


async def test_a_pause_keeps_its_note_until_the_connector_is_resumed(pool: Pool) -> None:
    view = await _connector(pool)

    paused = await edit.pause(pool, view.id, note="bank holiday", by="ann")
    assert (paused.status, paused.pause_note) == (ConnectorStatus.PAUSED, "bank holiday")
    assert (await desired(pool)).connectors == ()

    resumed = await edit.resume(pool, view.id, by="bob")
    assert (resumed.status, resumed.pause_note) == (ConnectorStatus.ACTIVE, "")
    found = [(each.kind, each.actor, each.facts.get("note")) for each in await activity.of_connector(pool, view.id)]
    assert found[:2] == [("connector.resumed", "bob", ""), ("connector.paused", "ann", "bank holiday")]


async def test_a_connector_with_a_schedule_does_not_poll_and_one_without_does(pool: Pool) -> None:
    view = await _connector(pool)
    assert [each.polls for each in (await desired(pool)).connectors] == [True]

    await _patch(pool, view, {"schedule": {"cron": "*/5 1-3,7 * jan-mar mon"}})
    assert [each.polls for each in (await desired(pool)).connectors] == [False]

    assert (await _patch(pool, view, {"schedule": None})).schedule == Schedule()
    assert [each.polls for each in (await desired(pool)).connectors] == [True]


@pytest.mark.parametrize(
    "line", ["", "* * * *", "60 * * * *", "* 5-2 * * *", "*/0 * * * *", "a * * * *", "@daily", "1;2 * * * *"]
)
async def test_what_is_no_cron_line_is_refused(pool: Pool, line: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.cron"):
        await _connector(pool, schedule=Schedule(line))


# versions


async def test_every_configuration_is_kept_with_who_made_it_and_two_are_compared(pool: Pool) -> None:
    view = await _connector(pool, by="ann")
    await _patch(pool, view, {"configuration": {"poll_s": 5}}, by="bob")
    await connectors.configure(pool, view, spec=SPEC, configuration={"directory": "/c"}, provider="acme")
    await _patch(pool, view, {"name": "b"})
    await connectors.delete(pool, view)

    found = await versions.versions(pool, view.id)

    assert [(each.version, each.made_by, each.provider) for each in found] == [
        (3, "", "acme"), (2, "bob", "bank"), (1, "ann", "bank"),
    ]  # fmt: skip
    assert (await versions.version(pool, view.id, 2)).configuration == {"directory": "/in", "poll_s": 5}
    assert [each.version for each in await versions.versions(pool, view.id, before=3, limit=1)] == [2]
    differences = await versions.compared(pool, view.id, 1, 3)
    assert {(each.key, each.before, each.after) for each in differences} == {
        ("provider", "bank", "acme"), ("configuration.directory", "/in", "/c"),
    }  # fmt: skip
    for missing in (4, 0, 10**12):
        with pytest.raises(NotFound):
            await versions.version(pool, view.id, missing)


# lists


async def test_connectors_come_in_pages_by_name_and_each_once(pool: Pool) -> None:
    names = [f"c{n:02}" for n in range(7)]
    for name in names:
        await _connector(pool, name)

    seen, after = [], None
    while True:
        found, after = await connectors.page(pool, after=after, limit=3)
        seen.append([view.name for view in found])
        if after is None:
            break

    assert seen == [names[:3], names[3:6], names[6:]]


async def test_a_list_of_connectors_is_restricted_by_text_status_kind_and_health(pool: Pool) -> None:
    axis = await _connector(pool, "Axis 100%", provider="AXIS_BANK")
    other = await _connector(pool, "other", provider="hdfc")
    await edit.pause(pool, other.id)
    await pool.execute("INSERT INTO connector_verdicts (connector_id, state, cause) VALUES ($1, 'down', '')", axis.id)

    async def names(**wanted: str) -> list[str]:
        return [view.name for view in (await connectors.page(pool, Filter(**wanted)))[0]]

    assert await names(q="axis") == await names(q="s_b") == await names(q="0%") == ["Axis 100%"]
    assert await names(q="%") == ["Axis 100%"]
    assert await names(status="PAUSED") == await names(health="unknown") == ["other"]
    assert await names(health="down", kind="folder", status="ACTIVE") == ["Axis 100%"]
    assert await names(kind="sftp") == []
    assert await connectors.count_by_status(pool) == {"ACTIVE": 1, "PAUSED": 1}


# deletion


async def test_what_is_deleted_leaves_the_seeds_tables_and_stays_readable(pool: Pool) -> None:
    view, log, run = await _connector(pool, by="ann"), PostgresRunLog(pool), uuid4()
    await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await log.fail(run, _nothing(), reason="source unavailable")

    await connectors.delete(pool, view, by="bob")

    assert await pool.fetchval("SELECT count(*) FROM sp_v2_connectors") == 0
    assert await pool.fetchval("SELECT count(*) FROM sp_v2_connector_runs") == 0
    kept = await connectors.find_ever(pool, "bank")
    assert (kept.id, kept.number, kept.total_runs, kept.last_run_status) == (view.id, view.number, 1, "FAILED")
    assert (kept.configuration, kept.deleted_at is None) == ({"directory": "/in"}, False)
    happened = [(each.kind, each.actor) for each in await activity.of_connector(pool, view.id, limit=1)]
    assert happened == [("connector.deleted", "bob")]
    again = await _connector(pool)
    assert again.number != view.number


async def test_a_run_that_opens_while_its_connector_is_deleted_has_a_number_and_ends(pool: Pool) -> None:
    """An outdated worker may be late; what it published is on record all the same."""
    view, log, run = await _connector(pool), PostgresRunLog(pool), uuid4()
    await connectors.delete(pool, view)

    await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    await log.fail(run, _nothing(), reason="too late")

    row = await pool.fetchrow("SELECT * FROM every_run WHERE id = $1", run)
    assert (row["status"], row["reason"], row["triggered_by"]) == ("FAILED", "too late", "SCHEDULER")
    assert row["number"] is not None
    assert await pool.fetchval("SELECT count(*) FROM sp_v2_connector_runs") == 0


async def test_a_worker_that_writes_while_its_connector_is_deleted_neither_deadlocks_nor_fails(pool: Pool) -> None:
    view, log = await _connector(pool), PostgresRunLog(pool)
    runs: list[UUID] = [uuid4() for _ in range(20)]
    for run in runs:
        await log.open(run, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")

    async def work(run: UUID) -> None:
        for _ in range(10):
            await log.progress(run, _nothing())
        await log.fail(run, _nothing(), reason="done")

    await asyncio.gather(*(work(run) for run in runs), connectors.delete(pool, view))

    assert await pool.fetch("SELECT DISTINCT status FROM every_run") == [("FAILED",)]


def _nothing() -> Counts:
    return Counts()
