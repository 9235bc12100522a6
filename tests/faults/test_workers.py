"""
Connector workers that come, go, die, freeze and hang while several connectors are at work: whoever runs a connector,
nothing is lost, nothing counts twice, and what an outdated worker says is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from connectors import directory
from connectors.spec import ConnectorConfig, SourceSpec
from sinks.ledger import verify
from tests.faults import oracle
from tests.faults.stage import CONNECTORS_SOON, LOG_LINES, Stage, Worker, open_stage, until
from tests.services import Kafka
from tillstream.control import connector, request, run
from tillstream.control.run import RunStatus

CONNECTORS = tuple(f"bank{number}" for number in range(5))
ROWS = 40  # of a file
_LET_GO = re.compile(r"Connector uninstalled|connector left behind")


@dataclass(slots=True)
class Town:
    """Several banks that drop files, each for a connector of its own; and what must become of it."""

    stage: Stage
    folder: Path
    ids: dict[str, UUID] = field(default_factory=dict)
    files: int = 0
    truth: dict[str, int] = field(default_factory=dict)

    async def open(self) -> None:
        for name in CONNECTORS:
            (self.folder / name).mkdir()
            options = {"directory": str(self.folder / name), "poll_s": 0.1, "rest_s": 0, "checkpoint_s": 0}
            self.ids[name] = await connector.create(
                self.stage.pool, name=name, spec=directory.SPEC, configuration=options
            )

    def drop(self, *, rows: int = ROWS) -> None:
        """A file for each of them."""
        self.files += 1
        for name in CONNECTORS:
            amounts = {f"{name}/{self.files}/{row}": self.files * 10_000 + row for row in range(rows)}
            self.truth |= amounts
            lines = [
                json.dumps({"type": "payin", "reference": key, "status": "succeeded", "asset": "USD", "amount": amount})
                for key, amount in amounts.items()
            ]
            written = self.folder / name / f".{self.files}.tmp"
            written.write_text("\n".join(lines))
            written.rename(self.folder / name / f"{self.files}.jsonl")

    async def drop_for_ever(self) -> None:
        while True:
            self.drop()
            await asyncio.sleep(0.15)

    async def epochs(self) -> dict[UUID, int]:
        rows = await self.stage.pool.fetch("SELECT connector_id, epoch FROM connector_claims")
        return {row["connector_id"]: row["epoch"] for row in rows}

    async def owners(self) -> set[str]:
        """The process ids of the workers that hold claims and live."""
        rows = await self.stage.pool.fetch(
            "SELECT DISTINCT worker FROM connector_claims WHERE heartbeat_at > now() - interval '2 seconds'"
        )
        return {row["worker"].rpartition(":")[2] for row in rows}

    async def runs_on(self, *workers: Worker, every: int = len(CONNECTORS)) -> None:
        """Wait until just these workers hold the claims, and all of them."""
        wanted = {str(worker.process.pid) for worker in workers}

        async def held() -> bool:
            live = "SELECT count(*) FROM connector_claims WHERE heartbeat_at > now() - interval '2 seconds'"
            return await self.stage.pool.fetchval(live) == every and await self.owners() <= wanted

        await until(held, within_s=60, what=lambda: f"connectors run on {wanted}")

    async def settled(self) -> None:
        """Everything is stored, every run has ended, and the ledger balances."""
        pool = self.stage.pool

        async def stored() -> bool:
            count = await pool.fetchval("SELECT count(*) FROM payments")
            assert count <= len(self.truth)
            return bool(count == len(self.truth))

        await until(stored, within_s=90, what="every payment is there")
        await until(self.all_ended, within_s=60, what="every run has ended")
        await until(self.balances, within_s=30, what="the ledger balances")
        rows = await pool.fetch("SELECT reference, amount FROM payments")
        assert {row["reference"]: row["amount"] for row in rows} == self.truth
        log = [
            json.loads(record.value)["id"]
            for record in await oracle.records_of(self.stage.bootstrap, self.stage.events)
        ]
        stored_ids = [row["event_id"] for row in await pool.fetch("SELECT event_id FROM payment_events")]
        assert len(stored_ids) == len(set(log)) == len(self.truth) <= len(log)
        assert await pool.fetchval("SELECT count(*) FROM dead_letters") == 0

    async def all_ended(self) -> bool:
        return all(each.status is not RunStatus.RUNNING for each in await run.list_runs(self.stage.pool, limit=1_000))

    async def balances(self) -> bool:
        return not await verify(self.stage.pool)


@pytest.fixture
async def town(kafka: Kafka, database: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with open_stage(kafka.bootstrap, database, state_partitions=4) as stage:
        made = Town(stage, tmp_path)
        await made.open()
        for role in ("sink", "monitor", "letters"):
            stage.worker(role, role=role, **CONNECTORS_SOON)
        yield made


def worker(town: Town, name: str, **settings: str) -> Worker:
    return town.stage.worker(name, role="connector", **{**CONNECTORS_SOON, **settings})


async def test_workers_that_join_leave_and_die_under_load_pass_connectors_on_and_lose_nothing(town: Town) -> None:
    seen: list[dict[UUID, int]] = []
    dropping = asyncio.create_task(town.drop_for_ever())
    first = worker(town, "first")
    await town.runs_on(first)
    seen.append(await town.epochs())
    second, third = worker(town, "second"), worker(town, "third")
    await town.runs_on(first, second, third)
    seen.append(await town.epochs())
    assert await first.stop() == 0
    await town.runs_on(second, third)
    seen.append(await town.epochs())
    second.send(signal.SIGKILL)
    await town.runs_on(third)
    seen.append(await town.epochs())
    dropping.cancel()

    await town.settled()

    assert await third.stop() == 0
    for before, after in itertools.pairwise(seen):
        assert all(after[each] >= epoch for each, epoch in before.items())
    assert all(seen[-1][each] > epoch for each, epoch in seen[0].items())
    assert "Traceback" not in first.log + third.log


async def test_a_worker_frozen_past_its_session_is_succeeded_and_what_it_says_then_is_refused(town: Town) -> None:
    """
    It freezes between a publish and its checkpoint, with what operators asked for in its hands. When it wakes it goes
    on for a moment: it publishes the same events, which change nothing. Its checkpoints, its runs and its reports are
    refused.

    A file is read in three batches, so at the second publish no connector has done what was asked of it.
    """
    pool = town.stage.pool
    town.drop(rows=5_000)
    asked = [await request.ask(pool, await connector.find(pool, name), directory.SPEC) for name in CONNECTORS]
    zombie = worker(town, "zombie", failpoints="after_publish=stop@2")
    await until(lambda: psutil.Process(zombie.process.pid).status() == psutil.STATUS_STOPPED, what="it freezes")
    before = await town.epochs()
    heir = worker(town, "heir")
    await town.runs_on(heir)
    claimed = await town.epochs()
    assert all(claimed[each] > epoch for each, epoch in before.items())
    runs = [await request.ended(pool, each, within_s=60) for each in asked]
    assert [(each.status, each.read) for each in runs] == [(RunStatus.SUCCESS, 5_000)] * len(asked)

    zombie.send(signal.SIGCONT)
    await until(lambda: len(_LET_GO.findall(zombie.log)) >= len(before), what="the zombie lets go")
    await until(lambda: _refused(heir, zombie), what="its checkpoint is refused, by whoever reads it")
    await zombie.ready()
    town.drop()

    await town.settled()
    assert [await run.find_run(pool, str(each)) for each in asked] == runs
    takers = {row["worker"] for row in await pool.fetch("SELECT worker FROM run_requests")}
    assert {taker.rpartition(":")[2] for taker in takers} == {str(heir.process.pid)}
    assert await heir.stop() == 0
    await town.runs_on(zombie)
    town.drop()
    await town.settled()
    assert await zombie.stop() == 0


async def _refused(*workers: Worker) -> bool:
    """Whether one of them refused a checkpoint."""
    return any([await each.metric("tillstream_checkpoints_refused_total") for each in workers])


PLUGIN = """
    import asyncio, re, time
    from connectors.source import Batch, CheckStep, Task
    from connectors.spec import ConnectorConfig, SourceSpec

    class Config(ConnectorConfig):
        how: str

    class Hanging:
        def __init__(self, config, context):
            self.how = config.how

        async def check(self):
            return [CheckStep("nothing", True, 0.0)]

        async def tasks(self, known):
            yield [Task("one", "one", "one")]

        async def read(self, task, since):
            yield Batch((), (), {})
            if self.how == "thread":
                await asyncio.to_thread(time.sleep, 3600)
            while self.how == "cpu":
                pass
            if self.how == "regex":  # holds the interpreter, and with it every other thread
                re.match("(a+)+$", "a" * 64 + "b")
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

        async def close(self):
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

    SPEC = SourceSpec("hanging", "Hangs.", Config, Hanging, "nothing")
