"""Which connectors a worker runs: desired state in a real PostgreSQL, everything else in memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from connectors import directory
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.ports import Ports
from connectors.runner import State
from connectors.source import Batch, Cursor, Skipped, Task
from connectors.testing import START, Faults, Memory, MemoryCheckpoints, MemoryDeadLetters, MemoryPublisher
from connectors.thread import ThreadsByOwner
from schemas import metric
from schemas.checkpoint import Checkpoint
from schemas.errors import ConfigError, Conflict, SourceMisconfigured, SourceUnavailable
from sinks.mirror import CheckpointMirror
from sinks.pool import Pool, close_pool, open_pool
from tests.database import migrated
from tillstream.control import claim as claims
from tillstream.control import connector as connectors
from tillstream.control import edit, lookout
from tillstream.control import request as requests
from tillstream.control import run as runs
from tillstream.control.connector import ConnectorStatus, ConnectorView
from tillstream.control.desired import desired
from tillstream.control.edit import patch_of
from tillstream.control.fleet import Fleet, World
from tillstream.control.member import GIVE_UP_S, STOP_S
from tillstream.control.report import TaskRow, tasks_of
from tillstream.control.run import PostgresRunLog, RunStatus, RunView
from tillstream.metrics import PrometheusMeter

ROW = '{"type":"payin","reference":"%s","status":"succeeded","asset":"USD","amount":1}'


class MemoryState(MemoryCheckpoints):
    """The state table, with owners."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, Faults())
        self.memory = memory
        self.disowned: set[UUID] = set()
        self.announced: dict[UUID, int] = {}

    def owns(self, connector_id: UUID) -> bool:
        return connector_id not in self.disowned

    def newest_epoch(self, connector_id: UUID) -> int:
        epochs = [known.epoch for known in self.memory.state.values() if known.connector_id == connector_id]
        return max([self.announced.get(connector_id, 0), *epochs])

    async def announce(self, connector_id: UUID, epoch: int) -> None:
        self.announced[connector_id] = max(epoch, self.announced.get(connector_id, 0))


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    await migrated(database)
    opened = await open_pool(database, size=4)
    yield opened
    await close_pool(opened)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def world(pool: Pool, memory: Memory) -> World:
    state = MemoryState(memory)
    ports = Ports(
        publisher=MemoryPublisher(memory, Faults()),
        dead_letters=MemoryDeadLetters(memory, Faults()),
        checkpoints=state,
        runs=PostgresRunLog(pool),
        clock=SystemClock(),
    )
    return World(pool, ports, state, specs={"directory": directory.SPEC}, worker="one")


@contextlib.asynccontextmanager
async def sailing(world: World, *, refresh_s: float = 0.05, heartbeat_s: float = 0.05) -> AsyncIterator[Fleet]:
    fleet = Fleet(world, refresh_s=refresh_s, heartbeat_s=heartbeat_s)
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        fleet.stop()
        await asyncio.wait_for(task, 15)


async def a_connector(pool: Pool, folder: Path, name: str = "bank", **options: object) -> ConnectorView:
    folder.mkdir(exist_ok=True)
    configuration = {"directory": str(folder), "poll_s": 0.05, "rest_s": 0, **options}
    await connectors.create(pool, name=name, spec=directory.SPEC, configuration=configuration)
    return await connectors.find(pool, name)


