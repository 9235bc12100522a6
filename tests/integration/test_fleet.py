"""Which connectors a worker runs: desired state in a real PostgreSQL, everything else in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from connectors import directory
from connectors.clock import SystemClock
from connectors.runner import State
from connectors.testing import Faults, Memory, MemoryCheckpoints, MemoryDeadLetters, MemoryPublisher
from schemas.metric import NullMeter
from sinks.migrate import migrate
from sinks.pool import Pool, close_pool, open_pool
from tillstream.control import claim as claims
from tillstream.control import connector as connectors
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.fleet import Fleet, World

ROW = '{"type":"payin","reference":"%s","status":"succeeded","asset":"USD","amount":1}'


class MemoryState(MemoryCheckpoints):
    """The state table, with owners."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, Faults())
        self.memory = memory
        self.disowned: set[UUID] = set()

    def owns(self, connector_id: UUID) -> bool:
        return connector_id not in self.disowned

    def newest_epoch(self, connector_id: UUID) -> int:
        epochs = [known.epoch for known in self.memory.state.values() if known.connector_id == connector_id]
        return max(epochs, default=0)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrate(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def world(pool: Pool, memory: Memory) -> World:
    return World(
        pool=pool,
        publisher=MemoryPublisher(memory, Faults()),
        dead_letters=MemoryDeadLetters(memory, Faults()),
        state=MemoryState(memory),
        clock=SystemClock(),
        meter=NullMeter(),
        specs={"directory": directory.SPEC},
        worker="one",
    )


@contextlib.asynccontextmanager
async def sailing(world: World) -> AsyncIterator[Fleet]:
    fleet = Fleet(world, refresh_s=0.05, heartbeat_s=0.05)
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        fleet.stop()
        await asyncio.wait_for(task, 15)


async def a_connector(pool: Pool, folder: Path, name: str = "bank") -> ConnectorView:
    folder.mkdir(exist_ok=True)
    configuration = {"directory": str(folder), "poll_s": 0.05, "rest_s": 0}
    await connectors.create(pool, name=name, spec=directory.SPEC, configuration=configuration)
    return await connectors.find(pool, name)


async def until(ask: Callable[[], bool], *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if ask():
                return
            await asyncio.sleep(0.02)


async def report(pool: Pool, view: ConnectorView, *, problem: str = "") -> asyncpg.Record:
    """What the worker says of the connector, once it says this."""
    async with asyncio.timeout(20):
        while True:
            found = await pool.fetchrow("SELECT * FROM connector_reports WHERE connector_id = $1", view.id)
            if found is not None and problem in found["problem"].lower():
                return found
            await asyncio.sleep(0.02)


async def test_a_connector_that_is_created_runs_within_seconds_and_reads(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    async with sailing(world) as fleet:
        view = await a_connector(pool, tmp_path / "in")
        (tmp_path / "in" / "a.json").write_text(ROW % "1")
        await until(lambda: len(memory.events) == 1)
        await until(lambda: fleet.statuses["bank"].open_runs == 0)

    assert memory.events[0].payment is not None
    assert memory.events[0].payment.provider == "bank"
    assert (await report(pool, view))["state"] == "running"
    runs = await pool.fetch("SELECT * FROM connector_runs")
    assert [(row["connector_id"], row["published"]) for row in runs] == [(view.id, 1)]
    assert runs[0]["reading_finished_at"] is not None


async def test_a_paused_connector_stops_and_a_resumed_one_goes_on_where_it_stood(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    (tmp_path / "in" / "a.json").write_text(ROW % "1")
    async with sailing(world) as fleet:
        await until(lambda: len(memory.events) == 1)
        await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)
        await until(lambda: not fleet.statuses)
        (tmp_path / "in" / "b.json").write_text(ROW % "2")

        await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)

        await until(lambda: len(memory.events) == 2)
        assert await pool.fetchval("SELECT epoch FROM connector_claims") == 2
    assert [event.payment.reference for event in memory.events if event.payment] == ["1", "2"]


async def test_a_deleted_connector_stops_and_its_name_starts_another_one(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    async with sailing(world) as fleet:
        await until(lambda: "bank" in fleet.statuses)

        await connectors.delete(pool, view)

        await until(lambda: not fleet.statuses)
        (tmp_path / "in" / "a.json").write_text(ROW % "1")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "b.json").write_text(ROW % "2")
        successor = await a_connector(pool, tmp_path / "out")
        await until(lambda: len(memory.events) == 1)

    assert [event.payment.reference for event in memory.events if event.payment] == ["2"]
    assert successor.id != view.id


async def test_a_new_configuration_starts_the_connector_anew(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.json").write_text(ROW % "1")
    async with sailing(world) as fleet:
        await until(lambda: "bank" in fleet.statuses)

        configuration = {**view.configuration, "directory": str(tmp_path / "other")}
        await connectors.configure(pool, view, spec=directory.SPEC, configuration=configuration)

        await until(lambda: len(memory.events) == 1)


async def test_a_connector_whose_claim_was_taken_is_let_go_and_what_it_writes_is_refused(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    async with sailing(world) as fleet:
        await until(lambda: "bank" in fleet.statuses)
        assert isinstance(world.state, MemoryState)
        world.state.disowned.add(view.id)

        taken = await claims.claim(pool, view.id, worker="two", table_epoch=0)

        await until(lambda: not fleet.statuses)
        assert await pool.fetchval("SELECT (epoch, worker) = ($1, 'two') FROM connector_claims", taken.epoch)


async def test_a_worker_runs_only_the_connectors_whose_state_it_owns(pool: Pool, world: World, tmp_path: Path) -> None:
    mine = await a_connector(pool, tmp_path / "in", "mine")
    others = await a_connector(pool, tmp_path / "in", "others")
    assert isinstance(world.state, MemoryState)
    world.state.disowned.add(others.id)

    async with sailing(world) as fleet:
        await until(lambda: set(fleet.statuses) == {"mine"})
        world.state.disowned = {mine.id}
        await until(lambda: set(fleet.statuses) == {"others"})


async def test_a_connector_that_this_version_cannot_run_is_reported_with_the_cause_and_the_others_run(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in", "good")
    bad = await a_connector(pool, tmp_path / "in", "bad")
    await pool.execute("UPDATE connectors SET kind = 'pigeon' WHERE id = $1", bad.id)

    async with sailing(world) as fleet:
        await until(lambda: set(fleet.statuses) == {"good"})
        found = await report(pool, bad)
        assert (await report(pool, view))["problem"] == ""

    assert (found["state"], found["problem"]) == ("paused", "no source of kind 'pigeon' here")


async def test_a_missing_folder_is_reported_as_the_connectors_problem_and_heals(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    (tmp_path / "in").rmdir()

    async with sailing(world) as fleet:
        await until(lambda: bool(fleet.statuses) and fleet.statuses["bank"].state is State.DEGRADED)
        await report(pool, view, problem="no such file or directory")
        (tmp_path / "in").mkdir()
        await until(lambda: fleet.statuses["bank"].state is State.RUNNING)


async def test_what_runs_goes_on_while_the_database_is_away(
    pool: Pool, world: World, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_connector(pool, tmp_path / "in")
    nowhere = await asyncpg.create_pool("postgresql://127.0.0.1:1/x", min_size=0, max_size=1)
    fleet = Fleet(world, refresh_s=0.05, heartbeat_s=0.05)
    task = asyncio.create_task(fleet.run())
    await until(lambda: "bank" in fleet.statuses)

    fleet._world = replace(world, pool=nowhere)
    (tmp_path / "in" / "a.json").write_text(ROW % "1")

    await until(lambda: len(memory.events) == 1)
    assert set(fleet.statuses) == {"bank"}
    fleet.stop()
    await asyncio.wait_for(task, 15)


class Broken:
    """A source with a bug."""

    def __init__(self, *_: object) -> None:
        pass

    async def tasks(self, known: Mapping[str, object]) -> AsyncIterator[object]:
        raise ZeroDivisionError
        yield

    async def close(self) -> None:
        pass


async def test_a_bug_in_a_source_is_its_connectors_trouble_alone(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "bad", "bad")
    await pool.execute("UPDATE connectors SET kind = 'broken' WHERE id = $1", view.id)
    await a_connector(pool, tmp_path / "in", "good")
    broken = replace(directory.SPEC, kind="broken", factory=Broken)  # type: ignore[arg-type]

    async with sailing(replace(world, specs={"directory": directory.SPEC, "broken": broken})):
        await report(pool, view, problem="internal error in listing: zerodivisionerror")
        (tmp_path / "in" / "a.json").write_text(ROW % "1")
        await until(lambda: len(memory.events) == 1)