"""


class HangingConfig(ConnectorConfig):
    how: str


HANGING = SourceSpec("hanging", "Hangs.", HangingConfig, lambda *_: None, "nothing")  # type: ignore[arg-type, return-value]


@pytest.fixture
def plugin(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's package on the workers' path."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "hanging_source.py").write_text(textwrap.dedent(PLUGIN))
    info = folder / "hanging_source-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging-source\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tillstream.connectors]\nhanging = hanging_source:SPEC\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


async def test_connectors_that_hang_hold_up_no_other_and_no_rebalance(town: Town, plugin: None) -> None:
    """One in a thread, one that swallows every cancellation and never closes."""
    pool, every = town.stage.pool, len(CONNECTORS) + 2
    hanging = [
        await connector.create(pool, name=how, spec=HANGING, configuration={"how": how})
        for how in ("thread", "stubborn")
    ]
    first = worker(town, "first")
    await town.runs_on(first, every=every)
    town.drop()
    second = worker(town, "second")
    await town.runs_on(first, second, every=every)
    town.drop()
    for each in hanging:
        await connector.set_status(pool, each, connector.ConnectorStatus.PAUSED)
    town.drop()

    await town.settled()

    assert await first.stop() == 0
    town.drop()
    await town.settled()
    assert await second.stop() == 0


async def test_a_source_that_blocks_the_event_loop_is_named_and_waits_while_the_others_run(
    town: Town, plugin: None
) -> None:
    await connector.create(town.stage.pool, name="hanging", spec=HANGING, configuration={"how": "cpu"})
    town.drop()
    first = worker(town, "first", sink_watchdog_s="10s")

    assert await first.ended(within_s=60) == 70
    assert 'task="hanging: reading one"' in first.log, first.log[-LOG_LINES * 80 :]
    # as if it had done so often: it is not to run again before the others are through, however long that takes
    await town.stage.pool.execute("UPDATE connector_claims SET blocked_times = 7 WHERE blocked_at IS NOT NULL")
    second = worker(town, "second", sink_watchdog_s="10s")
    town.drop()
    await town.settled()

    found = await town.stage.pool.fetchrow(
        "SELECT state, problem FROM connector_reports r JOIN connectors c ON c.id = connector_id WHERE name = 'hanging'"
    )
    assert found["state"] == "degraded"
    assert "blocked the event loop" in found["problem"]
    assert await second.stop() == 0


async def test_a_source_that_holds_the_interpreter_ends_its_worker_too(town: Town, plugin: None) -> None:
    """Not even the watchdog's thread runs then."""
    hanging = await connector.create(town.stage.pool, name="hanging", spec=HANGING, configuration={"how": "regex"})
    first = worker(town, "first", sink_watchdog_s="10s")

    assert await first.ended(within_s=60) == 1
    assert 're.match("(a+)+$"' in first.log or "in read" in first.log

    await connector.set_status(town.stage.pool, hanging, connector.ConnectorStatus.PAUSED)
    second = worker(town, "second", sink_watchdog_s="10s")
    town.drop()
    await town.settled()
    assert await second.stop() == 0


async def test_a_worker_without_a_partition_stands_by_and_takes_over(
    kafka: Kafka, database: str, tmp_path: Path
) -> None:
    async with open_stage(kafka.bootstrap, database, state_partitions=1) as stage:
        town = Town(stage, tmp_path)
        await town.open()
        first, second = worker(town, "first"), worker(town, "second")
        await first.ready()
        await second.ready()
        await town.runs_on(first, second)
        [owner] = await town.owners()
        owning, standby = (first, second) if owner == str(first.process.pid) else (second, first)

        owning.send(signal.SIGKILL)

        await town.runs_on(standby)
        assert await standby.stop() == 0