async def until(ask: Callable[[], bool], *, seconds: float = 80.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if ask():
                return
            await asyncio.sleep(0.02)


async def report(pool: Pool, view: ConnectorView, *, problem: str = "", state: str = "") -> asyncpg.Record:
    """What the worker says of the connector, once it says this."""
    async with asyncio.timeout(20):
        while True:
            found = await pool.fetchrow("SELECT * FROM connector_reports WHERE connector_id = $1", view.id)
            if found is not None and problem in found["problem"].lower() and state in found["state"]:
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
        assert (await report(pool, view, state="running"))["problem"] == ""

    assert memory.events[0].payment is not None
    assert memory.events[0].payment.provider == "bank"
    assert (await report(pool, view))["state"] == "stopped"
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


# --- sources that hang ---


class Stuck(directory.DirectorySource):
    """Reads as a folder does, and hangs where its folder has a file of that name: every way a source can hang."""

    released = threading.Event()

    def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        how = getattr(self, f"_{task.descriptor.partition('.')[0]}", None)
        return super().read(task, since) if how is None else how()

    async def _thread(self) -> AsyncIterator[Batch]:
        yield Batch((), (), {})
        await asyncio.to_thread(self.released.wait, 60)

    async def _stubborn(self) -> AsyncIterator[Batch]:
        yield Batch((), (), {})
        while not self.released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        while not self.released.is_set() and list(Path(self._config.directory).glob("close.*")):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)


@pytest.fixture
async def stuck(world: World) -> AsyncIterator[World]:
    Stuck.released = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadsByOwner())
    yield replace(world, specs={"directory": replace(directory.SPEC, factory=Stuck)})
    Stuck.released.set()


async def hung(pool: Pool, folder: Path, how: str) -> ConnectorView:
    view = await a_connector(pool, folder, "hung", stop_s=0.5)
    (folder / f"{how}.json").write_text(ROW % "0")
    return view


@pytest.mark.parametrize("how", ["thread", "stubborn", "close"])
async def test_a_source_that_does_not_stop_holds_up_no_other_connector_and_is_told(
    pool: Pool, stuck: World, memory: Memory, tmp_path: Path, how: str
) -> None:
    view = await hung(pool, tmp_path / "hung", how)
    good = await a_connector(pool, tmp_path / "in", "good")
    assert isinstance(stuck.state, MemoryState)

    async with sailing(stuck) as fleet:
        await until(lambda: "hung" in fleet.statuses and bool(fleet.statuses["hung"].listed_at))
        await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)
        await connectors.set_status(pool, good.id, ConnectorStatus.PAUSED)
        began = time.monotonic()
        await until(lambda: "good" not in fleet.statuses)
        assert time.monotonic() - began < STOP_S / 2
        await connectors.set_status(pool, good.id, ConnectorStatus.ACTIVE)
        (tmp_path / "in" / "a.json").write_text(ROW % "1")
        await until(lambda: any(event.payment and event.payment.reference == "1" for event in memory.events))
        await until(lambda: "hung" not in fleet.statuses)

        await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)

        assert "calls of its source do not end" in (await report(pool, view, problem="do not end"))["problem"]
        assert [left.left_behind > 0 for left in fleet._left] == [True]
        Stuck.released.set()
        await until(lambda: not fleet._left)


async def test_letting_go_of_partitions_waits_for_no_source_longer_than_its_bound(
    pool: Pool, stuck: World, tmp_path: Path
) -> None:
    view = await hung(pool, tmp_path / "hung", "stubborn")
    assert isinstance(stuck.state, MemoryState)

    async with sailing(stuck) as fleet:
        await until(lambda: "hung" in fleet.statuses and fleet.statuses["hung"].active == 1)
        stuck.state.disowned = {view.id}
        began = time.monotonic()
        await fleet.release()
        assert time.monotonic() - began < STOP_S + GIVE_UP_S + 20
        Stuck.released.set()


async def test_partitions_are_let_go_of_only_after_the_last_checkpoint(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    faults = Faults()
    world = replace(world, ports=replace(world.ports, publisher=MemoryPublisher(memory, faults)))
    assert isinstance(world.state, MemoryState)
    view = await a_connector(pool, tmp_path / "in", checkpoint_s=100)
    gate = faults.hold("publish:done")
    (tmp_path / "in" / "a.json").write_text(ROW % "1")
    async with sailing(world) as fleet:
        await until(lambda: len(memory.log) == 1)
        world.state.disowned = {view.id}

        releasing = asyncio.create_task(fleet.release())
        await asyncio.sleep(0.2)
        assert not releasing.done()
        gate.set()
        await asyncio.wait_for(releasing, 60)

        (checkpoint,) = memory.state.values()
        assert checkpoint.cursor is not None
        assert "bank" not in {name for name, status in fleet.statuses.items() if status.state is State.RUNNING}


async def test_a_claim_that_is_under_way_ends_with_its_partition(pool: Pool, world: World, tmp_path: Path) -> None:
    view = await a_connector(pool, tmp_path / "in")
    assert isinstance(world.state, MemoryState)
    world.state._faults.hold("load")

    async with sailing(world) as fleet:
        await until(lambda: view.id in fleet._members)
        world.state.disowned = {view.id}
        await asyncio.wait_for(fleet.release(), 60)

    assert await pool.fetchval("SELECT count(*) FROM connector_claims") == 0


# --- two workers ---


async def test_a_successor_fences_a_worker_that_never_let_go_and_every_writing_of_that_is_refused(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    """As a worker that was frozen past its session, and that has not found out yet."""
    view = await a_connector(pool, tmp_path / "in")
    faults = Faults()
    frozen = replace(world, ports=replace(world.ports, publisher=MemoryPublisher(memory, faults)), worker="frozen")
    gate = faults.hold("publish:half")
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(ROW % n for n in range(10)))
    async with sailing(frozen, heartbeat_s=60) as old:
        await until(lambda: len(memory.log) == 5)

        async with sailing(replace(world, state=MemoryState(memory), worker="heir")):
            await until(lambda: len(memory.log) == 15)
            await eventually(lambda: pool.fetchval("SELECT 1 FROM connector_runs WHERE closed_at IS NOT NULL"))
            gate.set()
            await until(lambda: not any(status.active for status in old.statuses.values()))

            found = await pool.fetchrow("SELECT worker, epoch FROM connector_reports WHERE connector_id = $1", view.id)
            assert (found["worker"], found["epoch"]) == ("heir", 2)

    assert len(memory.log) == 20  # what the outdated worker published beside: the same events
    assert len(memory.event_ids) == 10
    told = [(view.status, view.published, view.awaiting_sink) for view in reversed(await runs.list_runs(pool))]
    assert told == [(RunStatus.FAILED, 0, False), (RunStatus.RUNNING, 10, True)]


# --- runs that are asked for ---


async def test_a_run_that_is_asked_for_begins_at_once_on_a_signal_and_tells_what_it_skipped(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in", poll_s=3600)
    (tmp_path / "in" / "a.json").write_text(ROW % "1")
    async with sailing(world, refresh_s=3600) as fleet:
        await until(lambda: "bank" in fleet.statuses and fleet.statuses["bank"].listed_at is not None)

        run_id = await requests.ask(pool, view, directory.SPEC, requested_by="USER_123")

        found = await read(pool, run_id)

    assert (found.type, found.triggered_by, found.read, found.skipped) == ("MANUAL", "USER_123", 0, 1)
    assert found.note == "skipped 1 done before (a.json)"
    row = await pool.fetchrow("SELECT * FROM run_requests")
    assert (row["epoch"], row["worker"], row["ended_at"] is not None) == (1, "one", True)


async def test_a_run_asked_of_a_paused_connector_or_of_days_it_does_not_know_is_refused(
    pool: Pool, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")

    with pytest.raises(ConfigError, match="knows no days"):
        await requests.ask(pool, view, directory.SPEC, since=date(2025, 1, 8))
    dated = replace(directory.SPEC, takes_dates=True)
    with pytest.raises(ConfigError, match="is after the last"):
        await requests.ask(pool, view, dated, since=date(2025, 1, 9), until=date(2025, 1, 8))
    await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)
    with pytest.raises(Conflict, match="not active"):
        await requests.ask(pool, view, directory.SPEC)
    assert await runs.list_runs(pool) == []


async def test_a_run_waits_for_a_worker_and_survives_the_ones_that_die(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in", poll_s=3600, checkpoint_s=0)
    run_id = await requests.ask(pool, view, directory.SPEC)
    assert (await runs.find_run(pool, str(run_id))).waiting
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(ROW % n for n in range(10)))
    faults = Faults()
    faults.hold("publish:half")
    dying = replace(world, ports=replace(world.ports, publisher=MemoryPublisher(memory, faults)))
    fleet = Fleet(dying, refresh_s=0.05, heartbeat_s=0.05)
    task = asyncio.create_task(fleet.run())
    await until(lambda: len(memory.log) == 5)
    faults.dead = True
    task.cancel()  # no worker that was killed ends anything
    for member in fleet._members.values():
        member._life.cancel()
    await asyncio.wait({task})

    async with sailing(replace(world, worker="two")):
        found = await read(pool, run_id)

    assert (found.read, found.published, found.note) == (10, 10, "")
    assert await pool.fetchval("SELECT worker FROM run_requests") == "two"
    assert len(await runs.list_runs(pool)) == 1
    assert {event.lineage.run_id for event in memory.events if event.lineage} == {run_id}


async def test_a_run_that_was_begun_while_its_connector_changed_hands_goes_on(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    """The successor looked before its predecessor took the request, and claims after that."""
    view = await a_connector(pool, tmp_path / "in", poll_s=3600)
    (tmp_path / "in" / "a.json").write_text(ROW % "1")
    assert isinstance(world.state, MemoryState)
    gate = world.state._faults.hold("load")
    async with sailing(world, refresh_s=3600) as fleet:
        await until(lambda: view.id in fleet._members)
        run_id = await requests.ask(pool, view, directory.SPEC)
        before = await claims.claim(pool, view.id, worker="before", table_epoch=0)
        [asked] = (await desired(pool)).requests
        assert await requests.take(pool, asked, before)
        await checkpointed(memory, view, run_id)

        gate.set()

        found = await read(pool, run_id)
    assert (found.published, found.reason) == (1, "")


async def checkpointed(memory: Memory, view: ConnectorView, run_id: UUID) -> None:
    """A task that somebody has begun under the run, and not read."""
    key = hashlib.sha256((ROW % "1").encode()).hexdigest()
    begun = Checkpoint(
        connector_id=view.id, task=key, run_id=run_id, epoch=1, seq=1, revision_at=START, updated_at=START
    )
    memory.state[key] = begun


async def test_a_run_is_cancelled_while_it_waits_while_it_reads_and_not_after_it_ended(
    pool: Pool, stuck: World, tmp_path: Path
) -> None:
    view = await hung(pool, tmp_path / "hung", "thread")
    waiting = await requests.ask(pool, view, directory.SPEC)
    assert await requests.cancel(pool, await runs.find_run(pool, str(waiting)))
    reading = await requests.ask(pool, view, directory.SPEC)
    async with sailing(stuck) as fleet:
        await until(lambda: "hung" in fleet.statuses and fleet.statuses["hung"].active == 1)

        assert not await requests.cancel(pool, await runs.find_run(pool, str(reading)), cancelled_by="USER_123")

        assert (await closed(pool, reading)).reason == "cancelled"
        assert fleet.statuses["hung"].state is not State.PAUSED
    assert (await runs.find_run(pool, str(waiting))).reason == "cancelled"
    with pytest.raises(Conflict, match="has ended"):
        await requests.cancel(pool, await runs.find_run(pool, str(reading)))


async def test_runs_of_a_connector_that_is_deleted_end_with_it(pool: Pool, tmp_path: Path) -> None:
    view = await a_connector(pool, tmp_path / "in")
    run_id = await requests.ask(pool, view, directory.SPEC)

    await connectors.delete(pool, view)

    assert (await runs.find_run(pool, str(run_id))).reason == "cancelled: its connector was deleted"


async def test_a_run_that_nobody_asked_for_is_cancelled_and_nothing_is_published_under_it_afterwards(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    """In the middle of a batch, whose acknowledgement never comes; the next run reads what this one left."""
    faults = Faults()
    gate = faults.hold("publish:half")
    slow = replace(world, ports=replace(world.ports, publisher=MemoryPublisher(memory, faults)))
    view = await a_connector(pool, tmp_path / "in", checkpoint_s=0)
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(ROW % n for n in range(10)))
    async with sailing(slow, refresh_s=3600) as fleet:
        await until(lambda: len(memory.log) == 5)
        await eventually(lambda: pool.fetchval("SELECT 1 FROM connector_runs"))
        [running] = await runs.list_runs(pool)

        assert not await requests.cancel(pool, running, cancelled_by="USER_123")
        async with asyncio.timeout(60):  # what it waits for never comes
            ended = await closed(pool, running.id)
        published = [event for event in memory.events if event.lineage and event.lineage.run_id == running.id]
        gate.set()
        await until(lambda: len(memory.event_ids) == 10)
        await until(lambda: not fleet.statuses["bank"].open_runs)

    assert (ended.status, ended.reason, ended.cancelled) == (RunStatus.FAILED, "cancelled", True)
    assert len(published) == 5
    assert [event for event in memory.events if event.lineage and event.lineage.run_id == running.id] == published
    others = [each for each in await runs.list_runs(pool) if each.id != running.id]
    assert [(each.published, each.type) for each in others if each.read] == [(10, "SCHEDULED")]
    assert (await connectors.find(pool, view.name)).status is ConnectorStatus.ACTIVE


async def test_a_run_cancelled_in_its_listing_makes_no_more_work_of_it(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    """Else what the listing still finds would hold the run open, or be published under it."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(directory.DirectorySource):
        async def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
            async for page in super().tasks(known):
                for item in page:
                    yield [item]
                    if isinstance(item, Task) and not go_on.is_set():
                        begun.set()
                        await go_on.wait()

    spec = replace(directory.SPEC, factory=Slow)
    await a_connector(pool, tmp_path / "in", deadline_s=600)
    for n in range(3):
        (tmp_path / "in" / f"{n}.json").write_text(ROW % n)
    async with sailing(replace(world, specs={"directory": spec}), refresh_s=3600):
        await asyncio.wait_for(begun.wait(), 60)
        await until(lambda: len(memory.event_ids) == 1)
        await eventually(lambda: pool.fetchval("SELECT 1 FROM connector_runs"))
        [running] = await runs.list_runs(pool)

        await requests.cancel(pool, running)
        async with asyncio.timeout(60):
            assert (await closed(pool, running.id)).reason == "cancelled"
        go_on.set()
        await until(lambda: len(memory.event_ids) == 3)

    under = [event for event in memory.events if event.lineage and event.lineage.run_id == running.id]
    assert len(under) == 1
    begun_under = {saved.task for saved, _ in memory.saved if saved.run_id == running.id}
    assert len(begun_under) == 1


async def test_a_cancelled_run_whose_worker_died_is_ended_by_the_next_one(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in", poll_s=3600)
    run_id = UUID(int=7)
    await PostgresRunLog(pool).open(run_id, view.id, triggered_by="SCHEDULER", run_type="SCHEDULED")
    assert not await requests.cancel(pool, await runs.find_run(pool, str(run_id)))

    async with sailing(world):
        ended = await closed(pool, run_id)

    assert (ended.status, ended.reason) == (RunStatus.FAILED, "cancelled")


async def test_a_connector_with_a_schedule_runs_what_is_asked_for_and_nothing_by_itself(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    other = await a_connector(pool, tmp_path / "other", "polls")
    planned = patch_of({"schedule": {"cron": "0 2 * * *"}})
    await edit.change(pool, view.id, planned, {"directory": directory.SPEC})
    (tmp_path / "in" / "a.json").write_text(ROW % "1")
    async with sailing(world) as fleet:
        await until(lambda: set(fleet.statuses) == {"bank", "polls"})
        (tmp_path / "other" / "b.json").write_text(ROW % "2")  # is read by polling, long after `a` would have been
        await until(lambda: len(memory.event_ids) == 1)
        begun: list[UUID] = []
        async with asyncio.timeout(60):
            while not begun:
                begun = [run.connector_id for run in await runs.list_runs(pool)]
        assert begun == [other.id]

        run_id = await requests.ask(pool, view, directory.SPEC)
        assert (await read(pool, run_id)).published == 1
        (tmp_path / "in" / "c.json").write_text(ROW % "3")

        unplanned = patch_of({"schedule": {"cron": None}})
        await edit.change(pool, view.id, unplanned, {"directory": directory.SPEC})
        await until(lambda: len(memory.event_ids) == 3)


# --- tasks, as another process sees them ---


async def test_tasks_are_shown_to_any_process_also_those_of_earlier_lives(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    (tmp_path / "in" / "001.json").write_text(ROW % "1")
    (tmp_path / "in" / "002.json").write_text("{")
    async with sailing(world) as fleet:
        await until(lambda: len(memory.letters) == 1 and not fleet.statuses["bank"].open_runs)
        shown = await tasks(pool, view, count=3)
        assert [(task.descriptor, task.status, task.live) for task in shown] == [
            ("directory", "active", True),
            ("001.json", "terminated", True),
            ("002.json", "failed", True),
        ]
        assert [task.id for task in shown[:2]] == ["ImRpcmVjdG9yeSI=", "IjAwMS5qc29uIg=="]  # seed 000's
        told = (await connectors.find(pool, "bank")).report
        assert told is not None
        assert (told.worker, told.state, told.pending) == ("one", "degraded", 0)

    await CheckpointMirror(pool).mirror(list(memory.state.values()))
    async with sailing(world) as fleet:
        await until(lambda: "bank" in fleet.statuses and fleet.statuses["bank"].listed_at is not None)
        later = await tasks(pool, view, count=3)

    assert [(task.descriptor, task.status, task.live) for task in later[1:]] == [
        ("001.json", "terminated", False),
        ("002.json", "failed", False),
    ]
    assert [task.id for task in later] == [task.id for task in shown]


async def tasks(pool: Pool, view: ConnectorView, *, count: int) -> list[TaskRow]:
    async with asyncio.timeout(20):
        while True:
            found = await tasks_of(pool, view.id)
            ended = all(task.status not in {"active", "pending"} for task in found[1:])
            if len(found) == count and found[0].status == "active" and ended:
                return found
            await asyncio.sleep(0.02)


async def eventually(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.02)


async def read(pool: Pool, run_id: UUID) -> RunView:
    """The run, once it is read to its end."""

    async def ask() -> bool:
        return (await runs.find_run(pool, str(run_id))).awaiting_sink

    await eventually(ask)
    return await runs.find_run(pool, str(run_id))


async def closed(pool: Pool, run_id: UUID) -> RunView:
    async def ask() -> bool:
        return (await runs.find_run(pool, str(run_id))).completed_at is not None

    await eventually(ask)
    return await runs.find_run(pool, str(run_id))


# --- what blocked a worker waits ---


async def test_a_connector_that_blocked_a_worker_waits_until_it_is_configured_anew(
    pool: Pool, world: World, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    held = await claims.claim(pool, view.id, worker="ended", table_epoch=0)
    async with pool.acquire() as connection:
        await claims.blame(connection, held)

    async with sailing(world) as fleet:
        told = await report(pool, view, problem="blocked the event loop of a worker")
        assert (told["state"], fleet.statuses) == ("degraded", {})

        await connectors.configure(pool, view, spec=directory.SPEC, configuration=view.configuration)

        await until(lambda: "bank" in fleet.statuses)


# --- a connector that needs somebody ---


class Refusing(directory.DirectorySource):
    """Needs somebody as long as its folder holds a file `closed`."""

    def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Sequence[Task | Skipped]]:
        if (Path(self._config.directory) / "closed").exists():
            raise SourceMisconfigured("the door is closed")
        return super().tasks(known)


async def test_a_connector_that_paused_itself_refuses_requests_and_goes_on_once_it_is_resumed(
    pool: Pool, world: World, memory: Memory, tmp_path: Path
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    (tmp_path / "in" / "closed").touch()
    async with sailing(replace(world, specs={"directory": replace(directory.SPEC, factory=Refusing)})):
        assert (await report(pool, view, state="paused"))["problem"] == "the door is closed"
        run_id = await requests.ask(pool, view, directory.SPEC)
        assert (await closed(pool, run_id)).reason == "the connector is paused: the door is closed"
        (tmp_path / "in" / "closed").unlink()
        (tmp_path / "in" / "a.json").write_text(ROW % "1")

        await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)

        await until(lambda: len(memory.events) == 1)


# --- what is kept for a connector that rests


class Holding(Refusing):
    """Something is kept for it until it has read."""

    def __init__(self, config: directory.DirectoryConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.context = context

    async def look(self) -> None:
        if (Path(self._config.directory) / "unseen").exists():
            raise SourceUnavailable("the database is away")
        self.context.meter.set(metric.HELD_BACK_BYTES, 7, connector=self.context.connector)


@pytest.fixture
def meter() -> PrometheusMeter:
    return PrometheusMeter()


@pytest.fixture
def holding(world: World, meter: PrometheusMeter, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(lookout, "EVERY_S", 0.05)
    spec = replace(directory.SPEC, factory=Holding, holds_back=True)
    return replace(world, ports=replace(world.ports, meter=meter), specs={"directory": spec})


def tells(meter: PrometheusMeter, sample: str) -> bool:
    return f"\n{sample}\n" in meter.exposition().decode()


@pytest.mark.parametrize("how", ["by an operator", "by itself"])
async def test_what_is_kept_for_a_paused_connector_is_looked_at_by_its_owner_alone(
    pool: Pool, holding: World, meter: PrometheusMeter, tmp_path: Path, how: str
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    async with sailing(holding) as fleet:
        await until(lambda: tells(meter, 'tillstream_connector_state{connector="bank",state="running"} 1.0'))
        assert "\ntillstream_held_back" not in gauges(meter)
        if how == "by itself":
            (tmp_path / "in" / "closed").touch()
        else:
            await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)

        await until(lambda: tells(meter, 'tillstream_held_back_bytes{connector="bank"} 7.0'))
        await until(lambda: tells(meter, 'tillstream_held_back_unseen{connector="bank"} 0.0'))
        assert tells(meter, 'tillstream_connector_state{connector="bank",state="paused"} 1.0') == (how == "by itself")
        (tmp_path / "in" / "unseen").touch()
        await until(lambda: tells(meter, 'tillstream_held_back_unseen{connector="bank"} 1.0'))
        assert "tillstream_held_back_bytes{" not in meter.exposition().decode()
        holding.state.disowned.add(view.id)
        fleet.assigned()
        await until(lambda: 'connector="bank"' not in gauges(meter))


def gauges(meter: PrometheusMeter) -> str:
    lines = meter.exposition().decode().splitlines()
    return "\n".join(line for line in lines if "_total{" not in line)


async def test_a_resumed_connector_is_looked_at_no_more(
    pool: Pool, holding: World, meter: PrometheusMeter, tmp_path: Path, memory: Memory
) -> None:
    view = await a_connector(pool, tmp_path / "in")
    await connectors.set_status(pool, view.id, ConnectorStatus.PAUSED)
    async with sailing(holding):
        await until(lambda: tells(meter, 'tillstream_held_back_bytes{connector="bank"} 7.0'))

        (tmp_path / "in" / "a.json").write_text(ROW % "1")
        await connectors.set_status(pool, view.id, ConnectorStatus.ACTIVE)

        await until(lambda: len(memory.events) == 1)
        assert "\ntillstream_held_back" not in gauges(meter)
